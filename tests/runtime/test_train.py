"""Batches, the loop and its checkpoints, without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mizzen.data.materialize import Version
from mizzen.errors import UserError
from mizzen.train import checkpoint
from mizzen.train.batches import epoch_batches, micro_batches, share
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen_api.conditions import Reason


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
