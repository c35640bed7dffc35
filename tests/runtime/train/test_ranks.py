"""The loop on two ranks: the same training as on one, and the same decisions on both."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mizzen.train.loop import Loop
from mizzen.train.seams import Place
from mizzen.train.step import MICRO_BATCH, SKIPPED
from tests.runtime.train.ranks import on_ranks
from tests.runtime.train.toys import greedy_loop, image_task, plan, table_task

pytestmark = pytest.mark.slow


def weights(loop: Loop) -> list[float]:
    return torch.cat([value.flatten() for value in loop.module.state_dict().values()]).tolist()


def on_rank(rank: int) -> dict[str, Any]:
    """All that needs two ranks, in one group: starting them is what takes time."""
    torch.set_num_threads(1)
    place = Place(rank, 2)
    return {
        "whole": trained(place),
        "resized": trained(place, join_after=3),
        "accumulated": trained(place, accumulation=3),
        "greedy": greedy(place),
        "skipping": skipping(place),
        "images": images(place),
    }


def trained(place: Place, join_after: int | None = None, **changes: Any) -> dict[str, Any]:
    loop = Loop(plan(**changes), task=table_task())
    loop.join(place)
    losses = []
    for result in loop.steps():
        losses.append(result.loss)
        if result.step == join_after:
            loop.join(Place(place.rank, place.world, generation=1))
    return {"losses": losses, "weights": weights(loop), "metrics": loop.evaluate("test")}


def greedy(place: Place) -> dict[str, Any]:
    """Only the second rank has little memory."""
    loop = greedy_loop(most=5 if place.rank else 1000, epochs=1)
    loop.join(place)
    losses = [result.loss for result in loop.steps()]
    found = loop.state.extras[MICRO_BATCH], loop.stepper.limit, len(loop.notes), loop.module.largest
    return {"losses": losses, "found": list(found), "weights": weights(loop)}


def skipping(place: Place) -> dict[str, Any]:
    loop = Loop(plan(on_non_finite="Skip"), task=table_task(broken_row=17))
    loop.join(place)
    steps = sum(1 for _ in loop.steps())
    return {"steps": steps, "skipped": loop.state.extras[SKIPPED], "weights": weights(loop)}


def images(place: Place) -> dict[str, Any]:
    loop = Loop(plan(model="cnn", settings={"width": 4}, batch_size=32), task=image_task())
    loop.join(place)
    for _ in loop.steps():
        pass
    return {"metrics": loop.evaluate("train")}


@pytest.fixture(scope="module")
def both() -> list[dict[str, Any]]:
    return on_ranks(2, on_rank)


def test_two_ranks_train_as_one_does(both: list[dict[str, Any]]) -> None:
    alone = trained(Place())
    for answer in both:
        for case in ("whole", "resized", "accumulated"):
            assert answer[case]["losses"] == pytest.approx(alone["losses"], rel=1e-4), case
            assert answer[case]["weights"] == pytest.approx(alone["weights"], rel=1e-3, abs=1e-4), case
            assert answer[case]["metrics"] == pytest.approx(alone["metrics"], rel=1e-3), case


def test_ranks_hold_the_same_weights(both: list[dict[str, Any]]) -> None:
    for case in ("whole", "resized", "accumulated", "greedy", "skipping"):
        assert both[0][case]["weights"] == both[1][case]["weights"], case


def test_memory_that_runs_out_on_one_rank_halves_the_micro_batch_on_all(both: list[dict[str, Any]]) -> None:
    alone = greedy_loop(most=1000, epochs=1)
    losses = [result.loss for result in alone.steps()]
    for rank, answer in enumerate(both):
        assert answer["greedy"]["losses"] == pytest.approx(losses, rel=1e-4), "the step has as many rows as before"
        micro_batch, limit, notes, largest = answer["greedy"]["found"]
        assert (micro_batch, limit) == (4, 4)
        assert notes == (3 if rank else 0), "32 → 16 → 8 → 4 is told where it happened"
        assert largest <= (5 if rank else 32)


def test_a_step_that_one_rank_cannot_take_is_skipped_by_all(both: list[dict[str, Any]]) -> None:
    for answer in both:
        assert answer["skipping"]["skipped"] == 2, "once an epoch"
        assert answer["skipping"]["steps"] == 10


def test_running_means_are_those_of_one_rank_when_they_are_used(both: list[dict[str, Any]]) -> None:
    assert both[0]["images"]["metrics"] == both[1]["images"]["metrics"]
