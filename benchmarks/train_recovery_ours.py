"""The same small training as train_recovery_peer.py on Mizzen's group: `... ADDRESS IP LOG FOLDER`."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mizzen.train.seams import Place, StepResult, TrainState
from mizzen.train.strategies.base import load_named_tensors, named_tensors

STEP_SECONDS, CHECKPOINT_EVERY, STEPS = 0.5, 10, 10_000


class Slow:
    """A linear layer whose steps take half a second; rank 0 writes a line for each."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        torch.manual_seed(7)
        self.module, self.state, self.total_steps = torch.nn.Linear(64, 64), TrainState(), STEPS
        self.model: torch.nn.Module = self.module
        self.optimizer = torch.optim.SGD(self.module.parameters(), 0.1)
        self.place, self.log = Place(), Path(plan["log"])

    def join(self, place: Place) -> None:
        self.place = place
        grouped = dist.is_initialized() and place.world > 1
        self.model = torch.nn.parallel.DistributedDataParallel(self.module) if grouped else self.module

    def steps(self) -> Iterator[StepResult]:
        while self.state.step < STEPS:
            time.sleep(STEP_SECONDS)
            loss = self.model(torch.randn(8, 64)).sum()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.state.step += 1
            if self.place.rank == 0:
                with self.log.open("a") as log:
                    log.write(json.dumps([time.time(), self.state.step, self.place.world]) + "\n")
            yield StepResult(self.state.step, 0, 8, loss.item(), ends_epoch=False)

    def evaluate(self, split: str) -> dict[str, float]:  # noqa: ARG002
        return {}

    def tensors(self) -> dict[str, Tensor]:
        return named_tensors(self.module, self.optimizer)

    def local_tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: Mapping[str, Tensor], local: Sequence[Mapping[str, Tensor]], state: TrainState) -> None:  # noqa: ARG002
        load_named_tensors(self.module, self.optimizer, tensors)
        self.state = state


def build(plan: Mapping[str, Any]) -> Slow:
    return Slow(plan)


def main(address: str, ip: str, log: str, folder: str) -> None:
    import ray

    from mizzen.train.group.job import Job
    from mizzen.train.group.keeping import Keeping
    from mizzen.train.group.messages import Settings
    from mizzen.train.group.run import Group

    ray.init(address=address, _node_ip_address=ip, log_to_driver=False)
    keeping = Keeping(
        uuid.uuid4().hex, Path(folder).as_uri(), snapshot_every=CHECKPOINT_EVERY, checkpoint_every=CHECKPOINT_EVERY
    )
    Group(Job({"log": log}, keeping, folder, build=f"{Path(__file__).stem}:build"), Settings(1, 2), ip).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
