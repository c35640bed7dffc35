"""Which engine makes a version, and for a pod the Ray cluster that it needs: started when work is left to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from mizzen.data.making import LocalRunner, Making, RowSource, Runner
from mizzen.workload import config as configuration
from mizzen.workload.quantities import amount
from mizzen_api.dataset import DatasetSpec, Engine
from mizzen_api.workload import RayCluster

if TYPE_CHECKING:
    import polars as pl

    from mizzen.data.fitting import Pass
    from mizzen.data.split import Divider
    from mizzen.data.spool import Spool
    from mizzen.workload.progress import ProgressBoard

log = logging.getLogger(__name__)


def choose(spec: DatasetSpec, source: RowSource) -> Engine:
    """The engine that the spec names; with auto, ray for files that are large together.

    What a query gives is not known before it is read: it goes to polars.
    """
    if spec.engine != "auto":
        return spec.engine
    size, least = source.size(), amount(spec.scaling.min_source_size)
    chosen: Engine = "ray" if size is not None and size >= least else "polars"
    told = "of unknown size" if size is None else f"{size} bytes"
    log.info(
        "engine %s: the sources are %s, and scaling.minSourceSize is %s", chosen, told, spec.scaling.min_source_size
    )
    return chosen


class PodEngine:
    """Chooses for a pod. A context manager: the Ray head goes with it.

    `on_choice` hears the engine before anything is read, so that workers start while the head reads.
    """

    def __init__(
        self, spec: DatasetSpec, cluster: RayCluster | None, board: ProgressBoard, on_choice: Callable[[Engine], None]
    ) -> None:
        self._spec, self._cluster, self._board, self._on_choice = spec, cluster, board, on_choice
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, source: RowSource) -> Runner:
        chosen = choose(self._spec, source)
        if chosen == "ray":
            assert self._cluster is not None, "the operator names a cluster unless the engine is polars"
            from mizzen.workload.ray_head import ray_head

            self._stack.enter_context(ray_head(configuration.pod_ip(), self._board))
        self._on_choice(chosen)
        return LocalRunner() if chosen == "polars" else _WhenWorkersAreThere(self._spec)


class _WhenWorkersAreThere:
    """A Runner that waits for the first workers before its first pass. Those that come later get work, too."""

    def __init__(self, spec: DatasetSpec) -> None:
        self._scaling = spec.scaling
        self._runner: Runner | None = None

    def fit(self, one: Pass, spool: Spool, divider: Divider) -> Pass:
        return self._ready().fit(one, spool, divider)

    def transform(self, making: Making, write: Callable[[int, int, pl.DataFrame], None]) -> None:
        self._ready().transform(making, write)

    def _ready(self) -> Runner:
        if self._runner is None:
            from mizzen.data.ray_engine import RayRunner
            from mizzen.workload.ray_head import wait_for_workers

            wait_for_workers(self._scaling.max_workers, self._scaling.min_workers)
            self._runner = RayRunner()
        return self._runner
