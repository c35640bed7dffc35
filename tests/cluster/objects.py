"""Short builders for the objects that the suite creates; images come from the environment, so that mirrors do."""

from __future__ import annotations

import os
from typing import Any

Object = dict[str, Any]

# a shell with the usual small commands, and a Python for what has to listen on a port
IMAGE = os.environ.get("MIZZEN_TEST_IMAGE", "busybox:1.36")
PYTHON_IMAGE = os.environ.get("MIZZEN_TEST_PYTHON_IMAGE", "python:3.12-alpine")

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
SERVE = """
import http.server, os
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ.get("WORD", "hello").encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8000), Page).serve_forever()
"""


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> Object:
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def shell(script: str, name: str = "c", **more: Any) -> Object:
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **more}


def server(word: str = "hello", **more: Any) -> Object:
    """A container that answers GET on port 8000 of its pod's address."""
    env = [{"name": "WORD", "value": word}, field("POD_IP", "status.podIP")]
    probe = {"httpGet": {"port": 8000}, "periodSeconds": 1}
    return {
        "name": "c", "image": PYTHON_IMAGE, "command": ["python3", "-c", SERVE], "env": env,
        "ports": [{"name": "http", "containerPort": 8000}], "readinessProbe": probe, **more,
    }  # fmt: skip


def field(variable: str, path: str) -> Object:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def pod_spec(*containers: Object, **spec: Any) -> Object:
    return {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}


def pod(name: str, *containers: Object, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    metadata = {"name": name, "labels": labels or {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(*containers, **spec)}


def deployment(name: str, container: Object | None = None, replicas: int = 1, **spec: Any) -> Object:
    labels = {"app": name}
    template = pod_spec(container or shell(FOREVER), restartPolicy="Always")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template},
            **spec,
        },
    }


def idle_deployment(name: str, **spec: Any) -> Object:
    """A Deployment without pods, for tests of its object alone."""
    return deployment(name, {"name": "c", "image": IMAGE}, 0, **spec)


def job(name: str, script: str, *, restart: str = "Never", **spec: Any) -> Object:
    template = {"spec": pod_spec(shell(script), restartPolicy=restart)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def service(name: str, **spec: Any) -> Object:
    body = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


def definition(group: str, schema: Object, plural: str = "widgets", **version: Any) -> Object:
    kind = plural.removesuffix("s").capitalize()
    served = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


def state(found: Object, container: str = "c") -> Object:
    """The present state of a pod's container; empty before its first report."""
    status = found.get("status", {})
    entries = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((dict(entry.get("state", {})) for entry in entries if entry["name"] == container), {})


def conditions(found: Object) -> dict[str, Object]:
    return {entry["type"]: entry for entry in found.get("status", {}).get("conditions") or []}


def is_ready(found: Object) -> bool:
    return conditions(found).get("Ready", {}).get("status") == "True"


def has_ended(found: Object) -> bool:
    return found.get("status", {}).get("phase") in ("Succeeded", "Failed")
