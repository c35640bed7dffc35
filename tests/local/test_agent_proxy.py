"""The service proxy between real sockets on loopback."""

# ruff: noqa: ASYNC110 - tests wait for sockets: by looking, with a deadline

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from mizzen_local.agent.proxy import ServiceProxy
from mizzen_local.client import Client, Object
from mizzen_local.controllers.informer import Informer
from mizzen_local.recorder import Recorder
from mizzen_local.resources import ENDPOINT_SLICES, SERVICES

ADDRESS, PORT = "127.20.77.7", 18080


class Events:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def event(self, *args: Any, **_: Any) -> None:
        self.said.append(args[2])


def service(address: str = ADDRESS, port: int = PORT) -> Object:
    meta = {"name": "s", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    return {"metadata": meta, "spec": {"clusterIP": address, "ports": [{"port": port}]}}


def piece(version: int, backends: list[tuple[str, int]]) -> Object:
    labels = {"kubernetes.io/service-name": "s"}
    endpoints = [{"addresses": [host], "conditions": {"ready": True}} for host, _ in backends]
    ports = [{"name": "", "port": backends[0][1]}] if backends else []
    meta = {"name": "s-1", "namespace": "ns", "uid": "v", "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta, "endpoints": endpoints, "ports": ports}


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[Informer, Informer, Events]]:
    client = cast("Client", None)
    services, slices, events = Informer(client, SERVICES), Informer(client, ENDPOINT_SLICES), Events()
    task = asyncio.create_task(ServiceProxy(services, slices, cast("Recorder", events)).run())
    try:
        yield services, slices, events
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def backend(host: str, port: int, answer: Callable[[bytes], bytes]) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await reader.read()))
        writer.write_eof()
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    async with server:
        yield


async def ask(data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(ADDRESS, PORT)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def eventually(wanted: bytes, data: bytes = b"x") -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                if await ask(data) == wanted:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.01)


async def test_it_takes_turns_and_passes_both_ways() -> None:
    async with (
        backend("127.30.77.1", 19001, lambda _: b"one"),
        backend("127.30.77.2", 19001, lambda data: b"one" if data == b"warm" else b"two"),
        proxy() as (services, slices, _),
    ):
        slices.observe(piece(1, [("127.30.77.1", 19001), ("127.30.77.2", 19001)]))
        services.observe(service())
        await eventually(b"one", b"warm")
        assert sorted([await ask(b"x") for _ in range(4)]) == [b"one", b"one", b"two", b"two"]


async def test_large_bodies_pass_whole_and_dead_backends_are_passed_over() -> None:
    body = bytes(range(256)) * 40_000
    async with backend("127.30.77.3", 19002, lambda data: data[::-1]), proxy() as (services, slices, _):
        services.observe(service())
        slices.observe(piece(1, [("127.30.77.9", 19002), ("127.30.77.3", 19002)]))
        await eventually(b"x")
        assert await ask(body) == body[::-1]
        assert await ask(b"ab") == b"ba"
        slices.observe(piece(2, []))
        async with asyncio.timeout(5):
            while True:
                try:
                    if not await ask(b"x"):
                        break
                except ConnectionResetError:
                    break
                await asyncio.sleep(0.01)


async def test_a_port_that_cannot_be_bound_is_an_event_not_a_crash() -> None:
    taken = await asyncio.start_server(lambda r, w: None, ADDRESS, PORT)
    async with taken, proxy() as (services, _, events):
        services.observe(service())
        async with asyncio.timeout(5):
            while not events.said:
                await asyncio.sleep(0.01)
        assert events.said == ["FailedToListen"]
