"""Connections to node agents: where a pod's node answers, and what the server shows to be let in."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mizzen_local.api import status
from mizzen_local.api.machinery import Machinery
from mizzen_local.client import ApiError, Object

if TYPE_CHECKING:
    import aiohttp


@dataclass(frozen=True)
class Access:
    """The token file that server and node agent share, and the authority of the nodes' certificates."""

    token: Path
    ca: Path


class Kubelets:
    """Finds the kubelet endpoint of a pod and opens requests to it."""

    def __init__(self, machinery: Machinery, access: Access | None) -> None:
        self._machinery, self._access = machinery, access
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, connect=5))
        return self._session

    def headers(self) -> dict[str, str]:
        if self._access is None or not self._access.token.exists():
            return {}
        return {"Authorization": f"Bearer {self._access.token.read_text().strip()}"}

    def tls(self, url: str) -> ssl.SSLContext | bool:
        """Nodes on this machine need not prove who they are; others must."""
        host = url.split("//", 1)[1].rsplit(":", 1)[0]
        if ipaddress.ip_address(host).is_loopback or self._access is None:
            return False
        return ssl.create_default_context(cafile=str(self._access.ca))

    def pod(self, namespace: str, name: str) -> Object:
        found = self._machinery.store.get("/pods", namespace, name)
        if found is None:
            raise status.not_found("pods", "", name)
        return found.obj

    def container(self, pod: Object, asked: str) -> str:
        """The container's name: the one asked for, the annotated default, or the only one."""
        names = [
            item["name"]
            for kind in ("containers", "initContainers", "ephemeralContainers")
            for item in pod["spec"].get(kind) or []
        ]
        name = pod["metadata"]["name"]
        if asked:
            if asked not in names:
                raise status.bad_request(f"container {asked} is not valid for pod {name}")
            return asked
        regular: list[str] = [item["name"] for item in pod["spec"]["containers"]]
        if len(regular) == 1:
            return regular[0]
        raise status.bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
        )

    def base(self, pod: Object) -> str:
        """The URL of the pod's node."""
        node_name, name = pod["spec"].get("nodeName"), pod["metadata"]["name"]
        if not node_name:
            raise status.bad_request(f"pod {name} does not have a host assigned")
        return self.node_base(node_name)

    def node_base(self, node_name: str) -> str:
        """The URL of a node's kubelet."""
        node = self._machinery.store.get("/nodes", "", node_name)
        if node is None:
            raise status.not_found("nodes", "", node_name)
        reported = node.obj.get("status") or {}
        addresses = {item["type"]: item["address"] for item in reported.get("addresses") or []}
        port = ((reported.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        if "InternalIP" not in addresses or not port:
            raise ApiError(503, "ServiceUnavailable", f"node {node_name} announces no kubelet endpoint", {})
        return f"https://{addresses['InternalIP']}:{port}"

    def logs_url(self, namespace: str, pod: Object, container: str) -> str:
        reported = pod.get("status") or {}
        for kind in ("containerStatuses", "initContainerStatuses"):
            for item in reported.get(kind) or []:
                waiting = (item.get("state") or {}).get("waiting")
                if item["name"] == container and waiting and not item.get("restartCount") and not item.get("lastState"):
                    reason = waiting.get("reason") or "ContainerCreating"
                    text = f'container "{container}" in pod "{pod["metadata"]["name"]}" is waiting to start: {reason}'
                    raise status.bad_request(text)
        return f"{self.base(pod)}/containerLogs/{quote(namespace)}/{quote(pod['metadata']['name'])}/{quote(container)}"
