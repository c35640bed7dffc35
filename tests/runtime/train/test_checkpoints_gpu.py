"""Snapshots of what lies on a GPU, where there is one: the bytes of the moment, though training goes on meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from mizzen.train.checkpoints import staging
from mizzen.train.checkpoints.restore import newest_in_memory
from mizzen.train.checkpoints.snapshots import Snapshots, clear
from tests.runtime.train.trainee import TinyTrainee

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
UID = f"test-gpu-{os.getpid()}"


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    clear(UID)


class LargeTrainee(TinyTrainee):
    """400 MB of weights and moments on the GPU, and a residual on the host."""

    def __init__(self) -> None:
        super().__init__(residual=True)
        self.module = nn.Linear(8192, 4096, device="cuda")
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-2)

    def work(self) -> None:
        for _ in range(3):
            self.module(torch.randn(64, 8192, device="cuda")).square().mean().backward()
            self.optimizer.step()
            self.state.step += 1


@needs_gpu
@pytest.mark.parametrize("staged", [True, False])
def test_a_snapshot_is_of_the_moment_it_was_taken(staged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not staged:
        monkeypatch.setattr(staging, "SPARE", 2.0)
    trainee, snapshots = LargeTrainee(), Snapshots(UID)
    trainee.work()
    for _ in range(4):
        trainee.work()
        before = {name: value.clone() for name, value in (trainee.tensors() | trainee.local_tensors()).items()}
        step = trainee.state.step
        assert snapshots.take(trainee) is not None
        trainee.work()
        snapshots.settle()
        restored = newest_in_memory(UID)
        assert restored is not None and restored.state.step == step
        found = {**restored.tensors, **restored.local[0]}
        assert found.keys() == before.keys()
        assert all(torch.equal(found[name], value.cpu()) for name, value in before.items())
    snapshots.close()
    assert newest_in_memory(UID) is None
