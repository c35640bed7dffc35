"""`kubectl port-forward` at the node: connections to a pod's ports over SPDY, over a WebSocket, or alone."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from mizzen_local.agent.streams import SpdyConnection
from mizzen_local.agent.worker import PodWorker
from mizzen_local.api import spdy
from mizzen_local.objects import meta

_SPDY_PROTOCOLS = ("portforward.k8s.io",)
_WEBSOCKETS = ("v4.channel.k8s.io", "portforward.k8s.io")
_CHUNK = 2**16
Send = Callable[[bytes], Awaitable[None]]


class _Connection:
    """One TCP connection to the pod; what comes before it is made waits in its queue."""

    def __init__(self, worker: PodWorker, port: int) -> None:
        self._worker, self._port = worker, port
        self.inward: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def carry(self, send: Send) -> str:
        """Until the pod ends it; answers what went wrong, in the kubelet's words."""
        try:
            reader, writer = await asyncio.open_connection(self._worker.ip, self._port)
        except OSError as error:
            pod = meta(self._worker.pod)
            why = f"failed to connect to {self._worker.ip}:{self._port}: {error.strerror or error}"
            return f"error forwarding port {self._port} to pod {pod['name']}, uid {pod['uid']}: {why}"
        feeding = asyncio.create_task(self._feed(writer))
        try:
            while data := await reader.read(_CHUNK):
                await send(data)
        except OSError:
            pass  # a reset by the pod ends it as well as a farewell
        finally:
            feeding.cancel()
            writer.close()
        return ""

    async def _feed(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while (data := await self.inward.get()) is not None:
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


async def forward(request: web.Request, worker: PodWorker) -> web.StreamResponse:
    upgrade = request.headers.get("Upgrade", "").lower()
    if upgrade == "spdy/3.1":
        return await _over_spdy(request, worker)
    if upgrade == "websocket":
        return await _over_channels(request, worker)
    raise web.HTTPBadRequest(text="Upgrade request required")


async def _over_spdy(request: web.Request, worker: PodWorker) -> web.StreamResponse:
    """Each connection is a pair of streams with the same request ID: data, and errors."""
    spdy_connection = await SpdyConnection.accept(request, _SPDY_PROTOCOLS)
    errors: dict[str, int] = {}
    connections: dict[int, _Connection] = {}

    async def carry(stream: int, error: int | None, connection: _Connection) -> None:
        problem = await connection.carry(lambda data: spdy_connection.send(stream, data))
        connections.pop(stream, None)
        if error is not None:
            await spdy_connection.send(error, problem.encode(), end=True)
        await spdy_connection.send(stream, b"", end=True)

    async with asyncio.TaskGroup() as group:
        tasks: set[asyncio.Task[None]] = set()
        async for frame in spdy_connection.frames():
            if frame.kind == spdy.SYN_STREAM:
                identity = frame.headers.get("requestid", "")
                if frame.headers.get("streamtype") == "error":
                    errors[identity] = frame.stream
                else:
                    connection = _Connection(worker, int(frame.headers["port"]))
                    connections[frame.stream] = connection
                    tasks.add(group.create_task(_quietly(carry(frame.stream, errors.pop(identity, None), connection))))
            elif frame.stream in connections and frame.kind == 0:
                if frame.data:
                    connections[frame.stream].inward.put_nowait(frame.data)
                if frame.fin:
                    connections[frame.stream].inward.put_nowait(None)
            elif frame.stream in connections and frame.kind == spdy.RST_STREAM:
                connections[frame.stream].inward.put_nowait(None)
        for task in tasks:
            task.cancel()
    spdy_connection.close()
    return spdy_connection.response


async def _over_channels(request: web.Request, worker: PodWorker) -> web.StreamResponse:
    """Channel 2i carries the data of the i-th port, 2i+1 its errors; each begins with the port's number."""
    ports = [int(port) for value in request.query.getall("port", []) for port in value.split(",")]
    if not ports:
        raise web.HTTPBadRequest(text="query parameter port is required")
    socket = web.WebSocketResponse(protocols=_WEBSOCKETS, max_msg_size=0)
    await socket.prepare(request)
    connections = [_Connection(worker, port) for port in ports]

    async def carry(index: int) -> None:
        problem = await connections[index].carry(lambda data: socket.send_bytes(bytes([2 * index]) + data))
        if problem:
            await socket.send_bytes(bytes([2 * index + 1]) + problem.encode())

    async with asyncio.TaskGroup() as group:
        tasks = []
        for index, port in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                await socket.send_bytes(bytes([channel]) + struct.pack("<H", port))
            tasks.append(group.create_task(_quietly(carry(index))))
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data and message.data[0] < 2 * len(ports):
                connections[message.data[0] // 2].inward.put_nowait(message.data[1:])
        for task in tasks:
            task.cancel()
    return socket


async def forward_one(request: web.Request, worker: PodWorker, port: int) -> web.StreamResponse:
    """How the embedded API server asks: one connection as one WebSocket of bare bytes, and one text if it fails."""
    connection = _Connection(worker, port)
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)

    async def carry() -> None:
        problem = await connection.carry(socket.send_bytes)
        if problem:
            await socket.send_str(problem)
        await socket.close()

    task = asyncio.create_task(_quietly(carry()))
    try:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                connection.inward.put_nowait(message.data)
    finally:
        task.cancel()
    return socket


async def _quietly(work: Awaitable[None]) -> None:
    """A client that has gone is no error."""
    with contextlib.suppress(ConnectionError):
        await work
