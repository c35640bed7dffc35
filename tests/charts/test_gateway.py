"""The chart on an API server, with its own Traefik under its own rights: the Gateway is programmed, routes split."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

pytestmark = pytest.mark.cluster
BIN = Path(sys.executable).parent
NAMESPACE = "mizzen-system"


def until(look: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.05)
    return found


class Api:
    """`python -m mizzen_local.api` in a folder of its own."""

    def __init__(self, state: Path) -> None:
        self.kubeconfig = state / "kubeconfig"
        command = [sys.executable, "-m", "mizzen_local.api", "--state", str(state), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(lambda: self.kubeconfig.exists() and "ok" in self.kubectl("get", "--raw", "/readyz", check=False))

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.kubeconfig), *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    api = Api(tmp_path_factory.mktemp("api"))
    yield api
    api.stop()


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, str]]:
    servers = {name: ThreadingHTTPServer((f"127.30.7.{at}", 8080), answering(name)) for at, name in enumerate("ab", 1)}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {name: str(server.server_address[0]) for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


def answering(name: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"{name} {self.path}".encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def backend(name: str, address: str) -> list[dict[str, Any]]:
    port = {"name": "http", "port": 8080}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [port]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    ]


def route() -> dict[str, Any]:
    def rule(weights: dict[str, int], **match: Any) -> dict[str, Any]:
        rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
        return {
            "matches": [{"path": {"value": "/default/t"}, **match}],
            "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
            "backendRefs": [{"name": name, "port": 8080, "weight": weight} for name, weight in weights.items()],
        }

    chosen = rule({"b": 1}, headers=[{"name": "mizzen-variant", "value": "b"}])
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "t"},
        "spec": {
            "parentRefs": [{"name": "mizzen", "namespace": NAMESPACE}],
            "rules": [chosen, rule({"a": 80, "b": 20})],
        },
    }


def ask(path: str, **headers: str) -> str:
    request = urllib.request.Request(f"http://127.20.7.1:8000{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return ""


def traefik(api: Api, chart: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The container's own command, with the token of its ServiceAccount."""
    (text,) = [
        text
        for name, text in helm.Chart.load(chart)
        .render({"gateway": {"port": 8000}}, name="mizzen", namespace=NAMESPACE)
        .items()
        if name.endswith("traefik.yaml")
    ]
    (pod,) = [d["spec"]["template"]["spec"] for d in yaml.safe_load_all(text) if d["kind"] == "Deployment"]
    arguments = [word.replace("$(MIZZEN_POD_IP)", "127.20.7.1") for word in pod["containers"][0]["args"]]
    config = yaml.safe_load(api.kubeconfig.read_text())
    token = api.kubectl("create", "token", "mizzen-traefik", "-n", NAMESPACE).strip()
    config["users"][0]["user"] = {"token": token}
    own = folder / "kubeconfig"
    own.write_text(yaml.safe_dump(config))
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [str(BIN / "traefik"), *arguments], env={**os.environ, "KUBECONFIG": str(own)}, stdout=log
        )


def test_traefik_programs_the_gateway_and_splits_by_weight(
    api: Api, backends: dict[str, str], chart_folder: Path, tmp_path: Path
) -> None:
    config = helm.Config(kubeconfig_path=api.kubeconfig, namespace=NAMESPACE)
    values = {"gateway": {"port": 8000}}
    config.install(chart_folder, "mizzen", values, namespace=NAMESPACE, create_namespace=True)
    status = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": "127.20.7.1"}]}}})
    patch = (
        "patch",
        "service",
        "mizzen-traefik",
        "-n",
        NAMESPACE,
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    )
    api.kubectl(*patch)
    manifests = [m for name, address in backends.items() for m in backend(name, address)]
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([*manifests, route()]))
    process = traefik(api, chart_folder, tmp_path)
    try:
        until(lambda: ask("/default/t/predict"))
        assert Counter(ask("/default/t/predict") for _ in range(50)) == {"a /predict": 40, "b /predict": 10}
        assert ask("/default/t/x", **{"mizzen-variant": "b"}) == "b /x"
        gateway = until(lambda: json.loads(api.kubectl("get", "gateway", "mizzen", "-n", NAMESPACE, "-o", "json")))
        conditions = {c["type"]: c["status"] for c in gateway["status"]["conditions"]}
        assert conditions == {"Accepted": "True", "Programmed": "True"}
        assert gateway["status"]["addresses"] == [{"type": "IPAddress", "value": "127.20.7.1"}]
        assert b"forbidden" not in (tmp_path / "log").read_bytes()
    finally:
        process.terminate()
        process.wait(20)
    config.upgrade(chart_folder, "mizzen", {**values, "watchNamespaces": ["default"]}, namespace=NAMESPACE)
    config.uninstall("mizzen")
    left = api.kubectl("get", "deployments,services,gateways,persistentvolumeclaims", "-n", NAMESPACE, "-o", "name")
    assert left.split() == ["persistentvolumeclaim/mizzen-mlflow"]  # models outlive the release
