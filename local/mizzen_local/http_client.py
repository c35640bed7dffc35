"""The Client over TLS: what the node agent and the command line use, with nothing but a kubeconfig."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import yaml

from mizzen_local.client import ApiError, Object, PatchType, Resource, WatchEvent
from mizzen_local.resources import PODS

_PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
SocketFactory = Callable[[tuple[Any, ...]], socket.socket]  # from what `getaddrinfo` says to a socket
_LINE_LIMIT = 64 * 2**20  # one watch event is one line, and a ConfigMap may be large


@dataclass(frozen=True)
class Kubeconfig:
    """The current context of a kubeconfig file: where the server is and how to prove who we are."""

    server: str
    ca: bytes | None = None
    token: str = ""
    client_cert: Path | None = None
    client_key: Path | None = None
    client_pem: bytes | None = None  # certificate and key, where the kubeconfig holds them itself
    insecure: bool = False

    @classmethod
    def load(cls, path: Path) -> Kubeconfig:
        document = yaml.safe_load(path.read_text())
        current = document.get("current-context")
        context = next(
            c["context"] for c in document["contexts"] if c["name"] == current or len(document["contexts"]) == 1
        )
        cluster = next(c["cluster"] for c in document["clusters"] if c["name"] == context["cluster"])
        user: Object = next((u["user"] for u in document["users"] if u["name"] == context["user"]), {})
        ca: bytes | None = None
        if "certificate-authority-data" in cluster:
            ca = base64.b64decode(cluster["certificate-authority-data"])
        elif "certificate-authority" in cluster:
            ca = (path.parent / cluster["certificate-authority"]).read_bytes()
        token = user.get("token") or ""
        if not token and user.get("tokenFile"):
            token = (path.parent / user["tokenFile"]).read_text().strip()
        pem: bytes | None = None
        if "client-certificate-data" in user and "client-key-data" in user:
            parts = (user["client-certificate-data"], user["client-key-data"])
            pem = b"\n".join(base64.b64decode(part) for part in parts)
        return cls(
            server=cluster["server"].rstrip("/"),
            ca=ca,
            client_pem=pem,
            token=token,
            client_cert=path.parent / user["client-certificate"] if "client-certificate" in user else None,
            client_key=path.parent / user["client-key"] if "client-key" in user else None,
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
        )

    def ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert:
            context.load_cert_chain(self.client_cert, self.client_key)
        elif self.client_pem:
            with tempfile.NamedTemporaryFile() as file:  # OpenSSL reads files only; this one is the owner's alone
                file.write(self.client_pem)
                file.flush()
                context.load_cert_chain(file.name)
        return context


class HttpClient:
    """Use as `async with HttpClient(Kubeconfig.load(path)) as client:`; `sockets` makes what it connects with."""

    def __init__(self, config: Kubeconfig, sockets: SocketFactory | None = None) -> None:
        self.config, self._sockets = config, sockets
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: Path) -> HttpClient:
        return cls(Kubeconfig.load(path))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Authorization": f"Bearer {self.config.token}"} if self.config.token else {}
            secure = self.config.server.startswith("https")
            tls = self.config.ssl_context() if secure else False
            connector = aiohttp.TCPConnector(ssl=tls, limit=0, socket_factory=self._sockets)
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={**headers, "Accept": "application/json"},
                read_bufsize=_LINE_LIMIT,
                timeout=aiohttp.ClientTimeout(total=None, connect=5),
            )
        return self._session

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One call to any path of the server; a failure to connect is an ApiError with code 0."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if data is not None else {}
        text = await self._call(method, path, query, data, headers)
        found: Object = json.loads(text) if text else {}
        return found

    async def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        """The end of what a container printed."""
        query = {"container": container, "tailLines": str(lines), "previous": str(previous).lower()}
        return await self._call("GET", _path(PODS, namespace, pod, "log"), query)

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> str:
        try:
            async with self.session.request(
                method,
                self.config.server + path,
                data=data,
                params=query,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=30),
            ) as response:
                text = await response.text()
                if response.status >= 400:
                    raise _error(response.status, text)
                return text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{self.config.server}: {error or type(error).__name__}") from error

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        return await self.request("GET", _path(resource, namespace, name, subresource))

    async def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> Object:
        return await self.request("GET", _path(resource, namespace), query=_selectors(label_selector, field_selector))

    async def create(
        self, resource: Resource, body: Object, namespace: str | None = None, *, name: str = "", subresource: str = ""
    ) -> Object:
        return await self.request("POST", _path(resource, namespace, name, subresource), body)

    async def update(
        self, resource: Resource, body: Object, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        return await self.request("PUT", _path(resource, namespace, body["metadata"]["name"], subresource), body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        patch_type: PatchType = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object:
        query = {"fieldManager": field_manager} if field_manager else {}
        if force:
            query["force"] = "true"
        return await self.request(
            "PATCH",
            _path(resource, namespace, name, subresource),
            patch,
            query=query,
            content_type=_PATCH_TYPES[patch_type],
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation_policy: str = "Background",
        grace_period_seconds: int | None = None,
        uid: str | None = None,
    ) -> Object:
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation_policy}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        return await self.request("DELETE", _path(resource, namespace, name), options)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            **_selectors(label_selector, field_selector),
            **({"resourceVersion": resource_version} if resource_version else {}),
        }
        try:
            async with self.session.get(self.config.server + _path(resource, namespace), params=query) as response:
                if response.status >= 400:
                    raise _error(response.status, await response.text())
                while line := await response.content.readline():
                    if line.strip():
                        yield _event(json.loads(line))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{self.config.server}: {error or type(error).__name__}") from error


def _event(document: Object) -> WatchEvent:
    if document["type"] == "ERROR":
        status = document["object"]
        raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
    return WatchEvent(document["type"], document["object"])


def _path(resource: Resource, namespace: str | None, name: str = "", subresource: str = "") -> str:
    parts = [resource.path]
    if namespace:
        parts.append(f"namespaces/{quote(namespace, safe='')}")
    parts.append(resource.plural)
    if name:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    query = {}
    if label_selector:
        query["labelSelector"] = label_selector
    if field_selector:
        query["fieldSelector"] = field_selector
    return query


def _error(code: int, text: str) -> ApiError:
    try:
        status = json.loads(text)
        return ApiError(code, status.get("reason", ""), status.get("message", text), status.get("details"))
    except (ValueError, AttributeError):
        return ApiError(code, "", text.strip()[:500])
