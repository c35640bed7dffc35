"""What a member's training thread does in one generation of the group: join, take over the state, step to the end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mizzen import entrypoints
from mizzen.train.group import process_group
from mizzen.train.group.handover import hand_over
from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeper
from mizzen.train.group.messages import Began
from mizzen.train.group.process_group import Formation
from mizzen.train.group.station import EVALUATE, SAVE, Report, Station
from mizzen.train.seams import Place
from mizzen_api import contract

if TYPE_CHECKING:
    from torch import nn

    from mizzen.train.loop import Loop
    from mizzen.train.seams import StepResult, Tensors, Trainee

FINAL = "final"  # the trained model, in the run folder
REPORT_SECONDS = 1.0
_EVALUATED = "evaluated_epochs"  # of TrainState.extras


class Work(Protocol):
    """What the training thread runs."""

    def prepare(self) -> None:
        """Import, build and load, without the group."""

    def train(self, formation: Formation) -> dict[str, float]:
        """To the end, in this group; the metrics of the trained model."""

    def close(self, *, keep: bool) -> None:
        """The run is over; or goes on later from what is kept."""


def loop_of(plan: dict[str, Any]) -> Loop:
    """The Trainee of a TrainPlan, in a process that trains nothing else."""
    from mizzen.train.loop import Loop
    from mizzen.train.plan import TrainPlan

    process_group.warm_up()
    return Loop(TrainPlan.from_dict(plan))


class LoopWork:
    """Drives a Trainee. Whatever all ranks must do together, they do in the same order: evaluate, keep, hold."""

    def __init__(self, job: Job, station: Station) -> None:
        self.job, self.station = job, station
        self._warm = False  # there is something in memory that is worth keeping
        self._meter = Meter()

    def prepare(self) -> None:
        self.trainee: Trainee = entrypoints.load(self.job.build, "build")(self.job.plan)
        self.keeper = Keeper(self.job.keeping)

    def train(self, formation: Formation) -> dict[str, float]:
        try:
            return self._generation(formation)
        except BaseException:
            # Devices go on after an abort, with whatever their memory holds: weights may be of it.
            if self.station.is_aborted and process_group.on_devices():
                self._warm = False
            raise

    def _generation(self, formation: Formation) -> dict[str, float]:
        self._join(formation)
        self._report()
        self._run()
        return self._conclude()

    def _run(self) -> None:
        trainee, station = self.trainee, self.station
        if trainee.state.step and trainee.state.row == 0:
            self._evaluate()
        for result in trainee.steps():
            station.stepped(result.step)
            self._meter.add(result)
            if result.ends_epoch:
                self._evaluate()
            self.keeper.after_step(trainee)
            if result.ends_epoch or self._meter.passed >= REPORT_SECONDS:
                self._report()
            station.boundary(result.step, self._save, always=self._is_sharded())

    def close(self, *, keep: bool) -> None:
        self.keeper.close(keep=keep)

    def _join(self, formation: Formation) -> None:
        trainee, place = self.trainee, Place(formation.rank, formation.world, formation.generation)
        local = {name: value.clone() for name, value in trainee.local_tensors().items()} if self._warm else {}
        process_group.form(formation, self._backend())
        trainee.join(place)
        self.place = place
        self.keeper.regroup(place, formation.name)
        handed = hand_over(
            trainee, place, self.keeper, warm=self._warm, local=local, sharded=self._is_sharded(), say=self._say
        )
        self._warm = True
        self.station.at_step(handed.step)
        self.station.tell(Began(self.station.member, formation.generation, handed.step, handed.source))

    def _evaluate(self) -> None:
        """At the end of an epoch, once: a group that was lost meanwhile does it again."""
        state = self.trainee.state
        if state.extras.get(_EVALUATED, 0) >= state.epoch:
            return
        with self.station.doing(EVALUATE):
            measured = self.trainee.evaluate(contract.SPLITS[1])
        state.metrics |= {f"validation_{key}": value for key, value in measured.items() if key != "majority_rate"}
        state.extras[_EVALUATED] = state.epoch
        self._meter.metrics = dict(state.metrics)

    def _save(self) -> None:
        self.keeper.save(self.trainee)
        self._report()

    def _report(self) -> None:
        self.station.keep(self.keeper.kept)
        if self.place.rank == 0:
            counters: dict[str, float | str] = getattr(self.trainee, "counters", dict)()
            notes = tuple(getattr(self.trainee, "notes", ()))
            self.station.report(self._meter.report(self.trainee, counters, notes))

    def _say(self, text: str) -> None:
        self.station.say(text)

    def _conclude(self) -> dict[str, float]:
        trainee = self.trainee
        with self.station.doing(EVALUATE):
            test = {f"test_{key}": value for key, value in trainee.evaluate(contract.SPLITS[2]).items()}
        check = getattr(trainee, "check_weights", None)
        if check is not None:
            check()
        with self.station.doing(SAVE):
            self._leave_model()
        self._report()
        return {**trainee.state.metrics, **test}

    def _leave_model(self) -> None:
        """Of rank 0."""
        save = getattr(self.trainee, "save", None)
        weights = self._whole_weights()
        if save is not None and self.place.rank == 0:
            publish(lambda folder: save(folder, weights), Path(self.job.run_folder))

    def _whole_weights(self) -> Tensors | None:
        """Of shards; all ranks take part. None where each rank has the whole model."""
        if not self._is_sharded():
            return None
        from mizzen.train.strategies.base import whole_weights

        module: nn.Module = getattr(self.trainee, "module")  # noqa: B009 (a Trainee of shards has one)
        return whole_weights(module, keep=self.place.rank == 0)

    def _is_sharded(self) -> bool:
        return bool(getattr(self.trainee, "sharded", False))

    def _backend(self) -> str:
        from mizzen.train import accelerators

        row = accelerators.select(str(self.job.plan.get("accelerator", "cpu")))
        return row.backend if row.backend == "gloo" else f"cpu:gloo,{row.device}:{row.backend}"


def publish(save: Callable[[Path], None], run_folder: Path) -> None:
    """Leave the trained model in one move: a folder that is there is whole."""
    draft, final = run_folder / f".{FINAL}", run_folder / FINAL
    shutil.rmtree(draft, ignore_errors=True)
    save(draft)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)


class Meter:
    """Losses and rows between two reports."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._losses: list[float] = []
        self._rows = 0
        self._since = time.monotonic()

    @property
    def passed(self) -> float:
        return time.monotonic() - self._since

    def add(self, result: StepResult) -> None:
        self._losses.append(result.loss)
        self._rows += result.rows

    def report(self, trainee: Trainee, counters: dict[str, float | str], notes: tuple[str, ...]) -> Report:
        state = trainee.state
        loss = {"loss": sum(self._losses) / len(self._losses)} if self._losses else {}
        speed = self._rows / max(self.passed, 1e-6)
        report = Report(
            state.step, trainee.total_steps, state.epoch, self._rows, speed, {**loss, **self.metrics}, counters, notes
        )
        self._losses, self._rows, self._since, self.metrics = [], 0, time.monotonic(), {}
        return report
