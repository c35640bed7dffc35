"""How fast the embedded cluster is: `python benchmarks/local.py`. Needs Debian's `wrk`, which drives the API server.

A client in Python would measure itself; wrk is native, speaks TLS, and runs beside the server on the same two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import harness
from harness import Options, Row, median_row, quantile

BIN = Path(sys.executable).parent
MAPS = "/api/v1/namespaces/default/configmaps"
CREATE = """
wrk.method = "POST"
local thread = 0
function setup(t) t:set("id", thread); thread = thread + 1 end
function init(args) count = 0 end
function request()
  count = count + 1
  local body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"made-' .. id .. '-' .. count
    .. '","labels":{"app":"bench"}},"data":{"key":"a value of some length, as they are"}}'
  return wrk.format(nil, nil, nil, body)
end
"""


class Api:
    """`python -m mizzen_local.api` in a folder of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        started = time.perf_counter()
        command = [sys.executable, "-m", "mizzen_local.api", "--state", str(state), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.url = self.process.stdout.readline().split()[1]
        self.seconds = time.perf_counter() - started
        self.token = (state / "admin.token").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}

    def session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self.state / "pki" / "ca.crt"))
        return aiohttp.ClientSession(headers=self.headers, connector=aiohttp.TCPConnector(ssl=context, limit=0))

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def requests_per_second(self, path: str, seconds: int, script: str = "") -> float:
        """What wrk counts with 8 connections; any answer that is no success is an error here."""
        file = self.state / "wrk.lua"
        file.write_text(script)
        command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", str(file), self.url + path]
        for name, value in self.headers.items():
            command += ["-H", f"{name}: {value}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in said or "Socket errors" in said:
            raise SystemExit(said)
        return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]


@contextmanager
def api() -> Iterator[Api]:
    with tempfile.TemporaryDirectory() as folder:
        server = Api(Path(folder) / "state")
        try:
            yield server
        finally:
            server.process.terminate()
            server.process.wait()


def measure(options: Options) -> list[Row]:
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: apt-get install wrk")
    rows = [_start(3 if options.short else 7)]
    with api() as server:
        seconds = 3 if options.short else 10
        rows.append(Row("objects created", "/s", server.requests_per_second(MAPS, seconds, CREATE), 1000, "min"))
    with api() as server:
        asyncio.run(_fill(server, 1))
        rate = server.requests_per_second(f"{MAPS}/watched-0", seconds)
        rows.append(Row("objects read", "/s", rate, 3000, "min"))
    with api() as server:
        delays = asyncio.run(_fan_out(server, objects=2000 if options.short else 10_000, watchers=50))
        rows.append(Row("event to 50 watchers, p99", "ms", quantile(delays, 0.99) * 1e3, 100))
        rows.append(Row("memory after that", "MB", server.memory(), 300))
    return [*rows, *_cluster(options)]


def _start(times: int) -> Row:
    samples = []
    for _ in range(times):
        with api() as server:
            samples.append(server.seconds)
    return median_row("API server ready", "s", samples, 1.0)


async def _fill(server: Api, count: int) -> None:
    async with server.session() as session:
        for number in range(count):
            body = json.dumps({"metadata": {"name": f"watched-{number}"}, "data": {"key": "value"}})
            async with session.post(server.url + MAPS, data=body) as answer:
                assert answer.status == 201, await answer.text()


async def _fan_out(server: Api, objects: int, watchers: int) -> list[float]:
    """Seconds from the start of each of 100 writes, 20 a second, to each watcher's having the event."""
    await _fill(server, objects)
    began: dict[str, float] = {}
    delays: list[float] = []
    complete = asyncio.Event()
    async with server.session() as session:
        async with session.get(server.url + MAPS + "?limit=1") as answer:
            version = (await answer.json())["metadata"]["resourceVersion"]

        async def watch() -> None:
            async with session.get(f"{server.url}{MAPS}?watch=1&resourceVersion={version}") as stream:
                async for line in stream.content:
                    data = json.loads(line)["object"].get("data") or {}
                    if data.get("tick") in began:
                        delays.append(time.perf_counter() - began[data["tick"]])
                        if len(delays) == 100 * watchers:
                            complete.set()

        tasks = [asyncio.create_task(watch()) for _ in range(watchers)]
        await asyncio.sleep(1)
        for tick in range(100):
            began[str(tick)] = time.perf_counter()
            patch = json.dumps({"data": {"tick": str(tick)}})
            url = f"{server.url}{MAPS}/watched-{tick % objects}"
            headers = {"Content-Type": "application/merge-patch+json"}
            async with session.patch(url, data=patch, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
            await asyncio.sleep(0.05)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(complete.wait(), 20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if len(delays) < 100 * watchers:
        raise SystemExit(f"{100 * watchers - len(delays)} events did not arrive")
    return delays


def _cluster(options: Options) -> list[Row]:
    """`mizzen up` with the chart, and how soon a pod's process runs."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        up = [str(BIN / "mizzen"), "up", "--state-dir", str(state), "--port", "0"]
        if options.short:
            up.append("--no-chart")
        try:
            started = time.perf_counter()
            subprocess.run(up, check=True, capture_output=True)
            took = time.perf_counter() - started
            rows.append(Row("mizzen up" + (" without the chart" if options.short else ""), "s", took, 20))
            delays = _pods(state, 10 if options.short else 30)
            rows.append(Row("pod created to process started, p50", "ms", quantile(delays, 0.5) * 1e3, 100))
        finally:
            down = [str(BIN / "mizzen"), "down", "--purge", "--state-dir", str(state)]
            subprocess.run(down, check=False, capture_output=True)
    return rows


def _pods(state: Path, count: int) -> list[float]:
    """One pod after another prints the time; the creation is the time before the request."""
    return asyncio.run(_pods_of(state, count))


async def _pods_of(state: Path, count: int) -> list[float]:
    import yaml

    config = yaml.safe_load((state / "kubeconfig").read_text())
    url = config["clusters"][0]["cluster"]["server"] + "/api/v1/namespaces/default/pods"
    context = ssl.create_default_context(cafile=str(state / "pki" / "ca.crt"))
    headers = {
        "Authorization": f"Bearer {(state / 'admin.token').read_text().strip()}",
        "Content-Type": "application/json",
    }
    delays = []
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=context)) as session:
        for number in range(count):
            container = {"name": "c", "image": "busybox", "command": ["date", "+%s.%N"]}
            body = {
                "metadata": {"name": f"timed-{number}"},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            }
            began = time.time()
            async with session.post(url, data=json.dumps(body)) as answer:
                assert answer.status == 201, await answer.text()
            deadline = time.monotonic() + 20
            text = ""
            while not text and time.monotonic() < deadline:
                async with session.get(f"{url}/timed-{number}/log") as answer:
                    text = (await answer.text()).strip() if answer.status == 200 else ""
                await asyncio.sleep(0.02)
            delays.append(float(text) - began)
    return delays


if __name__ == "__main__":
    harness.main("the embedded cluster", measure, ["mizzen", "uvloop", "aiohttp"])
