"""Documents follow the code: the API reference is generated, links and decisions hold together."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def paths(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from paths(child, f"{prefix}{name}.")
        yield from paths(child.get("items", {}), f"{prefix}{name}[].")


@pytest.mark.parametrize("script", ["generate_api.py", "generate_cli.py"])
def test_references_are_generated(script: str) -> None:
    command = [sys.executable, str(DOCS / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("crd", sorted((ROOT / "crds").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_field_is_in_the_reference(crd: Path) -> None:
    document = yaml.safe_load(crd.read_text())
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    text = (DOCS / "api.md").read_text()
    chapter = text.split(f"\n## {document['spec']['names']['kind']}\n")[1].split("\n## ")[0]
    wanted = {path for part in ("spec", "status") for path in paths(schema[part], "")}
    assert wanted - set(re.findall(r"^\| \**`([^`]+)`", chapter, re.M)) == set()


@pytest.mark.slow
def test_every_command_and_option_is_in_the_reference() -> None:
    """Asked of the commands themselves, not of the generator."""
    text = (DOCS / "cli.md").read_text()
    mizzen = str(Path(sys.executable).with_name("mizzen"))
    asked = [[], ["data"], ["local"], *([word] for word in ("up", "down", "status", "serve")), ["local", "node"]]
    for path in asked:
        done = subprocess.run(
            [mizzen, *path, "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "200"}
        )
        for option in set(re.findall(r"(--[a-z][a-z-]+)", done.stdout)) - {"--help"}:
            assert f"`{option}`" in text.split(f"\n## mizzen {' '.join(path)}\n")[1].split("\n## ")[0], (path, option)
        for command in re.findall(r"^│ ([a-z][a-z-]+) ", done.stdout, re.M):
            assert f"\n## {' '.join(['mizzen', *path, command])}" in text, (path, command)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", re.sub(r"`[^`\n]*`", "", page.read_text()))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "quickstart.md"], ids=lambda path: path.name)
def test_commands_can_be_typed_as_they_stand(page: Path) -> None:
    """kubectl comes with the environment, and knows the embedded cluster from $KUBECONFIG only."""
    before = page.read_text().split("\n    kubectl ")[0]
    assert re.search(r'^    .*export PATH="\$PWD/\.venv/bin:\$PATH"', before, re.M)
    assert re.search(r"^    export .*KUBECONFIG=~/\.mizzen/kubeconfig$", before, re.M)


def test_decisions_are_numbered_without_gaps_and_have_the_same_parts() -> None:
    decisions = sorted((DOCS / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        headings = re.findall(r"^## (.+)$", path.read_text(), re.M)
        assert headings == ["Context", "Decision", "Consequences"], path.name


def test_values_named_in_the_text_exist() -> None:
    values = (DOCS / "values.md").read_text()
    for page in PAGES:
        for name in re.findall(r"`((?:gateway|mlflow|monitoring|artifacts)\.[a-zA-Z.]+)`", page.read_text()):
            assert f"`{name}" in values, f"{page.name}: {name}"
