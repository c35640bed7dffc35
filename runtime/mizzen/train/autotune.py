"""Autotune: tries settings that change a step's speed for some steps each, and keeps the fastest.

Runs on one worker before the group trains (group/). What was found is kept beside the run's checkpoints: a run that is
resumed does not measure again, and goes on with the arithmetic that it began with.

One setting after the other, from what usually gains most; each alternative starts from the best so far. That needs a
dozen short measurements where all combinations would need hundreds, and misses gains that need two changes at once.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.errors import MizzenError
from mizzen.files import write_whole

if TYPE_CHECKING:
    from mizzen.data.store import DatasetVersion
    from mizzen.train.plan import TrainPlan
    from mizzen.train.tasks.base import RowsAtRest

log = logging.getLogger(__name__)

FILE = "autotune.json"
WORTH = 1.03  # times faster, to be told from noise
WARM_UP_STEPS = 2
MEASURED_STEPS = 5
MEASURED_SECONDS = 1.5
PATIENCE_SECONDS = 180.0  # for all of it; compiling is slow

Changes = dict[str, Any]
Measure = Callable[["TrainPlan"], float]  # rows a second; raises where the settings do not work


@dataclass(frozen=True)
class Trial:
    """One measurement: what was changed from the plan as it was given."""

    changes: Changes
    rows_per_second: float
    error: str = ""


@dataclass
class Tuned:
    """All trials; the first is the plan as it was given. `chosen` is empty where nothing was faster."""

    trials: list[Trial] = field(default_factory=list)
    chosen: Changes = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """Times faster than the plan as it was given."""
        speeds = {json.dumps(trial.changes, sort_keys=True): trial.rows_per_second for trial in self.trials}
        given = self.trials[0].rows_per_second
        return speeds[json.dumps(self.chosen, sort_keys=True)] / given if given else 1.0


def tuned(plan: TrainPlan, folder: Path, dataset: DatasetVersion | None = None) -> TrainPlan:
    """The plan with the settings that are fastest on this machine; measured once for each run folder."""
    if not plan.autotune:
        return plan
    path = folder / FILE
    if path.exists():
        return replace(plan, **json.loads(path.read_bytes())["chosen"])
    found = search(plan, lambda changed: measure(changed, dataset))
    write_whole(path, json.dumps(asdict(found), indent=1))
    log.info("autotune: %.2f times the speed with %s", found.gain, found.chosen or "the settings as they were")
    return replace(plan, **found.chosen)


def search(plan: TrainPlan, speed_of: Measure, patience: float = PATIENCE_SECONDS) -> Tuned:
    """Try the alternatives of each setting in turn. What fails is left out, and said among the trials."""
    started = time.monotonic()
    found = Tuned([_trial(plan, {}, speed_of)])
    best = found.trials[0]
    for name, values in alternatives(plan):
        for value in values:
            if time.monotonic() - started > patience:
                log.info("autotune: %.0f s are over; what is not yet tried stays as it is", patience)
                return found
            trial = _trial(plan, {**found.chosen, name: value}, speed_of)
            found.trials.append(trial)
            if trial.rows_per_second > best.rows_per_second * WORTH:
                best, found.chosen = trial, trial.changes
    return found


def alternatives(plan: TrainPlan) -> Iterator[tuple[str, list[Any]]]:
    """Settings in the order of what they usually gain, with values other than the plan's."""
    if plan.precision == "fp32":
        yield "precision", ["bf16"]
    if not plan.channels_last:
        yield "channels_last", [True]
    if not plan.compile:
        yield "compile", [True]
    whole = plan.micro_rows or -(-plan.batch_size // plan.accumulation)
    yield "micro_rows", [rows for rows in (whole // 2, whole // 4, whole // 8) if rows >= 1]
    yield "threads", [threads for threads in (plan.threads // 2,) if threads >= 1]


def measure(plan: TrainPlan, dataset: RowsAtRest | None = None) -> float:
    """Median rows a second of some training steps from fresh weights. Nothing of it is kept."""
    from mizzen.train.loop import Loop

    steps = Loop(replace(plan, autotune=False, compression=None), dataset=dataset).steps()
    for _ in range(WARM_UP_STEPS):
        next(steps, None)
    speeds: list[float] = []
    began = time.perf_counter()
    while len(speeds) < MEASURED_STEPS or time.perf_counter() - began < MEASURED_SECONDS:
        before = time.perf_counter()
        result = next(steps, None)
        if result is None:
            break
        speeds.append(result.rows / (time.perf_counter() - before))
    return statistics.median(speeds) if speeds else 0.0


def _trial(plan: TrainPlan, changes: Changes, speed_of: Measure) -> Trial:
    try:
        trial = Trial(changes, speed_of(replace(plan, **changes)))
    except (MizzenError, RuntimeError, NotImplementedError) as error:  # also torch.OutOfMemoryError
        if not changes:
            raise
        said = error.message if isinstance(error, MizzenError) else str(error).splitlines()[-1]
        trial = Trial(changes, 0.0, said)
    log.info("autotune: %.0f rows/s with %s%s", trial.rows_per_second, changes or "the settings as given", trial.error)
    return trial
