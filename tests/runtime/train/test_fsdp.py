"""Fully sharded training: the same numbers as one process alone, and shards that any number of ranks can take up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from mizzen.data.materialize import Version
from mizzen.train.checkpoints.persister import Persister
from mizzen.train.checkpoints.restore import Restored, newest_in_memory
from mizzen.train.checkpoints.snapshots import Snapshots, clear
from mizzen.train.checkpoints.store import Store
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.seams import Place
from mizzen.train.strategies.base import whole_weights
from mizzen.train.strategies.fsdp import blocks
from tests.runtime.train.ranks import on_ranks

UID = f"test-fsdp-{os.getpid()}"
CUT = 5  # the step at which a run is broken off


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    clear(UID)


@pytest.fixture
def plan(version: Version) -> TrainPlan:
    """No dropout, whose masks differ from rank to rank; two micro-batches for each step."""
    return TrainPlan(
        "text-transformer",
        {"embedding_dim": 16, "num_layers": 2, "attention_heads": 2, "dropout": 0.0},
        version.uri,
        version.fingerprint,
        learning_rate=5e-3,
        epochs=1,
        batch_size=64,
        accumulation=2,
        strategy="fsdp",
    )


def train(loop: Loop, until: int = 10**9) -> list[float]:
    losses = []
    for result in loop.steps():
        losses.append(result.loss)
        if result.step == until:
            break
    return losses


def whole_run(rank: int, plan: dict[str, Any], world: int) -> dict[str, Any]:
    loop = Loop(TrainPlan.from_dict(plan), rank, world)
    losses = train(loop)
    tensors = loop.tensors()
    sharded = [name for name, value in tensors.items() if isinstance(value, DTensor)]
    mine = sum(value.to_local().numel() for value in tensors.values() if isinstance(value, DTensor))
    whole = sum(value.numel() for value in tensors.values() if isinstance(value, DTensor))
    weights = whole_weights(loop.module, keep=rank == 0)
    accuracy = loop.evaluate("test")
    sums = {name: float(value.double().sum()) for name, value in weights.items()}
    return {"losses": losses, "sharded": sharded, "share": mine / whole, "sums": sums, "accuracy": accuracy}


@pytest.mark.slow
def test_two_ranks_with_half_of_it_each_are_as_one_with_all(plan: TrainPlan) -> None:
    alone = Loop(plan)
    losses = train(alone)
    found = on_ranks(2, whole_run, plan.to_dict(), 2)
    assert found[0]["losses"] == found[1]["losses"] == pytest.approx(losses, rel=1e-4)
    assert found[0]["share"] + found[1]["share"] == 1.0 and 0.45 < found[0]["share"] < 0.55
    assert {name.partition("/")[0] for name in found[0]["sharded"]} == {"model", "optimizer"}
    weights = {name: float(value.double().sum()) for name, value in alone.module.state_dict().items()}
    assert found[0]["sums"] == pytest.approx(weights, abs=2e-2) and found[1]["sums"] == {}
    assert found[0]["accuracy"] == pytest.approx(alone.evaluate("test"), abs=0.03)


def two_then_three(rank: int, plan: dict[str, Any], store: str, uid: str) -> list[list[float]]:
    """A group of two is broken off; one of three goes on, from memory and once more from the store."""
    meeting = dist.distributed_c10d._get_default_store()
    dist.destroy_process_group()
    loop = Loop(TrainPlan.from_dict(plan), rank, 2)
    if rank < 2:
        dist.init_process_group("gloo", store=dist.PrefixStore("two", meeting), rank=rank, world_size=2)
        train(loop, CUT)
        snapshots, persister = Snapshots(uid, rank, 2, "two"), Persister(store)
        snapshot = snapshots.take(loop)
        assert snapshot is not None
        persister.submit(snapshot)
        assert persister.close(60)
        snapshots.close(keep=True)
        dist.destroy_process_group()
    meeting.wait(["two"]) if rank == 2 else meeting.set("two", "over")
    dist.init_process_group("gloo", store=dist.PrefixStore("three", meeting), rank=rank, world_size=3)
    dist.barrier()
    from_memory, checkpoint = newest_in_memory(uid), Store(store).newest()
    assert from_memory is not None and checkpoint is not None and checkpoint.world == 2
    losses = []
    for generation, restored in enumerate((from_memory, checkpoint.load())):
        loop.join(Place(rank, 3, generation))
        restored.into(loop)
        assert loop.state.step == CUT
        assert all(_same(restored, name, value) for name, value in loop.tensors().items())
        losses.append(train(loop))
    return losses


def _same(restored: Restored, name: str, value: torch.Tensor) -> bool:
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return torch.equal(whole, restored.tensors[name])


@pytest.mark.slow
def test_shards_of_two_ranks_become_shards_of_three_and_the_loss_curve_goes_on(plan: TrainPlan, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    undisturbed = train(Loop(plan))
    for losses in on_ranks(3, two_then_three, plan.to_dict(), store, UID)[2]:
        assert losses == pytest.approx(undisturbed[CUT:], rel=1e-3)
    checkpoint = Store(store).newest()
    assert checkpoint is not None
    alone = Loop(replace(plan, strategy="ddp"))  # another strategy reads them as well
    checkpoint.load().into(alone)
    assert train(alone) == pytest.approx(undisturbed[CUT:], rel=1e-3)


def test_blocks_are_what_holds_much_of_the_parameters() -> None:
    transformer = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(16, 2, 32), 3, enable_nested_tensor=False
    )
    assert blocks(transformer) == list(transformer.layers)
    small = torch.nn.Module()
    small.parts = torch.nn.Sequential(torch.nn.Linear(1000, 100), torch.nn.ReLU(), torch.nn.LayerNorm(100))
    assert blocks(small) == [small.parts[0]]
    nested = torch.nn.Module()
    nested.stages = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(5, 5)) for _ in range(2)])
    assert blocks(nested) == [stage[0] for stage in nested.stages]
