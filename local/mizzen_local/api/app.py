"""The HTTP face of the API server: a plain ASGI application from bytes to verbs and back."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
import yaml

from mizzen_local.api import discovery, metrics, openapi, proxy, request, status, streaming, verbs
from mizzen_local.api.auth import Authenticator, User
from mizzen_local.api.kubelets import Kubelets
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.rbac import Attributes, Authorizer
from mizzen_local.api.request import Form, Target
from mizzen_local.client import ApiError

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)
_PUBLIC = frozenset({"/healthz", "/livez", "/readyz", "/version", "/version/"})
_JSON = (b"content-type", b"application/json")


@dataclass
class Call:
    """One authenticated request on its way through the server."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[bytes, bytes]
    receive: Receive
    send: Send
    user: User
    form: Form

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    async def body(self) -> bytes:
        chunks, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client went away")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > request.MAX_BODY:
                raise request.too_large()
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)

    async def reply(self, code: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        if self.form.yaml:
            body = yaml.safe_dump(orjson.loads(body)).encode()
            headers = [(b"content-type", b"application/yaml"), *(headers or [])]
        await respond(self.send, code, body, headers)


async def respond(send: Send, code: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    extra = headers or []
    if not any(name == b"content-type" for name, _ in extra):
        extra = [_JSON, *extra]
    size = (b"content-length", str(len(body)).encode())
    common = [size, (b"cache-control", b"no-cache, private")]
    await send({"type": "http.response.start", "status": code, "headers": [*extra, *common]})
    await send({"type": "http.response.body", "body": body})


class App:
    """ASGI: authenticate, authorize, then one of discovery, a verb on a resource, or a stream."""

    def __init__(
        self, machinery: Machinery, authn: Authenticator, authz: Authorizer, kubelets: Kubelets, address: str = "",
        metrics_interval: float = metrics.RESOLUTION,
    ) -> None:  # fmt: skip
        self.machinery, self.authn, self.authz, self.address = machinery, authn, authz, address
        self.kubelets, self.metrics = kubelets, metrics.Metrics(machinery, kubelets, metrics_interval)
        self.stopping = asyncio.Event()
        self.pages = openapi.Pages(machinery.registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await proxy.websocket(self, scope, receive, send)
            return
        if scope["type"] != "http":
            return
        started = False

        async def tracked(message: dict[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._handle(scope, receive, tracked)
        except ApiError as error:
            if not started:
                await respond(send, error.code, orjson.dumps(status.to_status(error)), _error_headers(error))
        except ConnectionError:
            return
        except Exception as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                failure = ApiError(500, "InternalError", f"Internal error occurred: {type(error).__name__}: {error}")
                await respond(send, 500, orjson.dumps(status.to_status(failure)))

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path in _PUBLIC or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            await self._public(path, send)
            return
        headers = dict(scope["headers"])
        user = self.user(headers)
        form = request.negotiate(headers.get(b"accept", b"").decode("latin-1"))
        raw_path = scope.get("raw_path", b"").decode("latin-1").partition("?")[0] or path
        call = Call(
            scope["method"], path, request.parse_query(scope["query_string"]), headers, receive, send, user,
            form or request.PLAIN,
        )  # fmt: skip
        target = request.parse_path(raw_path)
        if form is None and not path.startswith("/openapi") and not (target and target.subresource == "log"):
            raise status.not_acceptable(["application/json", "application/yaml"])
        if target is None:
            await self._other(call)
            return
        await self._resource(call, target)

    def user(self, headers: dict[bytes, bytes]) -> User:
        """Who asks: the token's user, or whom that user may impersonate."""
        user = self.authn.user(headers.get(b"authorization", b"").decode("latin-1"))
        name = headers.get(b"impersonate-user", b"").decode("latin-1")
        if not name:
            return user
        group = headers.get(b"impersonate-group", b"").decode("latin-1")
        self.authz.check(user, Attributes("impersonate", "", "users", name=name))
        if group:
            self.authz.check(user, Attributes("impersonate", "", "groups", name=group))
        groups = [group] if group else []
        parts = name.split(":")
        if name.startswith("system:serviceaccount:") and len(parts) == 4:
            groups += ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"]
        return User(name, (*groups, "system:authenticated"))

    async def _public(self, path: str, send: Send) -> None:
        if path.startswith("/version"):
            await respond(send, 200, orjson.dumps(discovery.VERSION, option=orjson.OPT_INDENT_2))
        else:
            await respond(send, 200, b"ok", [(b"content-type", b"text/plain; charset=utf-8")])

    async def _other(self, call: Call) -> None:
        """Discovery, OpenAPI and the index: paths outside the resources."""
        self.authz.check(call.user, Attributes(call.method.lower(), path=call.path))
        if call.method not in ("GET", "HEAD"):
            raise status.method_not_allowed()
        parts = call.path.strip("/").split("/")
        registry = self.machinery.registry
        found: Any = None
        if call.path.startswith("/openapi/"):
            page = self.pages.page(call.path, call.header(b"accept"))
            if page is None:
                raise status.no_such_path()
            await call.reply(200, page.body, page.headers)
            return
        if call.form.kind == "APIGroupDiscoveryList" and parts in (["api"], ["apis"]):
            api_version = f"apidiscovery.k8s.io/{call.form.version}"
            body = orjson.dumps(discovery.aggregated(registry, parts == ["api"], api_version))
            media = f"application/json;g=apidiscovery.k8s.io;v={call.form.version};as=APIGroupDiscoveryList"
            tag = f'"{hashlib.sha512(body).hexdigest().upper()}"'
            headers = [(b"content-type", media.encode()), (b"vary", b"Accept"), (b"etag", tag.encode())]
            if call.header(b"if-none-match") == tag:
                await call.reply(304, b"", headers)
                return
            await call.reply(200, body, headers)
            return
        if parts == ["api"]:
            found = discovery.api_versions(self.address)
        elif parts == ["apis"]:
            found = discovery.group_list(registry)
        elif len(parts) == 2 and parts[0] == "apis" and parts[1] in registry.groups():
            found = {"kind": "APIGroup", "apiVersion": "v1"} | discovery.group(parts[1], registry.groups()[parts[1]])
        elif len(parts) == 2 and parts[0] == "api":
            found = discovery.resource_list(registry, "", parts[1])
        elif len(parts) == 3 and parts[0] == "apis":
            found = discovery.resource_list(registry, parts[1], parts[2])
        elif parts == [""]:
            found = {
                "paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            }
        if found is None:
            await self._unknown(call, parts[1] if len(parts) > 1 and parts[0] == "apis" else None)
            return
        await call.reply(200, orjson.dumps(found))

    async def _unknown(self, call: Call, group: str | None) -> None:
        """A path of a built-in group is answered with a Status, any other as a plain web server would."""
        if any(info.group == group and info.crd is None for info in self.machinery.registry.infos()):
            raise status.no_such_path()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
        await respond(call.send, 404, b"404 page not found\n", headers)

    async def _resource(self, call: Call, target: Target) -> None:
        info = self.machinery.registry.get(target.group, target.version, target.resource)
        watching = request.is_true(call.query, "watch") and call.method == "GET"
        verb = _verb(call.method, target.name, watching)
        self.authz.check(
            call.user,
            Attributes(verb, target.group, target.resource, target.subresource, target.namespace, target.name),
        )
        if info is None:
            await self._unknown(call, target.group)
            return
        if target.namespace and not info.namespaced:
            await self._unknown(call, target.group)
            return
        if target.subresource and target.subresource not in info.subresources:
            raise status.no_such_path()
        if info.group == metrics.GROUP:
            await metrics.serve(self.metrics, call, info, target)
        elif info.bucket == "/pods" and target.subresource in ("log", "portforward", "exec", "attach"):
            if call.method not in (("GET",) if target.subresource == "log" else ("GET", "POST")):
                raise status.method_not_allowed()
            await proxy.http(self, call, target)
        elif verb == "watch":
            await streaming.watch(self, call, info, target)
        else:
            code, body, headers = verbs.run(self, call, info, target, verb, await call.body())
            await call.reply(code, body, headers)


def _verb(method: str, name: str, watching: bool) -> str:
    if method in ("GET", "HEAD"):
        if watching:
            return "watch"
        return "get" if name else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    found = {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method)
    if found is None:
        raise status.method_not_allowed()
    return found


def _error_headers(error: ApiError) -> list[tuple[bytes, bytes]]:
    seconds = (error.details or {}).get("retryAfterSeconds")
    return [(b"retry-after", str(seconds).encode())] if seconds else []  # which clients wait for in silence
