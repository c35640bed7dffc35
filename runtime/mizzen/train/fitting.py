"""From the pod's configuration to a group that trains: what the driver asks of it, and how it ended."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mizzen.errors import SystemError_, UserError
from mizzen.files import write_whole
from mizzen.train import accelerators
from mizzen.train.group.job import Job
from mizzen.train.group.keeping import Keeping
from mizzen.train.group.messages import Failure, Fault, Notice, Outcome, Scale, Settings, Stop
from mizzen.train.group.nodes import Slots
from mizzen.train.group.run import group_of
from mizzen.train.telemetry import Telemetry
from mizzen.workload import config as configuration
from mizzen.workload.following import following_scaling
from mizzen.workload.outcome import Stopped
from mizzen_api.conditions import Reason
from mizzen_api.workload import WorkloadConfig

if TYPE_CHECKING:
    from mizzen.train.group.base import BaseGroup
    from mizzen.train.plan import TrainPlan
    from mizzen.workload.progress import ProgressBoard

log = logging.getLogger(__name__)

OUTCOME_FILE = "outcome.json"  # in the run folder: a head that finds it trains no more
CHECKPOINTS = "checkpoints"


def fit(
    config: WorkloadConfig, plan: TrainPlan, run_folder: Path, telemetry: Telemetry, board: ProgressBoard
) -> Outcome:
    """Train on the workers that are there. Ray is connected. Stopped after a checkpoint where the pod must go.

    UserError for what no retry cures: the loop's, and code of the user's own that fails again and again.
    """
    assert config.training_spec is not None
    spec = config.training_spec
    slots = _slots(config)
    job = Job(
        plan.to_dict(),
        Keeping(
            config.uid,
            f"{config.run_uri}/{CHECKPOINTS}",
            spec.checkpoint.keep,
            spec.checkpoint.snapshot_every_steps,
            spec.checkpoint.every_steps,
        ),
        str(run_folder),
        function=spec.trainer.entrypoint or "",
    )
    group = group_of(
        job,
        _settings(config, slots),
        configuration.pod_ip(),
        slots=slots,
        listener=telemetry.listener(),
        past=telemetry.past,
    )
    with _leaving_workers(group, board), _stopped_in_time(group), _followed(group, config, slots):
        outcome = group.run()
    if outcome.stopped:
        raise Stopped
    if outcome.failure is None:
        leave(outcome, run_folder)
        return outcome
    raise _error(outcome.failure, is_users=bool(job.function or plan.entrypoint))


def leave(outcome: Outcome, run_folder: Path) -> None:
    """The last thing that a training does."""
    write_whole(run_folder / OUTCOME_FILE, json.dumps({"step": outcome.step, "metrics": outcome.metrics}))


def left(run_folder: Path) -> Outcome | None:
    """What an earlier head left; None while the training is not over."""
    path = run_folder / OUTCOME_FILE
    return Outcome(**json.loads(path.read_bytes())) if path.exists() else None


def _error(failure: Failure, *, is_users: bool) -> Exception:
    if failure.fault is Fault.USER:
        return UserError(Reason(failure.reason), failure.text)
    if is_users:
        return UserError(
            Reason.INVALID_PARAMETERS, f"the code of the model or the trainer does not run: {failure.text}"
        )
    return SystemError_(failure.text)


def _slots(config: WorkloadConfig) -> Slots:
    """One member for each device of a worker's pod."""
    row, devices = accelerators.granted(config)
    per_node = max(1, devices)
    cpus = 1 if per_node == 1 else 1 / per_node
    return Slots(per_node, {"num_cpus": cpus, **accelerators.ray_options(row, min(devices, 1))})


def _settings(config: WorkloadConfig, slots: Slots) -> Settings:
    assert config.training_spec is not None
    scaling = config.training_spec.scaling
    return Settings(scaling.min_workers * slots.per_node, scaling.max_workers * slots.per_node)


@contextlib.contextmanager
def _leaving_workers(group: BaseGroup, board: ProgressBoard) -> Iterator[None]:
    """Pods that are told to stop ask until they may."""

    def leave_asked(address: str) -> bool:
        group.tell(Notice(address))
        return group.has_left(address)

    board.on_leave = leave_asked
    try:
        yield
    finally:
        board.on_leave = None


@contextlib.contextmanager
def _stopped_in_time(group: BaseGroup) -> Iterator[None]:
    """SIGTERM asks the group for a checkpoint, in place of ending this process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, lambda *_: group.tell(Stop()))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextlib.contextmanager
def _followed(group: BaseGroup, config: WorkloadConfig, slots: Slots) -> Iterator[None]:
    """Edits of minWorkers and maxWorkers reach the group while the job runs."""
    assert config.training_spec is not None
    scaling = config.training_spec.scaling

    def changed(least: int, most: int) -> None:
        group.tell(Scale(least * slots.per_node, most * slots.per_node))

    with following_scaling((scaling.min_workers, scaling.max_workers), changed):
        yield
