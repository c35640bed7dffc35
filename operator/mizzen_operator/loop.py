"""One task for each resource: handlers enqueue keys, the loop reconciles, waits, and tries again after errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mizzen_operator.errors import ClusterError
from mizzen_operator.plan import Key
from mizzen_operator.reconcile import Done, Gone

_log = logging.getLogger(__name__)

FIRST_BACKOFF = 1.0
LAST_BACKOFF = 60.0


@dataclass
class Dependencies:
    """Who waits for whom, so that a change of a Dataset wakes the jobs that name it."""

    _needs: dict[Key, frozenset[Key]] = field(default_factory=dict)

    def record(self, key: Key, needs: frozenset[Key]) -> None:
        self._needs[key] = needs

    def forget(self, key: Key) -> None:
        self._needs.pop(key, None)

    def dependents(self, needed: Key) -> list[Key]:
        return sorted(key for key, needs in self._needs.items() if needed in needs)


class Loop:
    """Dedupes: however often a key is enqueued while its round runs, one more round follows."""

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[Gone | Done]],
        *,
        failed: Callable[[Key], None] = lambda key: None,  # noqa: ARG005
        concurrency: int = 8,
    ) -> None:
        self._reconcile, self._failed = reconcile, failed
        self._slots = asyncio.Semaphore(concurrency)
        self._wakes: dict[Key, asyncio.Event] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def enqueue(self, key: Key) -> None:
        if key in self._wakes:
            self._wakes[key].set()
            return
        self._wakes[key] = asyncio.Event()
        self._tasks[key] = asyncio.create_task(self._serve(key), name=str(key))

    @property
    def keys(self) -> list[Key]:
        """Resources that are being looked after."""
        return sorted(self._tasks)

    async def emptied(self) -> None:
        """Until every resource is gone."""
        await asyncio.gather(*self._tasks.values())

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, key: Key) -> None:
        wake, failures = self._wakes[key], 0
        try:
            while True:
                wake.clear()
                pause: float | None
                try:
                    async with self._slots:
                        result = await self._reconcile(key)
                    failures = 0
                    if isinstance(result, Gone) and not wake.is_set():
                        return
                    pause = result.look_again if isinstance(result, Done) else None
                except ClusterError as error:
                    failures += 1
                    pause = backoff(failures)
                    self._failed(key)
                    _log.warning("%s: %s; trying again in %.0f s", key, error, pause)
                except Exception:
                    failures += 1
                    pause = backoff(failures)
                    self._failed(key)
                    _log.exception("%s: an error of the operator; trying again in %.0f s", key, pause)
                await _until(wake, pause, deaf=backoff(1) if failures else 0.0)
        finally:
            self._wakes.pop(key, None)
            self._tasks.pop(key, None)


def backoff(failures: int) -> float:
    """1, 2, 4 … 60 seconds."""
    return float(min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** min(failures - 1, 10)))


async def _until(wake: asyncio.Event, seconds: float | None, deaf: float) -> None:
    """Until woken or the time is over. After a failure wakes count only from `deaf` seconds on: no hot loop."""
    if deaf:
        await asyncio.sleep(deaf)
    try:
        async with asyncio.timeout(None if seconds is None else max(0.0, seconds - deaf)):
            await wake.wait()
    except TimeoutError:
        return
