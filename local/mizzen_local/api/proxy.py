"""What only the node knows: logs, commands and ports of pods, fetched from the kubelet that the Node announces."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from mizzen_local.api import portforward, request, status
from mizzen_local.api.rbac import Attributes
from mizzen_local.api.request import Target
from mizzen_local.client import ApiError

if TYPE_CHECKING:
    from mizzen_local.api.app import App, Call

_LOG_OPTIONS = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes")
_STREAMS = ("portforward", "exec", "attach")
_KUBELET_OPTIONS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}  # from our query to its
_TRUE = ("1", "true", "True")
_EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")


async def http(app: App, call: Call, target: Target) -> None:
    """The log subresource; the others need a WebSocket."""
    if target.subresource != "log" or call.method != "GET":
        raise status.bad_request("Upgrade request required: use a client that speaks WebSockets")
    import aiohttp

    kubelets = app.kubelets
    pod = kubelets.pod(target.namespace, target.name)
    container = kubelets.container(pod, call.query.get("container", ""))
    url = kubelets.logs_url(target.namespace, pod, container)
    query = {name: call.query[name] for name in _LOG_OPTIONS if name in call.query}
    try:
        async with kubelets.session().get(
            url, params=query, headers=kubelets.headers(), ssl=kubelets.tls(url)
        ) as answer:
            if answer.status >= 400:
                text = (await answer.text()).strip()
                reason = {400: "BadRequest", 404: "NotFound"}.get(answer.status, "InternalError")
                raise ApiError(answer.status if answer.status in (400, 404) else 500, reason, text, {})
            await _copy(app, call, answer)
    except (aiohttp.ClientError, OSError) as error:
        raise ApiError(500, "InternalError", f'Get "{url}": {error}', {}) from error


async def _copy(app: App, call: Call, answer: Any) -> None:
    headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-cache, private")]
    await call.send({"type": "http.response.start", "status": 200, "headers": headers})
    await call.send({"type": "http.response.body", "body": b"", "more_body": True})

    async def pump() -> None:
        async for chunk in answer.content.iter_any():
            await call.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def gone() -> None:
        while (await call.receive())["type"] != "http.disconnect":
            pass

    tasks = {asyncio.ensure_future(item) for item in (pump(), gone(), app.stopping.wait())}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await call.send({"type": "http.response.body", "body": b""})


async def websocket(app: App, scope: dict[str, Any], receive: Any, send: Any) -> None:
    """exec, attach and port-forward: authenticate, authorize, then hand the socket on."""
    await receive()  # websocket.connect
    try:
        headers = dict(scope["headers"])
        user = app.user(headers)
        target = request.parse_path(scope["path"])
        if target is None or target.resource != "pods" or target.subresource not in _STREAMS:
            raise status.no_such_path()
        sub, namespace, name = target.subresource, target.namespace, target.name
        app.authz.check(user, Attributes("create", "", "pods", sub, namespace, name))
        pod = app.kubelets.pod(namespace, name)
        query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
        base = app.kubelets.base(pod)
    except ApiError as error:
        await _refuse(send, error)
        return
    offered = scope.get("subprotocols") or []
    root = f"{base}/{{kind}}/{namespace}/{name}"
    if sub == "portforward":
        tunnel = portforward.Tunnel(app.kubelets, root.format(kind="portForward"))
        await tunnel.serve(offered, [int(value) for key, value in query if key == "ports"], receive, send)
        return
    container = app.kubelets.container(pod, dict(query).get("container", ""))
    passed = [(key, value) for key, value in query if key == "command"]
    passed += [(_KUBELET_OPTIONS[key], "1") for key, value in query if key in _KUBELET_OPTIONS and value in _TRUE]
    url = f"{root.format(kind=sub)}/{container}?{urlencode(passed)}"
    await _bridge(app, url, next((item for item in offered if item in _EXEC_PROTOCOLS), None), receive, send)


async def _refuse(send: Any, error: ApiError) -> None:
    import orjson

    body = orjson.dumps(status.to_status(error))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": error.code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _bridge(app: App, url: str, protocol: str | None, receive: Any, send: Any) -> None:
    """Copy frames between the client's socket and the node's."""
    import aiohttp

    kubelets = app.kubelets
    try:
        node = await kubelets.session().ws_connect(
            url, headers=kubelets.headers(), ssl=kubelets.tls(url), protocols=[protocol] if protocol else []
        )
    except (aiohttp.ClientError, OSError) as error:
        await _refuse(send, ApiError(500, "InternalError", f"error dialing the node: {error}", {}))
        return
    await send({"type": "websocket.accept", "subprotocol": protocol})

    async def inward() -> None:
        while (message := await receive())["type"] == "websocket.receive":
            await node.send_bytes(message.get("bytes") or (message.get("text") or "").encode())

    async def outward() -> None:
        async for message in node:
            if message.type == aiohttp.WSMsgType.BINARY:
                await send({"type": "websocket.send", "bytes": message.data})

    async with node:
        tasks = {asyncio.ensure_future(inward()), asyncio.ensure_future(outward())}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*done, *pending, return_exceptions=True)
    await send({"type": "websocket.close", "code": 1000})
