"""Logs, ports and commands of pods go to the node that the Node object announces."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mizzen_local.api import spdy

from .conftest import ApiProcess

TOKEN = "node-token"


async def _logs(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        return web.Response(status=401)
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(f"{request.match_info['container']} {json.dumps(dict(request.query))}\n".encode())
    return response


async def _forward(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        assert message.data.startswith(b"GET /hello")
        body = f"port {request.match_info['port']}".encode()
        await socket.send_bytes(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
        )
        await socket.close()
    return socket


async def _exec(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
    await socket.prepare(request)
    await socket.send_bytes(b"\x01" + " ".join(request.query.getall("command")).encode() + b"\n")
    await socket.send_bytes(b"\x03" + json.dumps({"metadata": {}, "status": "Success"}).encode())
    await socket.close()
    return socket


@pytest.fixture
async def pod(api_server: ApiProcess) -> AsyncIterator[str]:
    """A pod on a node that is this test."""
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", _logs)
    app.router.add_get("/portForward/{namespace}/{pod}/{port}", _forward)
    app.router.add_get("/exec/{namespace}/{pod}/{container}", _exec)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(api_server.state / "pki" / "server.crt", api_server.state / "pki" / "server.key")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    (api_server.state / "kubelet-token").write_text(TOKEN)
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": runner.addresses[0][1]}},
    }
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "test"}, "status": status}
    spec = {"nodeName": "test", "containers": [{"name": "main", "image": "x"}]}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker"}, "spec": spec}
    await asyncio.to_thread(api_server.apply, node, made)
    running = json.dumps({"status": {"phase": "Running", "podIP": "127.0.0.1"}})
    await asyncio.to_thread(api_server.kubectl, "patch", "pod", "talker", "--subresource=status", "-p", running)
    yield "talker"
    await asyncio.to_thread(api_server.kubectl, "delete", "pod", "talker", "--now", "--wait=false")
    await asyncio.to_thread(api_server.kubectl, "delete", "pod", "talker", "--force", "--ignore-not-found")
    await asyncio.to_thread(api_server.kubectl, "delete", "node", "test")
    await runner.cleanup()


async def test_logs_come_from_the_node(api_server: ApiProcess, pod: str) -> None:
    text = await asyncio.to_thread(api_server.kubectl, "logs", pod, "--tail=3", "-f")
    name, query = text.split(" ", 1)
    assert (name, json.loads(query)) == ("main", {"follow": "true", "tailLines": "3"})
    wrong = await asyncio.to_thread(api_server.kubectl, "logs", pod, "-c", "other", check=False)
    assert "container other is not valid for pod talker" in wrong


async def test_commands_run_on_the_node(api_server: ApiProcess, pod: str) -> None:
    assert await asyncio.to_thread(api_server.kubectl, "exec", pod, "--", "echo", "hello") == "echo hello\n"


async def test_a_port_is_forwarded_for_several_connections(api_server: ApiProcess, pod: str) -> None:
    kubectl = str(Path(sys.executable).with_name("kubectl"))
    process = await asyncio.create_subprocess_exec(
        kubectl, "--kubeconfig", str(api_server.kubeconfig), "port-forward", pod, ":8080",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout
        line = (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
        found = re.search(r"127\.0\.0\.1:(\d+) -> 8080", line)
        assert found, line
        for _ in range(3):
            assert await asyncio.to_thread(_fetch, f"http://127.0.0.1:{found[1]}/hello") == "port 8080"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_frames_survive_any_cutting() -> None:
    server, client = spdy.Session(), spdy.Session()
    data = spdy.data(1, b"hello") + spdy.pong(7) + spdy.data(3, b"", fin=True) + client.reply(5)
    frames: list[spdy.Frame] = []
    look: Callable[[bytes], Any] = lambda piece: frames.extend(server.feed(piece))  # noqa: E731
    for at in range(len(data)):
        look(data[at : at + 1])
    assert [(frame.kind, frame.stream, frame.fin, frame.data) for frame in frames[:3]] == [
        (0, 1, False, b"hello"),
        (spdy.PING, 7, False, b"\x00\x00\x00\x07"),
        (0, 3, True, b""),
    ]
    assert (frames[3].kind, frames[3].stream) == (spdy.SYN_REPLY, 5)
