"""The passes of a version on a Ray cluster: chunks go to workers, states come back and merge in the chunks' order.

What comes of it is, to the bit, what one machine makes: a chunk's state does not depend on where it was gathered, and
states meet in the same order. Chunks lie in files where all nodes mount the artifact store, else Ray carries them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mizzen.data.making import Making, train_rows, transformed
from mizzen.errors import ClusterError

if TYPE_CHECKING:
    import polars as pl

    from mizzen.data.fitting import Pass
    from mizzen.data.split import Divider
    from mizzen.data.spool import Spool

IN_FLIGHT = 2  # chunks for each CPU of the cluster: enough to keep them busy, and no more in memory

LOOK_EVERY = 16  # chunks after which the CPUs are counted anew


class RayRunner:
    """A making.Runner on the Ray cluster that this process is connected to; `ray.init` comes before."""

    def __init__(self) -> None:
        import ray

        if not ray.is_initialized():
            raise ClusterError("the engine ray needs a connection: call ray.init(address=...) before")

    def fit(self, one: Pass, spool: Spool, divider: Divider) -> Pass:
        import ray

        start, bounds = ray.put(one), ray.put(divider)
        gather = ray.remote(_gather)
        for state in self._in_order(spool, lambda number: gather.remote(start, bounds, spool.sendable(number))):
            one.merge(state)
        return one

    def transform(self, making: Making, write: Callable[[int, int, pl.DataFrame], None]) -> None:
        import ray

        # The spool stays here: it is a folder that goes when this process leaves it.
        shared = ray.put(Making(**{**vars(making), "spool": None}))
        work = ray.remote(_transform)
        spool = making.spool
        results = self._in_order(spool, lambda number: work.remote(shared, spool.sendable(number), number))
        for number, parts in enumerate(results):
            for part, frame in parts:
                write(number, part, frame)

    def _in_order(self, spool: Spool, begin: Callable[[int], Any]) -> Iterator[Any]:
        """The results of all chunks in their order, with a bounded number under way."""
        import ray

        running: list[Any] = []
        window = 2
        for number in range(spool.count):
            running.append(begin(number))
            if number % LOOK_EVERY == 0:  # workers come and go
                window = max(2, IN_FLIGHT * int(ray.cluster_resources().get("CPU", 1)))
            if len(running) >= window:
                yield ray.get(running.pop(0))
        while running:
            yield ray.get(running.pop(0))


def _read(chunk: Any) -> pl.DataFrame:
    import polars as pl

    return pl.read_ipc(chunk) if isinstance(chunk, str) else chunk


def _gather(start: Pass, divider: Divider, chunk: Any) -> Pass:
    state = copy.deepcopy(start)  # what Ray holds must not change
    state.update(train_rows(_read(chunk), divider))
    return state


def _transform(making: Making, chunk: Any, number: int) -> list[tuple[int, pl.DataFrame]]:
    return list(transformed(making, _read(chunk), number))
