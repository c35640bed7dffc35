"""Batches, the loop and its checkpoints, without Ray."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mizzen.data.materialize import Version
from mizzen.errors import UserError
from mizzen.registry.client import patiently
from mizzen.registry.gates import failures
from mizzen.train import elastic
from mizzen.train.driver import Telemetry
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.worker import FINAL, OUTCOME_FILE, Worker
from mizzen.workload.progress import ProgressBoard
from mizzen.workload.worker import threads
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import Gate


@pytest.fixture
def plan(version: Version) -> TrainPlan:
    return TrainPlan(
        "text-transformer",
        {"embedding_dim": 16, "num_layers": 1, "attention_heads": 2},
        version.uri,
        version.fingerprint,
        learning_rate=5e-3,
        epochs=2,
        batch_size=64,
    )


def test_a_training_that_diverges_in_its_last_step_leaves_no_model(
    plan: TrainPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(replace(plan, epochs=1, batch_size=100_000, learning_rate=1e30))
    worker = Worker(loop, "http://127.0.0.1:1", tmp_path)
    monkeypatch.setattr(worker, "_resume", lambda: None)
    monkeypatch.setattr(worker, "_tell", lambda **_: None)
    worker.train()
    assert loop.state.step == loop.total_steps == 1
    assert json.loads((tmp_path / OUTCOME_FILE).read_bytes())["reason"] == "TrainingDiverged"
    assert not (tmp_path / FINAL).exists()


def test_a_worker_that_fails_again_and_again_is_told_until_the_training_gets_on(tmp_path: Path) -> None:
    board = ProgressBoard()
    telemetry = Telemetry(board, tmp_path)
    started = {"event": "started", "step": 10, "total_steps": 50, "epoch": 0, "workers": 2, "resumed_from_step": 10}
    step = {"event": "step", "total_steps": 50, "epoch": 0, "workers": 2, "rows": 64, "metrics": {"loss": 1.0}}
    failed = {"event": "failed", "rank": 1, "error": "ValueError: no room"}
    for report in (started, {**step, "step": 20}, failed, started, {**step, "step": 20}, failed, started):
        telemetry.take(report)
    expected = "Workers failed 2 times and start again; the last time at step 20, worker 1: ValueError: no room"
    assert board.progress.message == expected
    telemetry.take({**step, "step": 21})
    assert board.progress.message == ""


@pytest.mark.parametrize(
    ("quantity", "expected"), [(None, 1), ("2", 2), ("500m", 1), ("1500m", 2), ("3e0", 3), ("0.002k", 2), (".5", 1)]
)
def test_threads_for_a_quantity_of_cpu(quantity: str | None, expected: int) -> None:
    assert threads(quantity) == expected


def test_a_gate_says_when_nothing_was_measured() -> None:
    gate = Gate(metric="accuracy", min=0.5)
    assert failures([gate], {}) == ["gate accuracy: there is no such metric; nothing was measured"]
    assert failures([gate], {"test_loss": 1.0}) == ["gate accuracy: there is no such metric; there are test_loss"]


def test_what_mlflow_does_not_like_is_the_users_to_mend() -> None:
    def refused() -> None:
        raise MlflowException("Invalid model name 'a/b'", error_code=INVALID_PARAMETER_VALUE)

    with pytest.raises(UserError, match=r"MLflow refused \(create\): Invalid model name 'a/b'") as error:
        patiently(refused, "create")
    assert error.value.reason == Reason.INVALID_PARAMETERS


TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 3, in train
    self.loop.run()
  File "loop.py", line 9, in run
    raise ValueError(text)
ValueError: no room
for the second line
"""


def test_of_a_workers_traceback_the_driver_hears_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(elastic, "send", lambda url, report: sent.append({"url": url, **report}))
    errors = {2: Exception("later"), 1: Exception(TRACEBACK)}
    elastic.TellErrors("http://head").after_exception(None, errors)
    expected = "ValueError: no room for the second line"
    assert sent == [{"url": "http://head", "event": "failed", "rank": 1, "error": expected}]
    assert elastic.gist(OSError("no room\nat all")) == "OSError: no room at all"
    assert elastic.gist(KeyError()) == "KeyError"
