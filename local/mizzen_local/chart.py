"""Installs the platform's Helm chart into the embedded cluster, with the Helm SDK: what any cluster would get."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mizzen_local.http_client import HttpClient
from mizzen_local.resources import CRDS

RELEASE, NAMESPACE = "mizzen", "mizzen-system"


def laptop_values() -> dict[str, Any]:
    """What differs from the chart's defaults here; what the user sets wins over it."""
    return {
        # Browsers on this machine reach MLflow by its ClusterIP, which is a loopback address.
        "mlflow": {"allowedHosts": ["127.*"]},
        "gateway": {"port": 80 if os.geteuid() == 0 else 8080},
    }


class ChartError(Exception):
    """The chart is not there, or Helm refused it."""


def find_chart(given: Path | None = None) -> Path:
    """`given`, the copy in the package, or the one of the repository that this file lies in."""
    if given is not None:
        if not (given / "Chart.yaml").exists():
            raise ChartError(f"{given} is no Helm chart: it has no Chart.yaml")
        return given
    packaged = Path(str(resources.files("mizzen_local"))) / "charts" / "mizzen"
    for candidate in (packaged, *(parent / "charts" / "mizzen" for parent in Path(__file__).resolve().parents)):
        if (candidate / "Chart.yaml").exists():
            return candidate
    raise ChartError("the chart was not found beside the package; name it with --chart")


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def parse_values(files: list[Path], settings: list[str]) -> dict[str, Any]:
    """Value files, then `k=v` settings; later ones win, as with `helm`. ChartError names one that cannot be read."""
    import helm_python

    values: dict[str, Any] = {}
    for path in files:
        try:
            found = yaml.safe_load(path.read_text()) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ChartError(f"--values {path}: {' '.join(str(error).split())}") from None
        if not isinstance(found, dict):
            raise ChartError(f"--values {path}: values are a mapping, as in `gateway: {{port: 8000}}`")
        values = merged(values, found)
    for setting in settings:
        try:
            values = merged(values, helm_python.parse_set_string(setting))
        except helm_python.HelmError as error:
            raise ChartError(f"--set {setting}: {error}") from None
    return values


async def apply_definitions(client: HttpClient, chart: Path) -> int:
    """Helm never updates CustomResourceDefinitions that exist, so we do it before an upgrade."""
    count = 0
    for path in sorted(chart.glob("**/crds/*.yaml")):  # noqa: ASYNC240
        for document in yaml.safe_load_all(path.read_text()):
            if document:
                name = document["metadata"]["name"]
                await client.patch(CRDS, name, document, patch_type="apply", field_manager="helm", force=True)
                count += 1
    return count


def install(kubeconfig: Path, chart: Path, values: dict[str, Any], *, timeout: int) -> tuple[str, int]:
    """Install or upgrade the release and wait until it is ready; answers (what was done, revision)."""
    import helm_python

    config = helm_python.Config(kubeconfig_path=str(kubeconfig), namespace=NAMESPACE, burst_limit=1000, qps=500)
    with config:
        try:
            known = [r for r in config.list(all_states=True) if r.get("name") == RELEASE]
            common: dict[str, Any] = {"namespace": NAMESPACE, "timeout": timeout, "wait": "watcher"}
            if known:
                release = config.upgrade(str(chart), RELEASE, values, **common)
                return "upgraded", _revision(release)
            release = config.install(str(chart), RELEASE, values, create_namespace=True, **common)
            return "installed", _revision(release)
        except helm_python.HelmError as error:
            raise ChartError(str(error)) from error


def _revision(release: Any) -> int:
    return int(release.get("version") or release.get("revision") or 1)
