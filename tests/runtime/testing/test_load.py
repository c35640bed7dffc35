"""The load profile: of a server whose latency is known, of one that refuses, and of `mizzen serve`."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mizzen.testing import Level, LoadProfile, LoadResult
from mizzen.testing.load import _TITLES, _Window
from tests.runtime.serve.test_server import free_port, until
from tests.runtime.testing.broken import rows

ROWS = [{"text": "a"}, {"text": "b"}, {"text": "c"}]


class Server:
    """Answers after `delay`, though the first request at once; every `fails`-th request with 503."""

    def __init__(self, delay: float = 0.0, fails: int = 0, status: int = 200) -> None:
        self.delay, self.fails, self.status = delay, fails, status
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.most = self._now = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(json.loads(await request.read()))
        self.headers.append(dict(request.headers))
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(self.delay if len(self.bodies) > 1 else 0)
        self._now -= 1
        if self.fails and len(self.bodies) % self.fails == 0:
            return web.json_response({}, status=503)
        return web.json_response({"error": "no such column"}, status=self.status)

    @asynccontextmanager
    async def at(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/predict", self.answer)
        app.router.add_post("/other/path", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_clients_and_rates() -> None:
    server = Server(delay=0.02)
    async with server.at() as url:
        profile = LoadProfile(url, ROWS, concurrencies=(1, 4), rates=(40,), seconds=0.3, warm_up_seconds=0.05)
        result = await profile.measure()
    one, four, rate = result.levels
    assert [level.load for level in result.levels] == ["1 client", "4 clients", "40/s"]
    assert server.most == 4, "as many at once as there are clients"
    for level in result.levels:
        assert 20 <= level.p50_ms <= level.p90_ms <= level.p99_ms <= level.max_ms and level.failed == 0
    assert one.requests_per_second <= 50 and one.requests <= 15 and four.requests <= 60
    assert rate.requests == 12, "40 a second for 0.3 s, however long answers take"
    assert {body["instances"][0]["text"] for body in server.bodies} == {"a", "b", "c"}
    assert all(len(body["instances"]) == 1 for body in server.bodies)
    lines = result.table().splitlines()
    assert re.split(r"  +", lines[0].strip()) == list(_TITLES)
    assert len({len(line) for line in lines}) == 1 and str(result) == result.table()


async def test_a_rate_counts_from_when_requests_were_due() -> None:
    """A server that answers one at a time, in 20 ms, cannot keep up with 100 a second: whoever comes waits longer."""
    server, turn = Server(), asyncio.Lock()

    async def one_at_a_time(request: web.Request) -> web.Response:
        async with turn:
            await asyncio.sleep(0.02)
            return await Server.answer(server, request)

    server.answer = one_at_a_time  # type: ignore[method-assign]
    async with server.at() as url:
        result = await LoadProfile(url, ROWS, concurrencies=(), rates=(100,), seconds=0.4, warm_up_seconds=0).measure()
    (opened,) = result.levels
    assert opened.requests == 40
    assert opened.max_ms > 380, "the last of 40 waits for those before it: 40 × 20 ms - 400 ms"
    assert opened.requests_per_second <= 50


async def test_rows_of_a_request_headers_and_path() -> None:
    server = Server()
    async with server.at() as url:
        images = [{"image": b"\x00\xff"}, {"image": b"x"}, {"image": b"y"}]
        headers = {"Host": "tweets.models"}
        profile = LoadProfile(
            f"{url}/other/path",
            images,
            concurrencies=(1,),
            seconds=0.05,
            warm_up_seconds=0,
            rows_per_request=2,
            headers=headers,
        )
        await profile.measure()
    assert server.bodies[0] == {"instances": [{"image": "AP8="}, {"image": "eA=="}]}
    assert server.bodies[1] == {"instances": [{"image": "eQ=="}, {"image": "AP8="}]}
    assert server.headers[0]["Host"] == "tweets.models"


async def test_failures_are_counted_by_kind_and_checked() -> None:
    async with Server(fails=2).at() as url:
        result = await LoadProfile(url, ROWS, concurrencies=(1,), seconds=0.1, warm_up_seconds=0).measure()
    (level,) = result.levels
    assert level.failures.keys() == {"503"} and abs(level.failed * 2 - level.requests) <= 1
    with pytest.raises(
        AssertionError, match=rf"1 client: {level.failed} of {level.requests} requests failed \(\d+ times 503\)"
    ):
        result.check()
    result.check(failed=1.0)


async def test_a_server_that_is_slow_gives_timeouts() -> None:
    async with Server(delay=60).at() as url:
        profile = LoadProfile(url, ROWS, concurrencies=(2,), seconds=0.1, warm_up_seconds=0, timeout_seconds=0.5)
        (level,) = (await profile.measure()).levels
    assert level.failures == {"TimeoutError": 2} and math.isnan(level.p50_ms) and level.requests_per_second == 0
    with pytest.raises(AssertionError, match="2 clients: p99_ms is nan, over 50"):
        LoadResult((level,)).check(p99_ms=50, failed=1.0)


async def test_a_first_request_that_is_refused_ends_it() -> None:
    async with Server(status=400).at() as url:
        with pytest.raises(AssertionError, match=r"/predict answers 400: \{\"error\": \"no such column\"\}"):
            await LoadProfile(url, ROWS).measure()


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(AssertionError, match=r"http://127.0.0.1:\d+/predict does not answer: Cannot connect"):
            LoadProfile(f"http://127.0.0.1:{taken.getsockname()[1]}/", ROWS).run()


@pytest.mark.parametrize("wrong", [{"rows": []}, {"concurrencies": ()}, {"concurrencies": (0,)}, {"seconds": 0}])
def test_what_measures_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least one row|must be above 0"):
        LoadProfile(**{"url": "http://127.0.0.1:1", "rows": ROWS, **wrong})


def test_percentiles_are_of_requests_within_the_window() -> None:
    window = _Window(warm_up=1.0, seconds=10.0, clock=lambda: 100.0)
    window.add(100.5, 109.0, "")  # began while warming up
    for number in range(100):
        window.add(101 + number / 20, 101 + number / 20 + (number + 1) / 1000, "")
    window.add(110.9, 112.0, "503")
    window.add(111.0, 111.1, "")  # began after the end
    level = window.level("x")
    assert (level.requests, level.failed, level.seconds) == (101, 1, 11.0)
    assert [level.p50_ms, level.p90_ms, level.p99_ms, level.max_ms] == pytest.approx([50, 90, 99, 100])
    assert level.requests_per_second == pytest.approx(100 / 11)


def test_limits_are_checked() -> None:
    levels = tuple(Level(f"{n} clients", 100, {}, 1.0, 5.0 * n, 6.0 * n, 9.0 * n, 10.0 * n) for n in (1, 2))
    result = LoadResult(levels)
    result.check(p50_ms=10, p99_ms=18, requests_per_second=100)
    with pytest.raises(
        AssertionError, match=r"^2 clients: p50_ms is 10\.0, over 9; 2 clients: p99_ms is 18\.0, over 17"
    ):
        result.check(p50_ms=9, p99_ms=17)
    with pytest.raises(AssertionError, match="the best level answers 100 requests/s, under 101"):
        result.check(requests_per_second=101)


@pytest.fixture
def served(shelf: Path) -> Iterator[str]:
    """`mizzen serve` of v1.0, ready."""
    mizzen, port, internal = str(Path(sys.executable).with_name("mizzen")), free_port(), free_port()
    command = [mizzen, "serve", "--model-uri", str(shelf / "v1.0"), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--internal-port", str(internal)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        until(f"http://127.0.0.1:{port}/v2/health/ready", 200, process, seconds=90)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.slow
def test_a_model_server(served: str) -> None:
    asked = [{"text": row["text"]} for row in rows()]
    result = LoadProfile(served, asked, concurrencies=(1, 8), rates=(50,), seconds=1, warm_up_seconds=0.3).run()
    result.check()
    one, eight, rate = result.levels
    assert min(one.requests, eight.requests) > 0 and rate.requests == 50
    with pytest.raises(AssertionError, match=r"answers 400: .*instances\[0\].text: must be a string"):
        LoadProfile(served, [{"words": "x"}]).run()
