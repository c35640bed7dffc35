"""A load profile of a model server: latency and throughput as clients grow in number, or at given rates of arrival.

With a number of clients each asks again as soon as it has its answer (a closed loop): that finds the most a server can
do. At a rate requests come whether or not earlier ones are answered, and latency counts from when a request was due (an
open loop): that is what users of a busy server wait, which a closed loop hides (Tene, "How NOT to measure latency").
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp import ClientSession

_TITLES = ("load", "requests", "failed", "requests/s", "p50 ms", "p90 ms", "p99 ms", "max ms")


@dataclass(frozen=True)
class Level:
    """What was measured at one load. Latencies are of the requests that were answered with 200, in milliseconds."""

    load: str  # "4 clients" or "50/s"
    requests: int
    failures: Mapping[str, int]  # by status, or by the name of an error
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def requests_per_second(self) -> float:
        """Answered with 200."""
        return (self.requests - self.failed) / self.seconds

    def row(self) -> tuple[str, ...]:
        milliseconds = (self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms)
        rate = f"{self.requests_per_second:.0f}"
        return (self.load, str(self.requests), str(self.failed), rate, *(f"{value:.1f}" for value in milliseconds))


@dataclass(frozen=True)
class LoadResult:
    """One level for each load, in the order in which they were asked for."""

    levels: tuple[Level, ...]

    def table(self) -> str:
        rows = [_TITLES, *(level.row() for level in self.levels)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)

    __str__ = table

    def check(
        self,
        *,
        p50_ms: float = math.inf,
        p99_ms: float = math.inf,
        requests_per_second: float = 0.0,
        failed: float = 0.0,
    ) -> None:
        """AssertionError where a level is slower, or more than the fraction `failed` of its requests did.

        `requests_per_second` must be reached by the best level.
        """
        __tracebackhide__ = True
        wrong = []
        for level in self.levels:
            if level.failed > failed * level.requests:
                kinds = ", ".join(f"{count} times {kind}" for kind, count in level.failures.items())
                wrong.append(f"{level.load}: {level.failed} of {level.requests} requests failed ({kinds})")
            for name, limit in (("p50_ms", p50_ms), ("p99_ms", p99_ms)):
                if not getattr(level, name) <= limit:
                    wrong.append(f"{level.load}: {name} is {getattr(level, name):.1f}, over {limit:g}")
        best = max(level.requests_per_second for level in self.levels)
        if best < requests_per_second:
            wrong.append(f"the best level answers {best:.0f} requests/s, under {requests_per_second:g}")
        if wrong:
            raise AssertionError("; ".join(wrong) + f"\n{self.table()}")


@dataclass(frozen=True)
class LoadProfile:
    """`url` is that of a server of Mizzen's, to whose /predict the rows are sent in turn, one or more in a request.

    A level is measured for each number of clients in `concurrencies` and each rate in `rates` (requests a second), for
    `seconds` after `warm_up_seconds`. Clients share this process: measure fast servers from another machine.
    """

    url: str
    rows: Sequence[Mapping[str, Any]]
    concurrencies: Sequence[int] = (1, 2, 4, 8, 16)
    rates: Sequence[float] = ()
    seconds: float = 3.0
    warm_up_seconds: float = 0.5
    rows_per_request: int = 1
    timeout_seconds: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows or not (self.concurrencies or self.rates):
            raise ValueError("a load profile needs at least one row, and one number of clients or one rate")
        if min([*self.concurrencies, *self.rates, self.seconds, self.rows_per_request]) <= 0:
            raise ValueError("numbers of clients, rates, seconds and rows_per_request must be above 0")

    def run(self) -> LoadResult:
        """Measure. AssertionError where the server does not answer the first request with 200. Not on an event loop."""
        __tracebackhide__ = True
        return asyncio.run(self.measure())

    async def measure(self) -> LoadResult:
        """As `run`, on the event loop that there is."""
        import aiohttp

        __tracebackhide__ = True
        timeout = aiohttp.ClientTimeout(total=self.timeout_seconds)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers()) as session:
            asking = _Asking(session, self._target(), self._bodies())
            await asking.first()
            levels = [await self._clients(asking, number) for number in self.concurrencies]
            levels += [await self._arrivals(asking, rate) for rate in self.rates]
        return LoadResult(tuple(levels))

    async def _clients(self, asking: _Asking, number: int) -> Level:
        measured = _Window(self.warm_up_seconds, self.seconds)

        async def client() -> None:
            while (now := time.perf_counter()) < measured.end:
                measured.add(now, *await asking.once())

        await asyncio.gather(*(client() for _ in range(number)))
        return measured.level(f"{number} client{'s' if number > 1 else ''}")

    async def _arrivals(self, asking: _Asking, rate: float) -> Level:
        measured = _Window(self.warm_up_seconds, self.seconds)
        begun = time.perf_counter()

        async def arrival(due: float) -> None:
            measured.add(due, *await asking.once())

        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due = begun + number / rate
                if due >= measured.end:
                    break
                await asyncio.sleep(due - time.perf_counter())
                group.create_task(arrival(due))
        return measured.level(f"{rate:g}/s")

    def _target(self) -> str:
        return self.url if urlsplit(self.url).path.strip("/") else f"{self.url.rstrip('/')}/predict"

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", **self.headers}

    def _bodies(self) -> list[bytes]:
        """Of all rows, in batches; the last takes rows from the beginning to be as large as the others."""
        rows = itertools.cycle([{key: _wire(value) for key, value in row.items()} for row in self.rows])
        count = math.ceil(len(self.rows) / self.rows_per_request)
        batches = [list(itertools.islice(rows, self.rows_per_request)) for _ in range(count)]
        return [json.dumps({"instances": batch}).encode() for batch in batches]


class _Asking:
    """Requests with one body after the other."""

    def __init__(self, session: ClientSession, url: str, bodies: list[bytes]) -> None:
        self._session, self._url = session, url
        self._bodies = itertools.cycle(bodies)

    async def first(self) -> None:
        """AssertionError with what the server says: a profile of refusals would look fast."""
        import aiohttp

        __tracebackhide__ = True
        try:
            async with self._session.post(self._url, data=next(self._bodies)) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AssertionError(f"{self._url} does not answer: {error or type(error).__name__}") from error
        if answer.status != 200:
            raise AssertionError(f"{self._url} answers {answer.status}: {text[:300]}")

    async def once(self) -> tuple[float, str]:
        """When the answer was there, and why it is none: nothing where it is one."""
        import aiohttp

        try:
            async with self._session.post(self._url, data=next(self._bodies)) as answer:
                await answer.read()
            return time.perf_counter(), "" if answer.status == 200 else str(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await asyncio.sleep(0.01)  # a server that is gone refuses at once: leave it, and this process, some time
            return time.perf_counter(), type(error).__name__


class _Window:
    """Requests that began, or were due, within it."""

    def __init__(self, warm_up: float, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.begin = clock() + warm_up
        self.end = self.begin + seconds
        self._last = self.end
        self._latencies: list[float] = []
        self._failures: Counter[str] = Counter()

    def add(self, since: float, until: float, failure: str) -> None:
        if not self.begin <= since < self.end:
            return
        self._last = max(self._last, until)
        if failure:
            self._failures[failure] += 1
        else:
            self._latencies.append((until - since) * 1000)

    def level(self, load: str) -> Level:
        ordered = sorted(self._latencies)

        def at(fraction: float) -> float:
            return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)] if ordered else math.nan

        requests = len(ordered) + self._failures.total()
        seconds = self._last - self.begin
        return Level(load, requests, dict(self._failures), seconds, at(0.5), at(0.9), at(0.99), at(1.0))


def _wire(value: Any) -> Any:
    """JSON has no bytes: images go as base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
