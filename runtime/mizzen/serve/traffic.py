"""What requests look like: a mergeable profile of a model's raw inputs, made beside the path of requests.

A request pays for putting its rows into a bounded queue. A thread makes frames and profiles of them; what comes faster
than it can work is counted and left out. A Dataset's `drift.reference: modelservice` reads it from all replicas.
"""

from __future__ import annotations

import copy
import json
import logging
import queue
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from mizzen_api.contract import PATH_PROFILE

if TYPE_CHECKING:
    import polars as pl

    from mizzen.data.profiles import Profile

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]

QUEUED_REQUESTS = 256
BATCH_ROWS = 4096  # a profile of a frame costs the same for one row and for thousands
BATCH_CHARACTERS = 16 * 2**20  # of long texts fewer rows wait together
GATHER_SECONDS = 1.0
WINDOW_SECONDS = 12 * 3600.0


class TrafficProfile:
    """The profile of the present window of time and of the one before: half a day to a day of requests.

    `frame_of` makes typed frames of rows that the model has answered.
    """

    def __init__(
        self,
        frame_of: Callable[[Rows], pl.DataFrame],
        *,
        gather_seconds: float = GATHER_SECONDS,
        window_seconds: float = WINDOW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._frame_of, self._gather_seconds, self._window_seconds, self._clock = (
            frame_of, gather_seconds, window_seconds, clock,
        )  # fmt: skip
        self._queue: queue.Queue[Rows | None] = queue.Queue(QUEUED_REQUESTS)
        self._lock = threading.Lock()
        self._windows: list[Profile] = []  # the one before, and the present one
        self._began = clock()
        self.missed_rows = 0
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Takes in what waits."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def offer(self, rows: Rows) -> None:
        """Never waits. The rows must not change afterwards."""
        try:
            self._queue.put_nowait(rows)
        except queue.Full:
            self.missed_rows += len(rows)

    def document(self) -> bytes:
        """JSON: `rows`, `missedRows`, and `profile` as Profile.to_json has it, null before the first row."""
        with self._lock:
            windows = copy.deepcopy(self._windows)
        found = windows[0] if windows else None
        for window in windows[1:]:
            windows[0].merge(window)
        rows = found.rows if found is not None else 0
        profile = found.to_json() if found is not None else "null"
        return f'{{"rows": {rows}, "missedRows": {self.missed_rows}, "profile": {profile}}}'.encode()

    def _run(self) -> None:
        going_on = True
        while going_on:
            rows, going_on = self._gather()
            if rows:
                try:
                    self._take_in(rows)
                except Exception:  # the profile is a by-product: the server goes on without these rows
                    self.missed_rows += len(rows)
                    log.exception("%d rows could not be profiled", len(rows))

    def _gather(self) -> tuple[Rows, bool]:
        """Rows of several requests, and False at the end."""
        first = self._queue.get()
        if first is None:
            return [], False
        rows, size, deadline = list(first), _characters(first), self._clock() + self._gather_seconds
        while len(rows) < BATCH_ROWS and size < BATCH_CHARACTERS:
            try:
                more = self._queue.get(timeout=max(0.0, deadline - self._clock()))
            except queue.Empty:
                break
            if more is None:
                return rows, False
            rows += more
            size += _characters(more)
        return rows, True

    def _take_in(self, rows: Rows) -> None:
        from mizzen.data.profiles import Profile

        profile = Profile.of(self._frame_of(rows))
        with self._lock:
            if self._clock() - self._began >= self._window_seconds:
                self._windows, self._began = self._windows[-1:], self._clock()
                self._windows.append(profile)
            elif self._windows:
                self._windows[-1].merge(profile)
            else:
                self._windows.append(profile)


def _characters(rows: Rows) -> int:
    return sum(len(value) for row in rows for value in row.values() if isinstance(value, str))


class InternalServer:
    """`GET /profile` on a port that no Service and no route leads to. A context manager."""

    def __init__(self, document: Callable[[], bytes | None], host: str, port: int) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(document))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="internal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(document: Callable[[], bytes | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a client that says nothing must not hold a thread

        def do_GET(self) -> None:
            if self.path != PATH_PROFILE:
                self._answer(404, {"error": f"there is only {PATH_PROFILE}"})
                return
            found = document()
            if found is None:
                self._answer(503, {"error": "the model is loading, or reads images, which are not profiled"})
                return
            self._answer(200, found)

        def _answer(self, status: int, body: bytes | dict[str, str]) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Handler
