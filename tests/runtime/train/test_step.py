"""One optimizer step: memory and numbers that run out, optimizers, sizes that change."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch

from mizzen.errors import UserError
from mizzen.models.building import Recipe
from mizzen.train.loop import DEPTH, Loop
from mizzen.train.seams import TrainState
from mizzen.train.step import IN_A_ROW, MICRO_BATCH, SKIPPED
from mizzen_api.conditions import Reason
from tests.runtime.train.toys import CLASSES, FEATURES, TABLE_SHAPE, greedy_loop, plan, table_task


def losses(loop: Loop) -> list[float]:
    return [result.loss for result in loop.steps()]


def trained(**changes: Any) -> Loop:
    loop = Loop(plan(**changes), task=table_task())
    assert losses(loop)
    return loop


def test_memory_that_runs_out_halves_the_micro_batch_and_keeps_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    enough = losses(greedy_loop(most=1000))
    with caplog.at_level(logging.WARNING):
        loop = greedy_loop(most=20)
        assert losses(loop) == pytest.approx(enough, rel=1e-4)
    assert loop.state.extras[MICRO_BATCH] == loop.counters()[MICRO_BATCH] == 16
    assert loop.module.largest == 16
    assert loop.notes[0] == "out of memory with 64 rows at once: going on with 32; a step has as many as before"
    assert loop.notes[0] in caplog.text
    resumed = greedy_loop(most=20)
    resumed.load(loop.tensors(), [], TrainState(extras=dict(loop.state.extras)))
    assert resumed.stepper.limit == 16, "a resumed run does not run into it again"


def test_memory_for_not_one_row_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match=r"out of memory with a single row: use a smaller model") as error:
        losses(greedy_loop(most=0))
    assert error.value.reason == Reason.INVALID_PARAMETERS


def test_the_host_s_allocator_counts_too() -> None:
    loop = greedy_loop(most=1000)
    forward, calls = loop.module.forward, []

    def refused_once(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        if len(calls) == 1:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
            )
        return forward(x)  # type: ignore[no-any-return]

    loop.module.forward = refused_once  # type: ignore[method-assign]
    next(loop.steps())
    assert calls == [64, 32, 32]


def test_a_loss_that_is_no_number_stops_with_the_step_and_leaves_the_weights() -> None:
    loop = Loop(plan(), task=table_task(broken_row=17))
    with pytest.raises(UserError, match=r"the loss is nan at step \d: use a smaller learning rate than 0\.01") as error:
        losses(loop)
    assert error.value.reason == Reason.TRAINING_DIVERGED
    loop.check_weights()


def test_a_step_is_skipped_where_that_is_asked_for() -> None:
    loop = Loop(plan(on_non_finite="Skip"), task=table_task(broken_row=17))
    seen = losses(loop)
    assert sum(map(math.isnan, seen)) == loop.state.extras[SKIPPED] == loop.counters()[SKIPPED] == 2
    assert len(seen) == loop.total_steps and IN_A_ROW not in loop.state.extras
    loop.check_weights()


def test_a_skipped_step_leaves_no_trace_in_running_means() -> None:
    task = table_task(broken_row=17)
    normed = torch.nn.Sequential(torch.nn.BatchNorm1d(FEATURES), torch.nn.Linear(FEATURES, len(CLASSES)))
    loop = Loop(plan(on_non_finite="Skip"), task=task, built=(Recipe(TABLE_SHAPE), normed))
    assert sum(map(math.isnan, losses(loop))) == 2
    assert all(bool(buffer.isfinite().all()) for buffer in normed.buffers())
    assert int(normed[0].num_batches_tracked) == loop.total_steps - 2


def test_too_many_skipped_steps_in_a_row_end_the_run() -> None:
    loop = Loop(plan(on_non_finite="Skip", max_skipped_steps=3), task=table_task())
    with torch.no_grad():
        next(loop.module.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="the loss is nan, after 3 skipped steps in a row, at step 4"):
        losses(loop)


def test_fp16_scales_the_loss_and_its_scale_is_part_of_the_state() -> None:
    loop = Loop(plan(precision="fp16", epochs=4), task=table_task())
    loop.state.extras["loss_scale"] = 2.0**40  # overflows at first
    seen = losses(loop)
    assert loop.state.extras["fp16_overflows"] > 0
    assert 1 <= loop.state.extras["loss_scale"] < 2.0**40
    assert seen[-1] < seen[0]
    plain = losses(Loop(plan(epochs=4), task=table_task()))
    scaled = losses(Loop(plan(precision="fp16", epochs=4), task=table_task()))
    assert scaled == pytest.approx(plain, rel=0.05), "rounding apart, scaling changes nothing"


def test_a_precision_that_the_device_lacks_is_told() -> None:
    with pytest.raises(UserError, match="precision fp8 does not go with CPUs: use one of fp32, fp16, bf16"):
        Loop(plan(precision="fp8"), task=table_task())


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1},
        {"max_gradient_norm": 0.0},
        {"learning_rate_schedule": "constant", "warmup_fraction": 0.0},
        {"activation_checkpointing": True},
        {"precision": "bf16", "accumulation": 3},
    ],
)
def test_settings_that_train(changes: dict[str, Any]) -> None:
    loop = trained(epochs=6, **changes)
    assert loop.evaluate("train")["accuracy"] > 0.75
    assert not loop.notes


def test_checkpointed_activations_change_nothing() -> None:
    plain, checkpointed = trained(), trained(activation_checkpointing=True)
    for one, other in zip(plain.module.parameters(), checkpointed.module.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert list(plain.module.state_dict()) == list(checkpointed.module.state_dict())


@pytest.mark.slow
def test_a_compiled_model_trains_alike_and_keeps_its_names() -> None:
    small = {"settings": {"hidden_dim": 8, "num_layers": 1, "dropout": 0.0}, "batch_size": 60}
    plain, compiled = Loop(plan(**small), task=table_task()), Loop(plan(**small, compile=True), task=table_task())
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-3)
    assert not compiled.notes
    assert compiled.tensors().keys() == plain.tensors().keys()


def test_a_compiler_that_fails_is_told_and_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> object:
        raise RuntimeError("no C++ compiler found")

    torch._dynamo.reset()
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **_: real(call, backend=no_compiler))
    loop = Loop(plan(compile=True), task=table_task())
    plain = losses(Loop(plan(), task=table_task()))
    assert losses(loop) == pytest.approx(plain)
    (note,) = loop.notes
    assert note.startswith("torch.compile failed (BackendCompilerFailed: ")
    assert note.endswith(": training goes on without it")


def test_a_batch_that_grows_uses_each_row_once_an_epoch() -> None:
    loop = Loop(plan(epochs=3, progressive={"batch_size": {"start": 10, "end": 80}, "until": 0.6}), task=table_task())
    steps = list(loop.steps())
    assert len(steps) == loop.total_steps
    assert (steps[0].rows, max(step.rows for step in steps)) == (10, 80)
    for epoch in range(3):
        assert sum(step.rows for step in steps if step.epoch == epoch) == 300
    assert loop.state.samples == 900


def test_depth_grows_and_a_resumed_run_grows_alike() -> None:
    changes = {"epochs": 4, "progressive": {"depth": {"start": 1, "end": 2}, "until": 0.5}}
    whole = Loop(plan(**changes), task=table_task())
    first = Loop(plan(**changes), task=table_task())
    assert losses(whole)
    assert whole.notes == ["the model grows to 2 blocks at step 10"]
    for result in first.steps():
        if result.step == 10:  # the very step before it grows
            break
    assert first.state.extras[DEPTH] == 1
    second = Loop(plan(**changes), task=table_task())
    tensors = {name: value.clone() for name, value in first.tensors().items()}
    second.load(tensors, [], first.state)
    assert losses(second)
    for one, other in zip(whole.module.parameters(), second.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
