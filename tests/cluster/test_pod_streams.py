"""What flows between a client and a pod: logs, commands with their streams, terminals, ports, files and metrics."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.client import Cluster, Http, eventually
from tests.cluster.objects import FOREVER, Object, is_ready, pod, server, shell, state

TALK = "echo one; echo two >&2; echo three; echo -n rest"
COUNT = "n=0; while :; do n=$((n + 1)); echo line $n; sleep 0.2; done"
ONCE = "test -e /notes/x && { echo second; " + FOREVER + "; }; touch /notes/x; echo first; exit 1"
NOTES = {"volumeMounts": [{"name": "notes", "mountPath": "/notes"}]}
VOLUMES = [{"name": "notes", "emptyDir": {}}]


@pytest.fixture(scope="module", autouse=True)
def pods(cluster: Cluster) -> None:
    cluster.apply(
        pod("talker", shell(TALK)),
        pod("counter", shell(COUNT)),
        pod("restarted", shell(ONCE, **NOTES), restartPolicy="Always", volumes=VOLUMES),
        pod("shells", shell(FOREVER), shell(FOREVER, "other")),
        pod("listener", shell("read line; echo got $line; cat", stdin=True, stdinOnce=True)),
        pod("web", server("hello from the pod")),
    )


@pytest.fixture
async def shells(http: Http) -> str:
    await http.until("pods", "shells", "readiness", is_ready)
    return "shells"


async def ended(http: Http, name: str) -> None:
    await http.until("pods", name, "its end", lambda p: "terminated" in state(p))


async def test_logs_are_what_was_printed(http: Http, cluster: Cluster) -> None:
    await ended(http, "talker")
    assert sorted(cluster.kubectl("logs", "talker").split()) == ["one", "rest", "three", "two"]
    assert cluster.kubectl("logs", "talker", "--tail=1").strip() == "rest"
    assert cluster.kubectl("logs", "talker", "--limit-bytes=2") == "on"


async def test_logs_since_a_moment_with_times(http: Http, cluster: Cluster) -> None:
    await ended(http, "talker")
    lines = cluster.kubectl("logs", "talker", "--timestamps").splitlines()
    stamps = [line.split(" ", 1)[0] for line in lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)", stamp) for stamp in stamps)
    later = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat().replace("+00:00", "Z")
    assert not cluster.kubectl("logs", "talker", f"--since-time={later}")
    assert len(cluster.kubectl("logs", "talker", "--since=1h").split()) == 4


async def test_logs_are_followed(http: Http, cluster: Cluster) -> None:
    await http.until("pods", "counter", "readiness", is_ready)
    follower = cluster.start("logs", "-f", "--tail=1", "counter")
    try:
        assert follower.stdout is not None
        numbers = [int(follower.stdout.readline().split()[1]) for _ in range(3)]
    finally:
        follower.kill()
        follower.communicate()
    assert numbers == list(range(numbers[0], numbers[0] + 3))


async def test_logs_of_the_time_before_the_restart(http: Http, cluster: Cluster) -> None:
    await http.until("pods", "restarted", "its second run", is_ready)
    await eventually("the second run's log", lambda: cluster.kubectl("logs", "restarted") == "second\n")
    assert cluster.kubectl("logs", "restarted", "--previous") == "first\n"


async def test_logs_that_are_not_there(shells: str, cluster: Cluster) -> None:
    assert 'previous terminated container "c" in pod "shells" not found' in cluster.refused(
        "logs", shells, "-c", "c", "-p"
    )
    assert "container no is not valid for pod shells" in cluster.refused("logs", shells, "-c", "no")
    assert 'pods "nobody" not found' in cluster.refused("logs", "nobody")


async def test_a_command_has_its_streams_and_its_exit_code(shells: str, cluster: Cluster) -> None:
    script = "cat; echo to stderr >&2; exit 42"
    done = cluster.run("exec", "-i", shells, "-c", "c", "--", "sh", "-c", script, stdin="to stdout\n")
    assert done.stdout == "to stdout\n" and "to stderr\n" in done.stderr
    assert done.returncode == 42 and "command terminated with exit code 42" in done.stderr


async def test_much_flows_through_a_command(shells: str, cluster: Cluster) -> None:
    text = "0123456789abcdef" * 2**16
    assert cluster.kubectl("exec", "-i", shells, "-c", "c", "--", "cat", stdin=text) == text


async def test_a_command_has_the_containers_own_world(shells: str, cluster: Cluster) -> None:
    cluster.kubectl("exec", shells, "-c", "c", "--", "touch", "/tmp/mine")
    assert cluster.kubectl("exec", shells, "-c", "c", "--", "hostname") == "shells\n"
    assert cluster.run("exec", shells, "-c", "other", "--", "test", "-e", "/tmp/mine").returncode == 1


@asynccontextmanager
async def channels(
    http: Http, name: str, protocol: str, query: list[tuple[str, str]]
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A command over one WebSocket; left only when its connection is closed on both sides."""
    path = http.path("pods", name, "exec")
    async with http.session.ws_connect(path, params=query, protocols=(protocol,)) as connection:
        transport = connection.get_extra_info("socket")
        yield connection
    await eventually("the end of the connection", lambda: transport.fileno() == -1)


async def test_a_terminal(shells: str, http: Http) -> None:
    """What `kubectl exec -it` asks for, without a terminal of our own."""
    script = "test -t 0 && test -t 1 && echo terminal; read size; stty size"
    query = [("command", word) for word in ("sh", "-c", script)]
    query += [("container", "c"), ("stdin", "true"), ("stdout", "true"), ("tty", "true")]
    output = b""
    async with channels(http, shells, "v5.channel.k8s.io", query) as connection:
        await connection.send_bytes(b"\x04" + json.dumps({"Width": 90, "Height": 33}).encode())
        async for message in connection:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            if message.data[0] == 1:
                if b"terminal" not in output and b"terminal" in output + message.data[1:]:
                    await connection.send_bytes(b"\x00\n")
                output += message.data[1:]
            elif message.data[0] == 3:
                assert json.loads(message.data[1:])["status"] == "Success"
                break
    assert b"terminal\r\n" in output and b"33 90" in output


async def test_older_clients_are_served(shells: str, http: Http) -> None:
    """The protocol of the Python client: no way to close stdin, the status at the end."""
    query = [
        ("command", "sh"),
        ("command", "-c"),
        ("command", "echo out; exit 3"),
        ("container", "c"),
        ("stdout", "true"),
    ]
    found = {1: b"", 3: b""}
    async with channels(http, shells, "v4.channel.k8s.io", query) as connection:
        async for message in connection:
            if message.type is aiohttp.WSMsgType.BINARY:
                found[message.data[0]] += message.data[1:]
    status = json.loads(found[3])
    assert found[1] == b"out\n" and status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_commands_that_cannot_be(shells: str, cluster: Cluster) -> None:
    assert "container nobody is not valid for pod shells" in cluster.refused(
        "exec", shells, "-c", "nobody", "--", "true"
    )
    assert 'pods "nobody" not found' in cluster.refused("exec", "nobody", "--", "true")


async def test_stdin_of_a_container(http: Http, cluster: Cluster) -> None:
    await http.until("pods", "listener", "readiness", is_ready)
    done = await asyncio.to_thread(cluster.run, "attach", "-i", "listener", stdin="a word\nthe rest\n")
    assert done.returncode == 0, done.stderr
    await ended(http, "listener")
    assert cluster.kubectl("logs", "listener").splitlines() == ["got a word", "the rest"]


async def test_files_are_copied(shells: str, cluster: Cluster, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    (source / "file").write_text("content\n")
    cluster.kubectl("cp", str(source), f"{shells}:/tmp/copied", "-c", "c")
    assert cluster.kubectl("exec", shells, "-c", "c", "--", "cat", "/tmp/copied/file") == "content\n"
    cluster.kubectl("cp", f"{shells}:/tmp/copied", str(back), "-c", "c")
    assert (back / "file").read_text() == "content\n"


@contextmanager
def forwarded(cluster: Cluster, target: str, port: int) -> Iterator[int]:
    process = cluster.start("port-forward", "--address=127.0.0.1", target, f":{port}")
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)", first)
        assert found, first + process.stdout.read()
        yield int(found[1])
    finally:
        process.kill()
        process.communicate()


def page(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        return bytes(answer.read())


async def test_a_port_is_forwarded(http: Http, cluster: Cluster) -> None:
    await http.until("pods", "web", "readiness", is_ready)
    with forwarded(cluster, "pod/web", 8000) as port:
        pages = await asyncio.gather(*(asyncio.to_thread(page, port) for _ in range(3)))
    assert pages == [b"hello from the pod"] * 3


async def test_a_port_where_nobody_listens(http: Http, cluster: Cluster) -> None:
    await http.until("pods", "web", "readiness", is_ready)
    process = cluster.start("port-forward", "--address=127.0.0.1", "pod/web", ":9")
    try:
        assert process.stdout is not None
        found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=20) as client:
            client.sendall(b"anybody?")
            assert client.recv(1) == b""
    finally:
        process.kill()
        text, _ = process.communicate()
    assert "error forwarding port 9 to pod" in text


def measured(cluster: Cluster, *args: str) -> list[str]:
    done: subprocess.CompletedProcess[str] = cluster.run("top", *args, "--no-headers")
    return done.stdout.split() if done.returncode == 0 else []


async def test_usage_is_told(http: Http, cluster: Cluster) -> None:
    groups: Object = await http.ok("GET", "/apis")
    if "metrics.k8s.io" not in {group["name"] for group in groups["groups"]}:
        pytest.skip("this cluster has no metrics server")
    await http.until("pods", "counter", "readiness", is_ready)
    name, cpu, memory = await eventually("usage of a pod", lambda: measured(cluster, "pod", "counter"), 120)
    assert name == "counter" and re.fullmatch(r"\d+m", cpu) and re.fullmatch(r"\d+Mi", memory)
    node = (await http.get("pods", "counter"))["spec"]["nodeName"]
    found = await eventually("usage of a node", lambda: measured(cluster, "node", node), 120)
    assert found[0] == node and found[2].endswith("%") and found[4].endswith("%")
