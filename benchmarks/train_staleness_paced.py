"""Workers whose pieces take a set time, one of them three times as long: what train_staleness starts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.schedule import StepShape
from mizzen.train.seams import Place, TrainState
from mizzen.train.step import Crew, Stepper
from mizzen.train.strategies.parameter_server.strategy import ParameterServer

SECONDS, SLOWER = 0.06, 3.0


class PacedStrategy(ParameterServer):
    """Waits before each push, as a longer backward pass would."""

    seconds = SECONDS
    began = 0.0

    def update(self, optimizer: Any) -> None:
        time.sleep(max(0.0, self.began + self.seconds - time.monotonic()))
        super().update(optimizer)


class PacedStepper(Stepper):
    def step(self, crew: Crew, state: TrainState, batch: Any, shape: StepShape) -> float:
        assert isinstance(crew.strategy, PacedStrategy)
        crew.strategy.began = time.monotonic()
        return super().step(crew, state, batch, shape)


class PacedLoop(Loop):
    pace = SECONDS

    def join(self, place: Place) -> None:
        super().join(place)
        strategy = PacedStrategy(self.plan, place, self.device)
        strategy.seconds = self.pace
        self.crew.strategy = strategy


def build(values: Mapping[str, Any]) -> Loop:
    """The first process to come is the slow one."""
    plan = TrainPlan.from_dict(dict(values))
    loop = PacedLoop(plan)
    loop.pace = SECONDS * (SLOWER if _is_first() else 1.0)
    loop.stepper = PacedStepper(plan, loop.task, loop.train_part, print)
    return loop


def _is_first() -> bool:
    try:
        os.close(os.open(Path(os.environ["MIZZEN_BENCH_RUN"]) / "slow", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
