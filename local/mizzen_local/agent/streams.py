"""The streams of a remote command: stdin, stdout, stderr, exit status and window sizes over SPDY or one WebSocket.

API servers before 1.36 speak SPDY/3.1 to kubelets, whatever their own clients speak; newer ones and the embedded one
may pass on a WebSocket. Both end here in the same object.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from mizzen_local.api import spdy
from mizzen_local.client import Object

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_NAMES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
_WEBSOCKETS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io")
_CREATION_SECONDS = 30.0
_HIGH_WATER = 2**20  # bytes of a client that wait for the pod before reading stops


@dataclass(frozen=True)
class Wanted:
    """Which streams the client asks for; a terminal has one output, so it knows no stderr."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def parse(cls, query: Any) -> Wanted:
        def given(name: str) -> bool:
            return query.get(name) in ("1", "true")

        tty = given("tty")
        return cls(given("input"), given("output"), given("error") and not tty, tty)

    @property
    def names(self) -> set[str]:
        asked = {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr, "resize": self.tty}
        return {"error", *(name for name, wanted in asked.items() if wanted)}


class Streams(ABC):
    """`stdin` gives bytes, then None when the client has no more; `sizes` are (rows, columns)."""

    def __init__(self) -> None:
        self.stdin: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.closed = asyncio.Event()  # the client has gone

    def take(self, channel: int, data: bytes) -> None:
        """What a client sent."""
        if channel == STDIN and data:
            self.stdin.put_nowait(data)
        elif channel == RESIZE:
            for line in data.splitlines():
                try:
                    size = json.loads(line)
                    self.sizes.put_nowait((int(size["Height"]), int(size["Width"])))
                except (ValueError, KeyError, TypeError):
                    continue

    def end(self) -> None:
        self.closed.set()
        self.stdin.put_nowait(None)

    @abstractmethod
    async def send(self, channel: int, data: bytes) -> None: ...

    @abstractmethod
    async def finish(self, status: Object) -> web.StreamResponse: ...


class WebSocketStreams(Streams):
    def __init__(self, socket: web.WebSocketResponse) -> None:
        super().__init__()
        self._socket = socket
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def accept(cls, request: web.Request, wanted: Wanted) -> Self:
        socket = web.WebSocketResponse(protocols=_WEBSOCKETS, max_msg_size=0)
        await socket.prepare(request)
        found = cls(socket)
        # kubelets say so that the connection is there
        await found.send(STDOUT if wanted.stdout else STDERR if wanted.stderr else ERROR, b"")
        return found

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            if message.data[0] == 0xFF:  # v5: this channel is closed
                if message.data[1:2] == bytes([STDIN]):
                    self.stdin.put_nowait(None)
            else:
                self.take(message.data[0], message.data[1:])
        self.end()

    async def send(self, channel: int, data: bytes) -> None:
        await self._socket.send_bytes(bytes([channel]) + data)

    async def finish(self, status: Object) -> web.StreamResponse:
        if not self._socket.closed:
            await self.send(ERROR, json.dumps(status).encode())
            await self._socket.close()
        self._reading.cancel()
        return self._socket


class SpdyConnection:
    """An HTTP connection that was upgraded to SPDY/3.1; `frames` ends when the client closes it."""

    def __init__(self, request: web.Request) -> None:
        self._request, self._session = request, spdy.Session()
        self._queue: asyncio.Queue[spdy.Frame | None] = asyncio.Queue()
        self._held, self._paused = 0, False
        self._writer: AbstractStreamWriter
        self.response = web.StreamResponse(status=101)

    @classmethod
    async def accept(cls, request: web.Request, protocols: tuple[str, ...]) -> Self:
        """Upgrade, with the first of the client's protocols that is known here; raises HTTPException."""
        given = ",".join(request.headers.getall("X-Stream-Protocol-Version", []))
        offered = [protocol.strip() for protocol in given.split(",") if protocol.strip()]
        chosen = next((protocol for protocol in offered if protocol in protocols), "")
        if not chosen and offered:
            known = f"client supports {offered}, server accepts {protocols}"
            raise web.HTTPForbidden(text=f"unable to upgrade: unable to negotiate protocol: {known}")
        found = cls(request)
        headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": chosen}
        found.response.headers.update({key: value for key, value in headers.items() if value})
        request.protocol.set_parser(found)  # type: ignore[arg-type]  # what comes from now on is no HTTP
        writer = await found.response.prepare(request)
        assert writer is not None
        found._writer = writer
        writer.send_headers()
        return found

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Bytes of the client, from the protocol."""
        for frame in self._session.feed(data):
            self._held += len(frame.data)
            self._queue.put_nowait(frame)
        if self._held > _HIGH_WATER and not self._paused and self._request.transport is not None:
            self._paused = True
            self._request.transport.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        self._queue.put_nowait(None)

    def set_exception(self, *_: object) -> None:
        self._queue.put_nowait(None)

    async def frames(self) -> AsyncIterator[spdy.Frame]:
        """Those that say something; pings and the acceptance of streams are dealt with here."""
        while (frame := await self._queue.get()) is not None:
            self._held -= len(frame.data)
            if self._paused and self._held <= _HIGH_WATER and self._request.transport is not None:
                self._paused = False
                self._request.transport.resume_reading()
            if frame.kind == spdy.PING:
                await self.write(spdy.pong(frame.stream))
            elif frame.kind == spdy.GOAWAY:
                return
            else:
                if frame.kind == spdy.SYN_STREAM:
                    await self.write(self._session.reply(frame.stream))
                yield frame

    async def write(self, data: bytes) -> None:
        await self._writer.write(data)
        await self._writer.drain()

    async def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        await self.write(spdy.data(stream, data, fin=end))

    def close(self) -> None:
        if self._request.transport is not None:
            self._request.transport.close()


class SpdyStreams(Streams):
    _PROTOCOLS = ("v4.channel.k8s.io",)

    def __init__(self, connection: SpdyConnection) -> None:
        super().__init__()
        self._connection = connection
        self._numbers: dict[int, int] = {}  # from channel to stream
        self._complete = asyncio.Event()
        self._reading: asyncio.Task[None]

    @classmethod
    async def accept(cls, request: web.Request, wanted: Wanted) -> Self:
        """Upgrade, and wait until the client has made all its streams."""
        found = cls(await SpdyConnection.accept(request, cls._PROTOCOLS))
        found._reading = asyncio.create_task(found._read({_NAMES[name] for name in wanted.names}))
        await asyncio.wait_for(found._complete.wait(), _CREATION_SECONDS)
        return found

    async def _read(self, expected: set[int]) -> None:
        channels: dict[int, int] = {}
        async for frame in self._connection.frames():
            if frame.kind == spdy.SYN_STREAM:
                channel = _NAMES.get(frame.headers.get("streamtype", ""), -1)
                channels[frame.stream], self._numbers[channel] = channel, frame.stream
                if expected <= set(channels.values()):
                    self._complete.set()
            elif frame.kind == 0:
                channel = channels.get(frame.stream, -1)
                self.take(channel, frame.data)
                if frame.fin and channel == STDIN:
                    self.stdin.put_nowait(None)
            elif frame.kind == spdy.RST_STREAM and channels.get(frame.stream) == STDIN:
                self.stdin.put_nowait(None)
        self.end()

    async def send(self, channel: int, data: bytes) -> None:
        if data and channel in self._numbers:
            await self._connection.send(self._numbers[channel], data)

    async def finish(self, status: Object) -> web.StreamResponse:
        if not self.closed.is_set():
            await self.send(ERROR, json.dumps(status).encode())
            for channel in (STDOUT, STDERR, ERROR):
                if channel in self._numbers:
                    await self._connection.send(self._numbers[channel], b"", end=True)
        self._reading.cancel()
        self._connection.close()
        return self._connection.response


async def accept(request: web.Request, wanted: Wanted) -> Streams:
    """Over whichever of the two the client asks for."""
    upgrade = request.headers.get("Upgrade", "").lower()
    if upgrade == "websocket":
        return await WebSocketStreams.accept(request, wanted)
    if upgrade == "spdy/3.1":
        return await SpdyStreams.accept(request, wanted)
    raise web.HTTPBadRequest(text="Upgrade request required")
