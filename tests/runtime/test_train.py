"""Batches, the loop and its checkpoints, without Ray."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mizzen.data.materialize import Version
from mizzen.errors import UserError
from mizzen.registry.client import patiently
from mizzen.registry.gates import failures
from mizzen.train import checkpoint, elastic
from mizzen.train.batches import epoch_batches, micro_batches, share
from mizzen.train.driver import Telemetry
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan, plan_of
from mizzen.train.worker import FINAL, OUTCOME_FILE, Worker
from mizzen.workload.progress import ProgressBoard
from mizzen.workload.worker import threads
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import Gate, TrainingJobSpec
from mizzen_api.workload import ResolvedDataset, ResolvedModel


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


def test_every_row_is_in_one_batch_of_an_epoch_and_in_one_share() -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 1000)
    batches = epoch_batches(lengths, 64, seed=3, epoch=1)
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert all((a == b).all() for a, b in zip(batches, epoch_batches(lengths, 64, seed=3, epoch=1), strict=True))
    shares = [share(batches[0], rank, 3) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == sorted(batches[0])
    assert [len(m) for m in micro_batches(np.arange(3), 4)] == [1, 1, 1, 0]
    padding = sum(int((lengths[b].max() - lengths[b]).sum()) for b in batches)
    assert padding < 0.2 * lengths.sum()


def test_it_learns(plan: TrainPlan) -> None:
    loop = Loop(replace(plan, epochs=4, model="text-bag", settings={}, learning_rate=2e-2))
    losses = [result.loss for result in loop.run()]
    assert losses[-1] < losses[0]
    measured = loop.evaluate("test")
    assert measured["accuracy"] > 0.85 > measured["majority_rate"]


def test_a_resumed_run_ends_with_the_same_weights(plan: TrainPlan, tmp_path: Path) -> None:
    whole = Loop(plan)
    for _ in whole.run():
        pass
    first = Loop(plan)
    for result in first.run():
        if result.step == 15:  # in the middle of the second epoch
            checkpoint.save(tmp_path / "c", first.module, first.optimizer, first.state)
            break
    second = Loop(plan)
    second.state = checkpoint.load(tmp_path / "c", second.module, second.optimizer)
    assert next(steps := (result.step for result in second.run())) == 16
    assert list(steps)[-1] == whole.state.step
    for a, b in zip(whole.module.parameters(), second.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert {p.suffix for p in (tmp_path / "c").iterdir()} == {".safetensors", ".json"}


def test_accumulation_and_sharing_give_the_gradient_of_the_whole_batch(plan: TrainPlan) -> None:
    plan = replace(plan, settings={**plan.settings, "dropout": 0.0})
    one, four = Loop(plan), Loop(replace(plan, accumulation=4))
    assert next(one.run()).loss == pytest.approx(next(four.run()).loss, rel=1e-5)
    for a, b in zip(one.module.parameters(), four.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_divergence_names_the_learning_rate(plan: TrainPlan) -> None:
    loop = Loop(plan)
    with torch.no_grad():
        next(loop.module.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"the loss is nan at step 1: use a smaller learning rate than 0\.005") as error:
        next(loop.run())
    assert error.value.reason == Reason.TRAINING_DIVERGED


def test_bf16_runs(plan: TrainPlan) -> None:
    assert 0 < next(Loop(replace(plan, precision="bf16")).run()).loss < 2


def test_the_config_hash_is_of_what_shapes_the_result(plan: TrainPlan) -> None:
    assert replace(plan, dataset_uri="elsewhere", checkpoint_every=1).config_hash == plan.config_hash
    assert replace(plan, seed=8).config_hash != plan.config_hash


def test_what_the_last_step_broke_is_found_by_the_measurement(plan: TrainPlan) -> None:
    loop = Loop(plan)
    with torch.no_grad():
        next(loop.module.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="the loss on the validation split is nan at step 0") as error:
        loop.evaluate("validation")
    assert error.value.reason == Reason.TRAINING_DIVERGED


def test_a_weight_that_no_row_uses_counts_too(plan: TrainPlan) -> None:
    loop = Loop(plan)
    loop.check_weights()
    name, last = list(loop.module.named_parameters())[-1]
    with torch.no_grad():
        last.view(-1)[0] = float("inf")
    with pytest.raises(UserError, match=rf"weights of {name} are not finite"):
        loop.check_weights()


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


@pytest.mark.parametrize("rate", ["fast", 0, -1, True, float("nan"), 1e38])
def test_a_models_lr_is_checked_before_anything_runs(rate: object) -> None:
    spec = TrainingJobSpec.model_validate({"datasetRef": {"name": "d"}, "model": {}, "register": {"name": "m"}})
    model = ResolvedModel(name="text-bag", config={"lr": rate})
    with pytest.raises(UserError, match="lr must be a number above 0 and up to 1000") as error:
        plan_of(spec, ResolvedDataset(name="d", uri="u", fingerprint="f"), model, 1)
    assert error.value.reason == Reason.INVALID_PARAMETERS


def test_the_largest_seed_works(plan: TrainPlan) -> None:
    loop = Loop(replace(plan, seed=2**31 - 1, model="text-bag", settings={}))
    losses = [result.loss for result in loop.run(until_epoch=1)]
    assert all(map(math.isfinite, losses))


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
