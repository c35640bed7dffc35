"""The loop on one rank: steps, resuming, divergence, measuring."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mizzen.data.materialize import Version
from mizzen.errors import UserError
from mizzen.train.batches import Order, micro_batches, share
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan, plan_of
from mizzen.train.seams import TrainState
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import TrainingJobSpec
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


@pytest.mark.parametrize(("smallest", "largest"), [(64, 64), (16, 128)])
def test_every_row_is_used_once_an_epoch_whatever_the_batches(smallest: int, largest: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 1000)
    order = Order(smallest, largest)
    rows = order.rows(1000, lengths, seed=3, epoch=1)
    assert sorted(rows) == list(range(1000))
    assert (rows == order.rows(1000, lengths, seed=3, epoch=1)).all()
    assert (rows != order.rows(1000, lengths, seed=3, epoch=2)).any()
    assert sorted(order.rows(1000, None, 3, 1)) == list(range(1000))
    batches = [rows[start : start + smallest] for start in range(0, 1000, smallest)]
    padding = sum(int((lengths[b].max() - lengths[b]).sum()) for b in batches)
    assert padding < 0.2 * lengths.sum()
    means = [lengths[b].mean() for b in batches]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.9, "short and long batches take turns"


def test_a_batch_is_shared_out_among_ranks_and_micro_batches() -> None:
    batch = np.arange(64)
    shares = [share(batch, rank, 3) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == sorted(batch)
    assert [len(m) for m in micro_batches(np.arange(3), 4)] == [1, 1, 1, 0]


def test_it_learns(plan: TrainPlan) -> None:
    loop = Loop(replace(plan, epochs=4, model="text-bag", settings={}, learning_rate=2e-2))
    losses = [result.loss for result in loop.run()]
    assert losses[-1] < losses[0]
    measured = loop.evaluate("test")
    assert measured["accuracy"] > 0.85 > measured["majority_rate"]


def test_a_resumed_run_ends_with_the_same_weights(plan: TrainPlan) -> None:
    whole = Loop(plan)
    for _ in whole.steps():
        pass
    first = Loop(plan)
    for result in first.steps():
        if result.step == 15:  # in the middle of the second epoch
            break
    tensors = {name: value.clone() for name, value in first.tensors().items()}
    second = Loop(plan)
    second.load(tensors, [first.local_tensors()], TrainState(**vars(first.state)))
    assert next(steps := (result.step for result in second.steps())) == 16
    assert list(steps)[-1] == whole.state.step == whole.total_steps
    assert second.state == whole.state
    for a, b in zip(whole.module.parameters(), second.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


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
