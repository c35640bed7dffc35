"""What the group's tests train: a linear model whose steps are slow enough to be disturbed, and that counts its rows.

Imported by the members' processes as well.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mizzen.train.group.function import Context
from mizzen.train.seams import Place, StepResult, TrainState

ROWS, BATCH, WIDTH = 192, 12, 6
HURRY = "hurry"  # a file beside the logs: steps need not be slow any more


class Linear:
    """Least squares by SGD with momentum. Every rank writes which rows the gradient of a step is made of."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan, self.place, self.state = plan, Place(), TrainState()
        self.total_steps = plan["epochs"] * ROWS // BATCH
        torch.manual_seed(7)
        self.rows_NW = torch.randn(ROWS, WIDTH, dtype=torch.float64)
        self.targets_N = self.rows_NW @ torch.arange(1.0, WIDTH + 1, dtype=torch.float64) + 0.1 * torch.randn(ROWS)
        self.weight_W = torch.zeros(WIDTH, dtype=torch.float64)
        self.momentum_W = torch.zeros(WIDTH, dtype=torch.float64)
        self.residual_W = torch.zeros(WIDTH, dtype=torch.float64)
        self._log = Path(plan["log"]) / f"{os.getpid()}.jsonl"

    def join(self, place: Place) -> None:
        self.place = place

    def steps(self) -> Iterator[StepResult]:
        state = self.state
        while state.step < self.total_steps:
            order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(state.epoch))
            batch = order[state.row : state.row + BATCH]
            mine = batch[self.place.rank :: self.place.world]
            self._misbehave()
            if not (self._log.parent / HURRY).exists():
                time.sleep(self.plan["seconds"])
            errors = self.rows_NW[mine] @ self.weight_W - self.targets_N[mine]
            used_N = torch.zeros(ROWS, dtype=torch.float64).index_add(
                0, mine, torch.ones(len(mine), dtype=torch.float64)
            )
            sums = torch.cat([2 * errors @ self.rows_NW[mine] / BATCH, (errors**2).sum()[None] / BATCH, used_N])
            self._sum(sums)
            self.momentum_W.mul_(0.9).add_(sums[:WIDTH])
            self.weight_W.sub_(self.plan["rate"] * self.momentum_W)
            state.step += 1
            state.samples += BATCH
            ends = state.row + BATCH >= ROWS
            epoch, state.row, state.epoch = state.epoch, 0 if ends else state.row + BATCH, state.epoch + ends
            self._note(epoch, sums[WIDTH + 1 :])
            yield StepResult(state.step, epoch, BATCH, float(sums[WIDTH]), ends)

    def evaluate(self, split: str) -> dict[str, float]:
        loss = ((self.rows_NW @ self.weight_W - self.targets_N) ** 2).mean()[None]
        self._sum(loss)
        return {"loss": float(loss) / self.place.world}

    def tensors(self) -> dict[str, Tensor]:
        return {"model/weight": self.weight_W, "optimizer/weight|momentum": self.momentum_W}

    def local_tensors(self) -> dict[str, Tensor]:
        return {"residual": self.residual_W}

    def load(self, tensors: Mapping[str, Tensor], local: Sequence[Mapping[str, Tensor]], state: TrainState) -> None:
        self.weight_W.copy_(tensors["model/weight"])
        self.momentum_W.copy_(tensors["optimizer/weight|momentum"])
        if local:
            self.residual_W.copy_(sum(one["residual"] for one in local) / len(local))
        self.state = state

    def _sum(self, tensor: Tensor) -> None:
        if self.place.world > 1:
            dist.all_reduce(tensor)

    def _note(self, epoch: int, used_N: Tensor) -> None:
        """Which rows are in the gradient that the weights have just taken, how often each."""
        rows = [row for row, count in enumerate(used_N.tolist()) for _ in range(round(count))]
        with self._log.open("a") as log:
            log.write(json.dumps({"step": self.state.step, "epoch": epoch, "rows": rows, "at": time.time()}) + "\n")

    def _misbehave(self) -> None:
        """Fail or hang at a step, on the rank that the plan names."""
        step, rank, what = self.plan.get("trouble", (-1, 0, ""))
        if self.state.step == step and self.place.rank == rank:
            if what == "hang":
                time.sleep(3600)
            raise ValueError(f"no luck at step {step}")


def trained_alone(epochs: int, rate: float) -> float:
    """The loss at the end of a run that nobody disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        linear = Linear({"epochs": epochs, "rate": rate, "seconds": 0.0, "log": folder})
        for _ in linear.steps():
            pass
        return linear.evaluate("test")["loss"]


def steps_done(folder: Path) -> int:
    return sum(path.read_text().count("\n") for path in (folder / "log").glob("*.jsonl"))


def build(plan: Mapping[str, Any]) -> Linear:
    return Linear(plan)


def used_rows(log: Path) -> dict[int, list[int]]:
    """By epoch, all rows that were used; of a step that was done again the last time counts."""
    lines = [json.loads(line) for path in log.glob("*.jsonl") for line in path.read_text().splitlines()]
    steps = {line["step"]: line for line in sorted(lines, key=lambda one: one["at"])}
    found: dict[int, list[int]] = {}
    for step in steps.values():
        found.setdefault(step["epoch"], []).extend(step["rows"])
    return {epoch: sorted(rows) for epoch, rows in found.items()}


def train(context: Context) -> None:
    """A training function as a user would write it."""
    model = context.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    shard = context.shard("train")
    for step in range(context.restore(model=model, optimizer=optimizer), context.config["steps"]):
        inputs, targets = next(shard.batches(64 // context.world, epoch=step))
        loss = torch.nn.functional.cross_entropy(model(*inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= context.world
        time.sleep(0.02)
        optimizer.step()
        context.report({"loss": loss.item()}, step=step + 1)
        if (step + 1) % 5 == 0:
            context.save(step=step + 1, model=model, optimizer=optimizer)
