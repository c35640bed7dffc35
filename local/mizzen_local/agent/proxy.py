"""The service proxy: answers for ClusterIPs in user space, between a client on this machine and a pod that is ready."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

from mizzen_local.client import Object
from mizzen_local.controllers.endpoints import SERVICE_NAME
from mizzen_local.controllers.informer import Informer
from mizzen_local.objects import Key, key_of, meta
from mizzen_local.recorder import Recorder

_log = logging.getLogger(__name__)
_CONNECT_SECONDS = 3.0
API_SERVER = ("default", "kubernetes")
Address = tuple[str, int]
Dial = Callable[[Callable[[], asyncio.Protocol], Address], Awaitable[tuple[asyncio.Transport, asyncio.Protocol]]]


def backends(service: Object, slices: list[Object]) -> dict[int, list[Address]]:
    """For each port of a Service, the ready endpoints behind it; those that are only serving when none is ready."""
    found: dict[int, list[Address]] = {}
    for port in service["spec"].get("ports") or []:
        if port.get("protocol", "TCP") != "TCP":
            continue
        ready: list[Address] = []
        serving: list[Address] = []
        for piece in slices:
            for target in piece.get("ports") or []:
                if (target.get("name") or "") != (port.get("name") or ""):
                    continue
                for entry in piece.get("endpoints") or []:
                    conditions = entry.get("conditions") or {}
                    address = (entry["addresses"][0], int(target["port"]))
                    if conditions.get("ready", True):
                        ready.append(address)
                    elif conditions.get("serving"):
                        serving.append(address)
        found[port["port"]] = ready or serving
    return found


class _Pipe(asyncio.Protocol):
    """One direction's reader: what arrives here goes to the peer, no faster than the peer takes it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Pipe | None = None
        self._early: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's has no such base class

    def join(self, peer: _Pipe) -> None:
        self.peer = peer
        if peer.transport is not None:
            for data in self._early:
                peer.transport.write(data)
            self._early.clear()
            if self._ended:
                self._pass_end()

    def data_received(self, data: bytes) -> None:
        if self.peer is None or self.peer.transport is None:
            self._early.append(data)
        else:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        self._pass_end()
        return True

    def _pass_end(self) -> None:
        """Half-close the other side; when both have ended, nothing else would ever close them."""
        peer = self.peer
        if peer is None or peer.transport is None or self.transport is None:
            return
        if peer._ended:
            peer.transport.close()
            self.transport.close()
        elif peer.transport.can_write_eof():
            peer.transport.write_eof()

    def connection_lost(self, _: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()


async def _direct(
    protocol: Callable[[], asyncio.Protocol], address: Address
) -> tuple[asyncio.Transport, asyncio.Protocol]:
    return await asyncio.get_running_loop().create_connection(protocol, *address)


def through(make: Callable[[tuple[Any, ...]], socket.socket]) -> Dial:
    """Connections over sockets that somebody else makes, for example in another network."""

    async def dial(
        protocol: Callable[[], asyncio.Protocol], address: Address
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        connection = make((family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        try:
            await loop.sock_connect(connection, address)
        except BaseException:
            connection.close()
            raise
        return await loop.create_connection(protocol, sock=connection)

    return dial


class _Inbound(_Pipe):
    def __init__(self, port: Port) -> None:
        super().__init__()
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._port.inbound.add(self)
        task = asyncio.create_task(self._connect(self.transport))
        self._port.connecting.add(task)
        task.add_done_callback(self._port.connecting.discard)

    async def _connect(self, transport: asyncio.Transport) -> None:
        for address in self._port.candidates():
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, found = await self._port.dial(_Pipe, address)
            except (OSError, TimeoutError):
                continue
            peer = cast("_Pipe", found)
            self.join(peer)
            peer.join(self)
            if transport.is_closing():
                assert peer.transport is not None
                peer.transport.close()
            else:
                transport.resume_reading()
            return
        transport.abort()  # no endpoint: the client sees a reset, as kube-proxy's reject would give it

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._port.inbound.discard(self)


class Port:
    """One listening ClusterIP:port."""

    def __init__(self, dial: Dial = _direct) -> None:
        self.dial = dial
        self.backends: list[Address] = []
        self.connecting: set[asyncio.Task[None]] = set()
        self.inbound: set[_Inbound] = set()
        self._turn: Iterator[int] = itertools.count()
        self.server: asyncio.Server | None = None

    def candidates(self) -> list[Address]:
        """Every backend once, beginning with the next in turn."""
        if not self.backends:
            return []
        first = next(self._turn) % len(self.backends)
        return self.backends[first:] + self.backends[:first]

    async def listen(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: _Inbound(self), *address, reuse_address=True, backlog=1024)

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for task in self.connecting:
            task.cancel()
        for pipe in self.inbound:
            for end in (pipe.transport, pipe.peer.transport if pipe.peer else None):
                if end is not None:
                    end.abort()


class ServiceProxy:
    def __init__(self, services: Informer, slices: Informer, recorder: Recorder) -> None:
        self._services, self._slices, self._recorder = services, slices, recorder
        self._addresses = ipaddress.ip_network("127.0.0.0/8")
        self._api_server: tuple[Address, Dial] | None = None  # else it answers at its ClusterIP itself, where it may
        self._ports: dict[Address, Port] = {}
        self._refused: set[Address] = set()
        self._due: set[Key] = set()
        self._wake = asyncio.Event()
        self._of: dict[Key, set[Address]] = {}

    def move(self, addresses: str, api_server: Address, dial: Dial) -> None:
        """Answer for other ClusterIPs, the API server's too: where it really is, and how it is reached from here."""
        self._addresses, self._api_server = ipaddress.ip_network(addresses), (api_server, dial)

    async def run(self) -> None:
        self._services.on_change(lambda service: self._look(key_of(service)))
        self._slices.on_change(self._slice_changed)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._due:
                    await self._sync(self._due.pop())
        finally:
            for port in self._ports.values():
                port.close()

    def _slice_changed(self, piece: Object) -> None:
        name = (meta(piece).get("labels") or {}).get(SERVICE_NAME)
        if name:
            self._look((meta(piece)["namespace"], name))

    def _look(self, key: Key) -> None:
        self._due.add(key)
        self._wake.set()

    async def _sync(self, key: Key) -> None:
        service = self._services.get(key)
        wanted: dict[Address, list[Address]] = {}
        host = service["spec"].get("clusterIP") if service else None
        if key == API_SERVER and self._api_server is None:
            host = None
        if service and host and host != "None" and ipaddress.ip_address(host) in self._addresses:
            slices: list[Any] = [
                piece
                for piece in self._slices.in_namespace(key[0])
                if (meta(piece).get("labels") or {}).get(SERVICE_NAME) == key[1]
            ]
            own = [self._api_server[0]] if key == API_SERVER and self._api_server else None
            wanted = {(host, port): own or found for port, found in backends(service, slices).items()}
        for address in self._of.get(key, set()) - wanted.keys():
            if (port := self._ports.pop(address, None)) is not None:
                port.close()
            self._refused.discard(address)
        self._of[key] = set(wanted)
        for address, found in wanted.items():
            if address not in self._ports and service is not None:
                await self._open(address, service)
            if address in self._ports:
                self._ports[address].backends = found

    async def _open(self, address: Address, service: Object) -> None:
        own = (meta(service)["namespace"], meta(service)["name"]) == API_SERVER and self._api_server
        port = Port(own[1]) if own else Port()
        try:
            await port.listen(address)
        except OSError as error:
            if address not in self._refused:
                self._refused.add(address)
                text = f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}"
                if isinstance(error, PermissionError):
                    text += "; ports below 1024 need root, or sysctl net.ipv4.ip_unprivileged_port_start=80"
                _log.warning("service %s: %s", meta(service)["name"], text)
                self._recorder.event(service, "Service", "FailedToListen", text, type="Warning")
            return
        self._ports[address] = port
