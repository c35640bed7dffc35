"""Port forwarding over one WebSocket: SPDY tunnelled as kubectl does, or channels as other clients do."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mizzen_local.api import spdy

if TYPE_CHECKING:
    import aiohttp

    from mizzen_local.api.kubelets import Kubelets

_SPDY = "SPDY/3.1+portforward.k8s.io"
_CHANNELS = ("v4.channel.k8s.io", "portforward.k8s.io")
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Tunnel:
    """One client's socket and the connections to the pod that it asks for."""

    def __init__(self, kubelets: Kubelets, url: str) -> None:
        self._kubelets, self._url = kubelets, url
        self._nodes: dict[int, aiohttp.ClientWebSocketResponse] = {}
        self._early: dict[int, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, offered: list[str], ports: list[int], receive: Receive, send: Send) -> None:
        protocol = next((item for item in (_SPDY, *_CHANNELS) if item in offered), None)
        await send({"type": "websocket.accept", "subprotocol": protocol})
        try:
            if protocol == _SPDY:
                await self._spdy(receive, send)
            else:
                await self._channels(ports, receive, send)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for node in self._nodes.values():
                await node.close()

    async def _spdy(self, receive: Receive, send: Send) -> None:
        session = spdy.Session()
        errors: dict[str, int] = {}  # the error stream of each request

        async def write(data: bytes) -> None:
            await send({"type": "websocket.send", "bytes": data})

        while (message := await receive())["type"] == "websocket.receive":
            for frame in session.feed(message.get("bytes") or b""):
                if frame.kind == spdy.SYN_STREAM:
                    await write(session.reply(frame.stream))
                    request = frame.headers.get("requestid", "")
                    if frame.headers.get("streamtype") == "error":
                        errors[request] = frame.stream
                    else:
                        port, stream, error = int(frame.headers["port"]), frame.stream, errors.get(request, 0)
                        self._start(self._stream(port, stream, error, write))
                        self._early[stream] = []
                elif frame.kind == 0:
                    await self._inward(frame.stream, frame.data)
                elif frame.kind == spdy.PING:
                    await write(spdy.pong(frame.stream))
                elif frame.kind == spdy.RST_STREAM and frame.stream in self._nodes:
                    await self._nodes.pop(frame.stream).close()
                elif frame.kind == spdy.GOAWAY:
                    return

    async def _stream(self, port: int, stream: int, error: int, write: Callable[[bytes], Awaitable[None]]) -> None:
        """One TCP connection: bytes of the pod go out as data frames, then both streams end."""

        async def outward(data: bytes) -> None:
            await write(spdy.data(stream, data))

        problem = await self._connect(port, stream, outward)
        if error:
            await write(spdy.data(error, problem.encode(), fin=True))
        await write(spdy.data(stream, b"", fin=True))

    async def _channels(self, ports: list[int], receive: Receive, send: Send) -> None:
        """Channel 2i carries the data of the i-th port, 2i+1 its errors; each begins with the port's number."""

        async def write(channel: int, data: bytes) -> None:
            await send({"type": "websocket.send", "bytes": bytes([channel]) + data})

        async def stream(channel: int, port: int) -> None:
            problem = await self._connect(port, channel, lambda data: write(channel, data))
            if problem:
                await write(channel + 1, problem.encode())

        for index, port in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                await write(channel, struct.pack("<H", port))
            self._early[2 * index] = []
            self._start(stream(2 * index, port))
        while (message := await receive())["type"] == "websocket.receive":
            body = message.get("bytes") or b""
            if body:
                await self._inward(body[0], body[1:])

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _inward(self, stream: int, data: bytes) -> None:
        node = self._nodes.get(stream)
        if node is not None:
            await node.send_bytes(data)
        elif stream in self._early and data:
            self._early[stream].append(data)  # the connection to the pod is still being made

    async def _connect(self, port: int, stream: int, outward: Callable[[bytes], Awaitable[None]]) -> str:
        """Carry one connection until the pod ends it; returns what went wrong."""
        import aiohttp

        url = f"{self._url}/{port}"
        kubelets = self._kubelets
        try:
            node = await kubelets.session().ws_connect(url, headers=kubelets.headers(), ssl=kubelets.tls(url))
        except (aiohttp.ClientError, OSError) as error:
            self._early.pop(stream, None)
            return f"error forwarding port {port}: {error}"
        for data in self._early.pop(stream, []):
            await node.send_bytes(data)
        self._nodes[stream] = node
        problem = ""
        async for message in node:
            if message.type == aiohttp.WSMsgType.BINARY:
                await outward(message.data)
            elif message.type == aiohttp.WSMsgType.TEXT:  # the node's words for what went wrong
                problem = message.data
        self._nodes.pop(stream, None)
        return problem
