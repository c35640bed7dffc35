"""The kubelet endpoint of the node agent: logs, commands and ports of its pods, for the API server alone.

HTTPS on the port that the Node announces; every request brings `Authorization: Bearer <token>`.

    GET /containerLogs/{namespace}/{pod}/{container}   the query of the pods/log subresource
    GET /portForward/{namespace}/{pod}/{port}          a WebSocket of binary frames: one TCP connection
    GET /exec/{namespace}/{pod}/{container}?command=.. a WebSocket of v5.channel.k8s.io frames
    GET /metrics/resource                              CPU and memory of node, pods and containers, for Prometheus
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from mizzen_local.agent.resource_metrics import Meters
from mizzen_local.agent.worker import PodWorker
from mizzen_local.objects import meta, parse_time

if TYPE_CHECKING:
    from mizzen_local.agent.node import NodeAgent

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = logging.getLogger(__name__)
_FOLLOW_INTERVAL = 0.2  # only while somebody follows


def log_lines(lines: list[bytes], *, tail: int | None, since: datetime | None, timestamps: bool) -> list[bytes]:
    """From lines of the CRI log to what `kubectl logs` prints; a line that was cut in two is put together again."""
    kept: list[tuple[bytes, bytes]] = []
    partial: list[bytes] = []
    for line in lines:
        stamp, _, rest = line.partition(b" ")
        _, _, rest = rest.partition(b" ")
        tag, _, text = rest.partition(b" ")
        partial.append(text)
        if tag == b"P":
            continue
        kept.append((stamp, b"".join(partial)))
        partial = []
    if partial:
        kept.append((stamp, b"".join(partial)))
    if since is not None:
        kept = [(stamp, text) for stamp, text in kept if parse_time(_to_micros(stamp)) >= since]
    if tail is not None:
        kept = kept[-tail:] if tail else []
    return [(stamp + b" " + text if timestamps else text) + b"\n" for stamp, text in kept]


def _to_micros(stamp: bytes) -> str:
    return stamp.decode()[:26] + "Z"


class Kubelet:
    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent
        self._token = ""
        self._meters, self._measuring = Meters(), asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def start(self, token: str, certificate: tuple[Path, Path] | None) -> int:
        """Serve on a free port of the node's address; answers the port."""
        self._token = token
        app = web.Application(middlewares=[self._authenticate])
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/portForward/{namespace}/{pod}/{port}", self._port_forward)
        app.router.add_get("/exec/{namespace}/{pod}/{container}", self._exec)
        app.router.add_get("/metrics/resource", self._resource_metrics)
        app.router.add_get("/healthz", _healthz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
        site = web.TCPSite(self._runner, self._agent.host_ip, 0, ssl_context=context)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self._token or not hmac.compare_digest(given.encode(), self._token.encode()):
            return web.Response(status=401, text="a bearer token is needed")
        return await handler(request)

    def _worker(self, request: web.Request) -> PodWorker:
        wanted = (request.match_info["namespace"], request.match_info["pod"])
        for worker in self._agent.workers.values():
            if (meta(worker.pod)["namespace"], meta(worker.pod)["name"]) == wanted:
                return worker
        raise web.HTTPNotFound(text=f'pod "{wanted[1]}" is not on this node')

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, name = self._worker(request), request.match_info["container"]
        container = worker.containers.get(name)
        if container is None:
            return web.Response(status=400, text=f'container "{name}" is not in pod "{request.match_info["pod"]}"')
        query = request.query
        attempt = container.attempt - (1 if query.get("previous") == "true" else 0)
        if attempt < 0:
            kind = "previous terminated " if query.get("previous") == "true" else ""
            text = f'{kind}container "{name}" in pod "{request.match_info["pod"]}" not found or waiting to start'
            return web.Response(status=400, text=text)
        since = None
        if query.get("sinceSeconds"):
            since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
        elif query.get("sinceTime"):
            since = parse_time(query["sinceTime"])
        limit = int(query["limitBytes"]) if query.get("limitBytes") else None
        follow = query.get("follow") == "true" and attempt == container.attempt
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        path = container.attempt_folder(attempt) / "log"
        tail = int(query["tailLines"]) if query.get("tailLines") else None

        def still() -> bool:
            return follow and container.running and container.attempt == attempt

        timestamps = query.get("timestamps") == "true"
        async for lines in _batches(path, still):
            data = b"".join(log_lines(lines, tail=tail, since=since, timestamps=timestamps))
            tail = None  # counts for what is there at first
            if limit is not None:
                data = data[:limit]
                limit -= len(data)
            await response.write(data)
            if limit == 0:
                break
        await response.write_eof()
        return response

    async def _resource_metrics(self, _: web.Request) -> web.Response:
        async with self._measuring:
            text = await asyncio.to_thread(self._meters.scrape, list(self._agent.workers.values()))
        return web.Response(text=text, content_type="text/plain", headers={"Cache-Control": "no-cache"})

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        """Raw bytes both ways over an upgraded connection, to one port of the pod."""
        worker, port = self._worker(request), int(request.match_info["port"])
        try:
            reader, writer = await asyncio.open_connection(worker.ip, port)
        except OSError as error:
            return web.Response(status=502, text=f"pod {request.match_info['pod']}, port {port}: {error.strerror}")
        socket = web.WebSocketResponse()
        await socket.prepare(request)

        async def outward() -> None:
            while data := await reader.read(2**16):
                await socket.send_bytes(data)
            await socket.close()

        task = asyncio.create_task(outward())
        try:
            async for message in socket:
                writer.write(message.data)
                await writer.drain()
        finally:
            task.cancel()
            writer.close()
        return socket

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        """A command in a running container, without a terminal."""
        worker, name = self._worker(request), request.match_info["container"]
        container = worker.containers.get(name)
        if container is None or not container.running:
            return web.Response(status=400, text=f'container "{name}" does not run')
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        process = await container.begin(request.query.getall("command", []))
        assert process.stdin and process.stdout and process.stderr

        async def outward(channel: int, reader: asyncio.StreamReader) -> None:
            while data := await reader.read(2**15):
                await socket.send_bytes(bytes([channel]) + data)

        async def inward() -> None:
            assert process.stdin
            async for message in socket:
                data = message.data if isinstance(message.data, bytes) else b""
                if data[:1] == b"\x00":
                    process.stdin.write(data[1:])
                    await process.stdin.drain()
                elif data[:2] == b"\xff\x00":
                    process.stdin.close()
            if process.returncode is None:  # the client went away
                process.kill()

        reading = asyncio.create_task(inward())
        try:
            await asyncio.gather(outward(1, process.stdout), outward(2, process.stderr))
            code = await process.wait()
            await socket.send_bytes(b"\x03" + json.dumps(_exec_status(code)).encode())
            await socket.close()
        finally:
            reading.cancel()
            if process.returncode is None:
                process.kill()
        return socket


def _exec_status(code: int) -> dict[str, object]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    message = f"command terminated with non-zero exit code: exit status {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "NonZeroExitCode",
        "details": {"causes": causes},
    }


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _batches(path: Path, still: Callable[[], bool]) -> AsyncIterator[list[bytes]]:
    """Whole lines of a log that may still grow, and that may be rotated meanwhile."""
    rotated = path.with_name("log.1")
    if rotated.exists():
        yield rotated.read_bytes().splitlines()
    position, first = 0, True
    while True:
        going = still()
        try:
            if path.stat().st_size < position:  # noqa: ASYNC240
                position = 0
            with path.open("rb") as file:
                file.seek(position)
                data = file.read()
        except OSError:
            data = b""
        whole = data[: data.rfind(b"\n") + 1]
        position += len(whole)
        if whole or first:
            yield whole.splitlines()
        first = False
        if not going:
            return
        await asyncio.sleep(_FOLLOW_INTERVAL)
