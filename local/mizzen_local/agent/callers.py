"""Who may call the kubelet endpoint: bearer tokens and client certificates, as the API server judges them.

A caller is known by the token that the embedded cluster shares with its node, by a certificate that the client CA has
signed (the common name is the user, organizations are groups), or by a token that a TokenReview confirms. Then a
SubjectAccessReview decides, as for any kubelet: `nodes/proxy`, or `nodes/metrics` for /metrics. Nobody is anonymous.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from mizzen_local.client import ApiError, Object
from mizzen_local.http_client import HttpClient

_TOKEN_SECONDS, _ALLOWED_SECONDS, _DENIED_SECONDS = 120.0, 300.0, 30.0
_CACHE_SIZE = 1024
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_STREAMS = ("exec", "attach", "portForward")
_SUBRESOURCES = {
    "metrics": ("metrics",),
    "stats": ("stats",),
    "healthz": ("healthz", "proxy"),
    "pods": ("pods", "proxy"),
}


@dataclass(frozen=True)
class Caller:
    name: str
    groups: tuple[str, ...] = ()


class _Cache:
    """Answers with the moment until which they hold."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[float, Any]] = {}

    def get(self, key: Any) -> Any:
        until, value = self._known.get(key, (0.0, None))
        return value if time.monotonic() < until else None

    def put(self, key: Any, value: Any, seconds: float) -> None:
        if len(self._known) >= _CACHE_SIZE:
            self._known.clear()
        self._known[key] = (time.monotonic() + seconds, value)


def asked(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """(verb, subresources of the Node of which any one suffices) that a request needs."""
    head = path.strip("/").partition("/")[0]
    verb = "create" if head in _STREAMS else _VERBS.get(method, "")
    return verb, _SUBRESOURCES.get(head, ("proxy",))


def certified(peer: Object | None) -> Caller | None:
    """Of a verified client certificate, as `ssl.SSLSocket.getpeercert` gives it."""
    names: dict[str, list[str]] = {}
    for part in (peer or {}).get("subject", ()):
        for key, value in part:
            names.setdefault(key, []).append(value)
    if not names.get("commonName"):
        return None
    return Caller(names["commonName"][0], (*names.get("organizationName", ()), "system:authenticated"))


class Callers:
    def __init__(self, client: HttpClient, node: str, token: str) -> None:
        self._client, self._node, self._token = client, node, token
        self._tokens, self._decisions = _Cache(), _Cache()

    async def check(self, request: web.Request) -> web.Response | None:
        """None when the caller may; else the answer."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if given and self._token and hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        try:
            peer = request.transport.get_extra_info("peercert") if request.transport else None
            caller = certified(peer) or (await self._by_token(given) if given else None)
            if caller is None:
                return web.Response(status=401, text="Unauthorized")
            verb, subresources = asked(request.method, request.path)
            for subresource in subresources:
                if await self._allowed(caller, verb, subresource):
                    return None
        except ApiError as error:
            return web.Response(status=500, text=f"Authorization error: {error}")
        attributes = f"verb={verb}, resource=nodes, subresource(s)={list(subresources)}".replace("'", "")
        return web.Response(status=403, text=f"Forbidden (user={caller.name}, {attributes})")

    async def _by_token(self, token: str) -> Caller | None:
        known: Caller | None = self._tokens.get(token)
        if known is not None:
            return known
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        status = (await self._client.request("POST", path, review)).get("status") or {}
        if not status.get("authenticated"):
            return None
        user = status["user"]
        found = Caller(user["username"], tuple(user.get("groups") or ()))
        self._tokens.put(token, found, _TOKEN_SECONDS)
        return found

    async def _allowed(self, caller: Caller, verb: str, subresource: str) -> bool:
        key = caller, verb, subresource
        known: bool | None = self._decisions.get(key)
        if known is not None:
            return known
        attributes = {
            "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": self._node,
        }  # fmt: skip
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": caller.name, "groups": list(caller.groups), "resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        allowed = bool(((await self._client.request("POST", path, review)).get("status") or {}).get("allowed"))
        self._decisions.put(key, allowed, _ALLOWED_SECONDS if allowed else _DENIED_SECONDS)
        return allowed
