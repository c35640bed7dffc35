"""The only client of Kubernetes: reads for observe.py, carries out what planners decided.

`PERMISSIONS` is everything that the operator asks of RBAC; a test of the chart compares its rules with it. Kopf's
watches are among them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME

from mizzen_api import KINDS
from mizzen_api.contract import API_VERSION, FIELD_MANAGER, GROUP
from mizzen_operator.errors import ClusterError, ConfigurationError
from mizzen_operator.plan import Event, Manifest, Ref

_READ = ("get", "list", "watch")
_KINDS = tuple(sorted(kind.PLURAL for kind in KINDS))

# (group, resource, verbs)
PERMISSIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    *((GROUP, plural, (*_READ, "delete")) for plural in _KINDS),  # delete: ttlSecondsAfterFinished
    *((GROUP, f"{plural}/status", ("patch",)) for plural in _KINDS),
    # Where the admission plugin OwnerReferencesPermissionEnforcement is on, blockOwnerDeletion needs it.
    *((GROUP, f"{plural}/finalizers", ("update",)) for plural in _KINDS),
    ("", "configmaps", ("get", "list", "create", "patch", "delete")),
    ("", "secrets", ("get", "create", "patch")),
    ("", "persistentvolumeclaims", ("get", "create", "patch")),
    ("", "services", (*_READ, "create", "patch", "delete")),
    ("", "pods", _READ),
    ("", "events", ("list", "create")),
    ("batch", "jobs", (*_READ, "create", "patch", "delete")),
    ("apps", "deployments", (*_READ, "create", "patch", "delete")),
    ("gateway.networking.k8s.io", "httproutes", (*_READ, "create", "patch")),
    ("gateway.networking.k8s.io", "gateways", ("get",)),
)

# Of a ClusterRole alone: an operator that watches namespaces by name is told of accelerators by the chart's value.
CLUSTER_PERMISSIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (("", "nodes", ("list",)),)

_PLURALS = {kind.KIND: kind.PLURAL for kind in KINDS} | {
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Service": "services",
    "Pod": "pods",
    "Event": "events",
    "Job": "jobs",
    "Deployment": "deployments",
    "HTTPRoute": "httproutes",
    "Gateway": "gateways",
    "Node": "nodes",
}
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_TIMEOUT_SECONDS = 30
_PAGE = 200
_NODES_SECONDS = 60.0


class KubernetesCluster:
    """interfaces.Cluster over HTTP."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._nodes: tuple[float, Sequence[Manifest]] = (0.0, ())  # good until

    @classmethod
    async def connect(cls) -> KubernetesCluster:
        """As the pod's service account, or as the kubeconfig says."""
        configuration = client.Configuration()
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and os.path.exists(SERVICE_TOKEN_FILENAME):  # noqa: ASYNC240, PTH110
                config.load_incluster_config(configuration)
            else:
                await config.load_kube_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise ConfigurationError(f"no cluster to connect to ({error}): set KUBECONFIG") from error
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        await self._api.close()

    async def get(self, ref: Ref) -> Manifest | None:
        return await self._found("GET", _path(ref))

    async def list(self, api_version: str, kind: str, namespace: str, labels: dict[str, str]) -> list[Manifest]:
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        path = _path(Ref(api_version, kind, namespace, ""))
        found = await self._found("GET", path, {"labelSelector": selector})
        # Items of a list carry no type of their own.
        return [{"apiVersion": api_version, "kind": kind, **item} for item in (found or {}).get("items", [])]

    async def events_about(self, about: Ref) -> Sequence[Manifest]:
        query = {"fieldSelector": f"involvedObject.kind={about.kind},involvedObject.uid={about.uid}"}
        found = await self._found("GET", _path(Ref("v1", "Event", about.namespace, "")), query)
        items: Sequence[Manifest] = (found or {}).get("items", [])
        return items

    async def nodes(self) -> Sequence[Manifest]:
        """Remembered for a minute: a cluster may have thousands, and of each only what it offers is kept."""
        now = time.monotonic()
        if now >= self._nodes[0]:
            try:
                self._nodes = (now + _NODES_SECONDS, [node async for node in self._pages_of_nodes()])
            except ClusterError as error:
                if error.code != 403:
                    raise
                return []
        return self._nodes[1]

    async def _pages_of_nodes(self) -> AsyncIterator[Manifest]:
        query = {"limit": str(_PAGE)}
        while True:
            page = await self._request("GET", _path(Ref("v1", "Node", "", "")), query)
            for node in page.get("items", []):
                yield _offer(node)
            query["continue"] = page.get("metadata", {}).get("continue", "")
            if not query["continue"]:
                return

    async def serves(self, api_version: str) -> bool:
        return await self._found("GET", f"/apis/{api_version}") is not None

    async def apply(self, manifest: Manifest) -> None:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        await self._request("PATCH", _path(Ref.of(manifest)), query, manifest, _APPLY)

    async def patch(self, ref: Ref, body: Manifest) -> None:
        await self._found("PATCH", _path(ref), {"fieldManager": FIELD_MANAGER}, body, _MERGE)

    async def apply_status(self, ref: Ref, status: dict[str, Any]) -> None:
        body = {
            "apiVersion": ref.api_version,
            "kind": ref.kind,
            "metadata": {"name": ref.name, "namespace": ref.namespace, **({"uid": ref.uid} if ref.uid else {})},
            "status": status,
        }
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        await self._found("PATCH", f"{_path(ref)}/status", query, body, _APPLY)

    async def delete(self, ref: Ref) -> None:
        options: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if ref.uid:
            options["preconditions"] = {"uid": ref.uid}
        try:
            await self._found("DELETE", _path(ref), {}, options)
        except ClusterError as error:
            if error.code != 409:  # another incarnation bears the name now
                raise

    async def publish(self, about: Ref, event: Event) -> None:
        body = _event(about, event, datetime.now(UTC))
        await self._request("POST", _path(Ref("v1", "Event", about.namespace, "")), {}, body)

    async def _found(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest | None:
        try:
            return await self._request(method, path, query or {}, body, content_type)
        except ClusterError as error:
            if error.code == 404:
                return None
            raise

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        """One request. The generated client signs it; its models are not used: manifests are JSON already."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        url = path + (f"?{urlencode(query)}" if query else "")
        try:
            signed = await self._api.param_serialize(method, url, {}, [], headers, body, auth_settings=["BearerToken"])
            response = await self._api.call_api(*signed, _request_timeout=_TIMEOUT_SECONDS)
            text = (await response.read()).decode()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ClusterError(0, f"the API server does not answer: {error or type(error).__name__}") from error
        parsed: Manifest = _parsed(text)
        if not 200 <= response.status <= 299:
            raise ClusterError(response.status, str(parsed.get("message") or text or response.reason))
        return parsed


def _offer(node: Manifest) -> Manifest:
    allocatable = node.get("status", {}).get("allocatable", {})
    return {"spec": {"unschedulable": node["spec"].get("unschedulable")}, "status": {"allocatable": allocatable}}


def _parsed(text: str) -> Manifest:
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _path(ref: Ref) -> str:
    """The collection's path where the name is empty."""
    root = f"/apis/{ref.api_version}" if "/" in ref.api_version else f"/api/{ref.api_version}"
    scope = f"/namespaces/{quote(ref.namespace)}" if ref.namespace else ""
    return f"{root}{scope}/{_PLURALS[ref.kind]}" + (f"/{quote(ref.name)}" if ref.name else "")


def _event(about: Ref, event: Event, now: datetime) -> Manifest:
    """A core/v1 Event, which is what `kubectl describe` reads."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(f"{about}{event}{now.isoformat()}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name}.{digest}", "namespace": about.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": os.environ.get("MIZZEN_POD_NAME", FIELD_MANAGER),
    }
