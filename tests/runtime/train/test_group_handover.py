"""How a new group comes to one state: from a rank's memory, a host's snapshots, all hosts' shards, or a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mizzen.data.materialize import Version
from mizzen.errors import UserError
from mizzen.train.group.handover import hand_over
from mizzen.train.group.keeping import Keeper, Keeping, patiently
from mizzen.train.group.shards import Choice, Kept, choose
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.seams import Place
from mizzen.train.strategies.base import whole_weights
from mizzen_api.conditions import Reason
from tests.runtime.train.group_under_test import Linear
from tests.runtime.train.ranks import on_ranks


def trained(folder: str, steps: int) -> Linear:
    """One rank alone for so many steps."""
    linear = Linear({"epochs": 4, "rate": 0.01, "seconds": 0.0, "log": folder, "alone": True})
    for result in linear.steps():
        if result.step == steps:
            break
    linear.residual_W.fill_(float(steps))
    return linear


def keeper_of(host: Path, store: Path | str = "", run: str = "handover") -> Keeper:
    host.mkdir(exist_ok=True)
    return Keeper(Keeping(f"{run}-{os.getppid()}-{host.parent.name}", str(store), 2, 1, 1, (str(host),)))


def told(rank: int, linear: Linear, keeper: Keeper, warm: bool) -> dict[str, Any]:
    local = {"residual": linear.residual_W.clone()} if warm else {}
    handed = hand_over(linear, Place(rank, 2), keeper, warm=warm, local=local, sharded=False, say=print)
    return {
        "step": handed.step,
        "source": handed.source,
        "state": linear.state.step,
        "weight": linear.weight_W.tolist(),
        "residual": linear.residual_W.tolist(),
    }


def from_memory(rank: int, folder: str) -> dict[str, Any]:
    linear = trained(folder, (3, 5)[rank]) if rank else Linear({"epochs": 4, "rate": 0.01, "seconds": 0, "log": folder})
    return told(rank, linear, keeper_of(Path(folder) / str(rank)), warm=rank == 1)


def one_behind(rank: int, folder: str) -> dict[str, Any]:
    return told(rank, trained(folder, (5, 4)[rank]), keeper_of(Path(folder) / str(rank)), warm=True)


def from_snapshot(rank: int, folder: str) -> dict[str, Any]:
    """Rank 1's host has step 6 in memory; the store has step 4."""
    if rank == 1:
        writer = keeper_of(Path(folder) / "1", f"{folder}/store")
        for step in (4, 6):
            linear = trained(folder, step)
            writer.regroup(Place(), str(step))
            if step == 4:
                assert writer.save(linear)
            else:
                writer._snapshots.take(linear)
        writer._snapshots.close(keep=True)
    fresh = Linear({"epochs": 4, "rate": 0.01, "seconds": 0, "log": folder})
    torch.distributed.barrier()
    return told(rank, fresh, keeper_of(Path(folder) / str(rank), f"{folder}/store"), warm=False)


def from_checkpoint(rank: int, folder: str) -> dict[str, Any]:
    if rank == 1:
        writer = keeper_of(Path(folder) / "gone", f"{folder}/store")
        assert writer.save(trained(folder, 7))
        writer.close(keep=False)
    fresh = Linear({"epochs": 4, "rate": 0.01, "seconds": 0, "log": folder})
    torch.distributed.barrier()
    return told(rank, fresh, keeper_of(Path(folder) / str(rank), f"{folder}/store"), warm=False)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([[Kept(10, "a", 0, 2)], [Kept(10, "a", 1, 2)]], Choice(10, "a", (0, 1))),
        ([[Kept(10, "a", 1, 2)], [Kept(10, "a", 0, 2)]], Choice(10, "a", (1, 0))),
        ([[Kept(15, "a", 0, 2), Kept(10, "a", 0, 2)], [Kept(10, "a", 1, 2)]], Choice(10, "a", (0, 1))),
        ([[Kept(10, "a", 0, 2)], [Kept(10, "b", 1, 2)]], None),
        ([[Kept(10, "a", 0, 2)], []], None),
        ([[], []], None),
    ],
)
def test_a_step_is_whole_where_all_its_ranks_are_kept(kept: list[list[Kept]], expected: Choice | None) -> None:
    assert choose(kept) == expected


def shards_that_moved(rank: int, plan: dict[str, Any], folder: str) -> dict[str, Any]:
    """Two ranks keep snapshots on hosts of their own; then each comes back on the other's host."""
    first = Loop(TrainPlan.from_dict(plan), rank, 2)
    writer = keeper_of(Path(folder) / str(rank), run="shards")
    writer.regroup(Place(rank, 2), "first")
    for result in first.steps():
        writer.after_step(first)
        if result.step == 3:
            break
    expected = {name: float(value.double().sum()) for name, value in whole_weights(first.module, keep=True).items()}
    torch.distributed.barrier()
    second = Loop(TrainPlan.from_dict(plan), rank, 2)
    second.join(Place(rank, 2, 1))
    reader = keeper_of(Path(folder) / str(1 - rank), run="shards")
    handed = hand_over(second, Place(rank, 2, 1), reader, warm=False, local={}, sharded=True, say=print)
    found = {name: float(value.double().sum()) for name, value in whole_weights(second.module, keep=True).items()}
    goes_on = next(second.steps()).loss == next(first.steps()).loss
    return {"step": handed.step, "source": handed.source, "same": found == expected, "goes_on": goes_on}


CASES = {  # step, source
    from_memory: (5, "memory"),
    one_behind: (5, "memory"),
    from_snapshot: (6, "snapshot"),
    from_checkpoint: (7, "checkpoint"),
}


def all_cases(rank: int, plan: dict[str, Any], folder: str) -> list[dict[str, Any]]:
    """In one pair of processes: each takes seconds to start."""
    answers = []
    for case in CASES:
        (Path(folder) / case.__name__).mkdir(exist_ok=True)
        answers.append(case(rank, f"{folder}/{case.__name__}"))
    return [*answers, shards_that_moved(rank, plan, folder)]


@pytest.mark.slow
def test_all_ranks_come_to_the_state_of_the_furthest(version: Version, tmp_path: Path) -> None:
    plan = TrainPlan(
        "text-transformer",
        {"embedding_dim": 16, "num_layers": 2, "attention_heads": 2, "dropout": 0.0},
        version.uri,
        version.fingerprint,
        learning_rate=5e-3,
        batch_size=64,
        strategy="fsdp",
    )
    for *answers, shards in on_ranks(2, all_cases, plan.to_dict(), str(tmp_path)):
        for answer, (step, source) in zip(answers, CASES.values(), strict=True):
            assert (answer["step"], answer["state"], answer["source"]) == (step, step, source)
            assert answer["weight"] == trained(str(tmp_path), step).weight_W.tolist()
            assert answer["residual"] == [float(step)] * 6, "the mean of those that are at this step"
        assert shards == {"step": 3, "source": "snapshot", "same": True, "goes_on": True}


def test_a_store_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mizzen.train.group.keeping._FIRST_WAIT", 0.001)
    answers = iter([OSError("no route to host"), OSError("no route to host"), 7])
    said: list[str] = []

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert patiently(ask, said.append) == 7
    assert said == ["the artifact store does not answer: no route to host"] * 2


@pytest.mark.slow
def test_a_store_that_refuses_ends_the_run(tmp_path: Path) -> None:
    linear = trained(str(tmp_path), 3)
    keeper = keeper_of(tmp_path / "host", "/sys/not-for-checkpoints")  # refused to anybody
    try:
        assert not keeper.save(linear)
        with pytest.raises(UserError, match="no checkpoint can be written: the store /sys/not-") as error:
            keeper.after_step(linear)
        assert error.value.reason is Reason.ARTIFACTS_FORBIDDEN
    finally:
        keeper.close(keep=False)


def test_a_store_that_refuses_to_be_read_is_for_a_person() -> None:
    def ask() -> int:
        raise PermissionError("denied")

    with pytest.raises(PermissionError):
        patiently(ask, print)
