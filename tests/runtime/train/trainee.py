"""A small Trainee of real parts for tests of what surrounds one: a linear model with AdamW on rows of a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mizzen.train.seams import Place, StepResult, TrainState
from mizzen.train.strategies.base import load_named_tensors, named_tensors

ROWS, BATCH, WIDTH = 60, 6, 5


class TinyTrainee:
    """`seen` has the rows of all steps. `residual` is what this rank alone has."""

    def __init__(self, epochs: int = 3, *, residual: bool = False) -> None:
        torch.manual_seed(3)
        self.module: nn.Module = nn.Sequential(nn.Linear(WIDTH, 7), nn.BatchNorm1d(7), nn.Linear(7, 1))
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-2)
        self.state = TrainState(config_hash="abc")
        self.epochs, self.total_steps = epochs, epochs * ROWS // BATCH
        self.seen: list[tuple[int, int]] = []
        self.residual = torch.zeros(3) if residual else None
        self.place = Place()
        rows = torch.Generator().manual_seed(5)
        self.x_RW = torch.randn(ROWS, WIDTH, generator=rows)
        self.y_R = self.x_RW.sum(dim=1).sin()

    def join(self, place: Place) -> None:
        self.place = place

    def steps(self) -> Iterator[StepResult]:
        while self.state.epoch < self.epochs:
            state = self.state
            order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(11 + state.epoch))
            batch = order[state.row : state.row + BATCH]
            torch.manual_seed(100 + state.step)
            noisy = self.x_RW[batch] + 0.01 * torch.randn(len(batch), WIDTH)
            loss = (self.module(noisy).squeeze(1) - self.y_R[batch]).square().mean()
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.seen += [(state.epoch, int(row)) for row in batch]
            if self.residual is not None:
                self.residual += loss.detach() * (1 + self.place.rank)
            epoch, ends = state.epoch, state.row + BATCH >= ROWS
            state.step, state.samples = state.step + 1, state.samples + BATCH
            state.row, state.epoch = (0, epoch + 1) if ends else (state.row + BATCH, epoch)
            state.extras["scale"] = 2.0**-state.step
            yield StepResult(state.step, epoch, len(batch), float(loss.detach()), ends)

    def evaluate(self, split: str) -> dict[str, float]:
        return {"loss": float(split == "train")}

    def tensors(self) -> dict[str, Tensor]:
        return named_tensors(self.module, self.optimizer)

    def local_tensors(self) -> dict[str, Tensor]:
        return {} if self.residual is None else {"residual": self.residual}

    def load(self, tensors: Mapping[str, Tensor], local: Sequence[Mapping[str, Tensor]], state: TrainState) -> None:
        load_named_tensors(self.module, self.optimizer, tensors)
        if self.residual is not None:
            self.residual = torch.stack([rank["residual"] for rank in local]).mean(dim=0)
        self.state = replace(state, metrics=dict(state.metrics), extras=dict(state.extras))

    def advance(self, steps: int) -> list[float]:
        """Losses of the next steps."""
        losses = []
        for result in self.steps():
            losses.append(result.loss)
            if len(losses) == steps:
                break
        return losses
