"""What a TrainingJob's status and message say while its group trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import generate_latest

from mizzen.errors import SystemError_, UserError
from mizzen.train.fitting import _error, leave, left
from mizzen.train.group.messages import Failure, Fault, Outcome, Recovered
from mizzen.train.group.station import Report
from mizzen.train.telemetry import Telemetry
from mizzen.workload.progress import ProgressBoard
from mizzen_api.conditions import Reason


def test_reports_become_the_status_and_the_metrics(tmp_path: Path) -> None:
    board = ProgressBoard()
    telemetry = Telemetry(board, tmp_path)
    telemetry.began(2, 0, "")
    counters: dict[str, float | str] = {"bytes_sent": 5000.0, "compression": "int8", "unknown": 1.0}
    telemetry.report(Report(20, 100, 1, 640, 320.0, {"loss": 0.5, "validation_accuracy": 0.75}, counters))
    telemetry.kept(20, 10, "")
    telemetry.recovered(Recovered(0.25, 3, 1))
    assert board.progress.training is not None
    status = board.progress.training.trainer_status
    assert (status.step, status.epoch, status.workers, status.progress_percentage) == (20, 1, 2, 20)
    assert (status.snapshot_step, status.checkpoint_step, status.lost_steps, status.restarts) == (20, 10, 3, 1)
    assert (status.bytes_sent, status.compression, status.seconds_to_recover) == (5000, "int8", 0.25)
    assert status.resumed_from_step is None
    assert status.metrics == {"loss": 0.5, "validation_accuracy": 0.75}
    text = generate_latest(board.registry).decode()
    assert "mizzen_training_sent_bytes_total 5000.0" in text
    assert "mizzen_training_restarts_total 1.0" in text
    telemetry.finished(Outcome(100, {"test_accuracy": 0.8}))
    assert board.progress.training.trainer_status.progress_percentage == 100


def test_the_message_has_what_is_wrong_then_what_to_know(tmp_path: Path) -> None:
    board = ProgressBoard()
    telemetry = Telemetry(board, tmp_path)
    telemetry.say("workers failed once at step 20, the last time: ValueError: no room; they start again")
    telemetry.kept(20, -1, "the store does not answer")
    telemetry.report(Report(20, 100, 0, notes=("torch.compile failed",)))
    assert board.progress.message == (
        "workers failed once at step 20, the last time: ValueError: no room; they start again; "
        "the store does not answer; torch.compile failed"
    )
    telemetry.say("")
    telemetry.kept(30, 30, "")
    assert board.progress.message == "torch.compile failed"


def test_a_new_head_goes_on_counting(tmp_path: Path) -> None:
    first = Telemetry(ProgressBoard(), tmp_path)
    first.began(2, 40, "memory")
    first.recovered(Recovered(0.25, 3, 1))
    second = Telemetry(ProgressBoard(), tmp_path)
    assert (second.past.restarts, second.past.lost_steps, second.past.furthest) == (2, 3, 40)
    assert Telemetry(ProgressBoard(), tmp_path).past.restarts == 3, "each head counts itself"


def test_an_outcome_that_is_left_is_found(tmp_path: Path) -> None:
    assert left(tmp_path) is None
    leave(Outcome(40, {"test_loss": 0.5}), tmp_path)
    assert left(tmp_path) == Outcome(40, {"test_loss": 0.5})


@pytest.mark.parametrize(
    ("failure", "is_users", "kind", "reason"),
    [
        (Failure(Fault.USER, "the loss is nan", "TrainingDiverged"), False, UserError, Reason.TRAINING_DIVERGED),
        (Failure(Fault.OWN, "KeyError: 'x'"), True, UserError, Reason.INVALID_PARAMETERS),
        (Failure(Fault.OWN, "KeyError: 'x'"), False, SystemError_, Reason.INTERNAL_ERROR),
    ],
)
def test_what_a_retry_might_cure_is_tried_again(
    failure: Failure, is_users: bool, kind: type[UserError | SystemError_], reason: Reason
) -> None:
    error = _error(failure, is_users=is_users)
    assert isinstance(error, kind)
    assert error.reason is reason
    assert failure.text in error.message
