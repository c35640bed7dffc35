"""Requests that wait for one another: rows of several requests run through the model together, in one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mizzen.serve.errors import Overloaded

Predict = Callable[[list[dict[str, Any]]], np.ndarray]


@dataclass
class _Waiting:
    rows: list[dict[str, Any]]
    answer: asyncio.Future[np.ndarray]
    arrived: float


class Batcher:
    """Runs `predict` on at most `max_batch_size` rows; the first row of a batch waits `max_latency_ms` at most.

    While the model runs, later requests gather, so batches grow with the load by themselves. `max_waiting` rows may
    wait; more raise Overloaded, for a queue that only grows answers nobody in time.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        max_batch_size: int = 32,
        max_latency_ms: float = 5,
        max_waiting: int | None = None,
        on_batch: Callable[[int], None] = lambda _rows: None,
    ) -> None:
        self._predict = predict
        self._max_rows = max_batch_size
        self._max_latency = max_latency_ms / 1000
        self._max_waiting = max_waiting if max_waiting is not None else max(1024, 16 * max_batch_size)
        self._on_batch = on_batch
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._waiting_rows = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._runner: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._runner = asyncio.create_task(self._run(), name="batcher")

    async def stop(self) -> None:
        """Ends the runner; call it when no request is left."""
        if self._runner:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        self._thread.shutdown(wait=False)

    async def submit(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Probabilities of `rows` (N, C). Raises Overloaded, and whatever the model raised."""
        if self._waiting_rows + len(rows) > self._max_waiting:
            raise Overloaded(f"{self._waiting_rows} rows wait already; try again in a second")
        loop = asyncio.get_running_loop()
        chunks = [
            _Waiting(rows[start : start + self._max_rows], loop.create_future(), loop.time())
            for start in range(0, len(rows), self._max_rows)
        ]
        self._waiting_rows += len(rows)
        try:
            for chunk in chunks:
                self._queue.put_nowait(chunk)
            return np.concatenate(await asyncio.gather(*(chunk.answer for chunk in chunks)))
        finally:
            self._waiting_rows -= len(rows)

    async def _run(self) -> None:
        left: _Waiting | None = None
        while True:
            batch, left = await self._gather(left or await self._queue.get())
            batch = [waiting for waiting in batch if not waiting.answer.done()]  # the client went away
            if batch:
                await self._answer(batch)

    async def _gather(self, first: _Waiting) -> tuple[list[_Waiting], _Waiting | None]:
        """A batch, and the request that did not fit in it any more."""
        batch, size = [first], len(first.rows)
        try:
            async with asyncio.timeout_at(first.arrived + self._max_latency):
                while size < self._max_rows:
                    # What is there already joins even when the first row has waited for long.
                    following = self._queue.get_nowait() if not self._queue.empty() else await self._queue.get()
                    if size + len(following.rows) > self._max_rows:
                        return batch, following
                    batch.append(following)
                    size += len(following.rows)
        except TimeoutError:
            pass
        return batch, None

    async def _answer(self, batch: list[_Waiting]) -> None:
        rows = [row for waiting in batch for row in waiting.rows]
        self._on_batch(len(rows))
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, rows)
        except Exception as error:  # the model's own errors belong to those who asked
            if len(batch) == 1:
                _settle(batch[0], error)
                return
            for waiting in batch:  # one bad row must not fail its neighbours
                await self._answer([waiting])
            return
        at = 0
        for waiting in batch:
            _settle(waiting, found[at : at + len(waiting.rows)])
            at += len(waiting.rows)


def _settle(waiting: _Waiting, outcome: np.ndarray | Exception) -> None:
    if waiting.answer.done():
        return
    if isinstance(outcome, Exception):
        waiting.answer.set_exception(outcome)
    else:
        waiting.answer.set_result(outcome)
