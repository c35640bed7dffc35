"""What is asked of a model: a class, or a number; loss and metrics of each."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from mizzen.models.shapes import DataShape


class Objective(Protocol):
    """Sums, not means: ranks add theirs up."""

    sums: int  # of a tally

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum over rows, fp32."""

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What metrics are made of, float64, summed over rows. The first is the loss."""

    def metrics(self, tally: list[float], targets: Tensor) -> dict[str, float]:
        """Of the sums over a whole split, and all its targets."""


class Classification:
    """Cross entropy; accuracy, and the rate of the most frequent class, which guessing reaches."""

    sums = 2

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs.float(), targets, reduction="sum")

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        right = (outputs.argmax(dim=-1) == targets).sum()
        return torch.stack([self.loss(outputs, targets).double(), right.double()])

    def metrics(self, tally: list[float], targets: Tensor) -> dict[str, float]:
        loss, right = tally
        rows = len(targets)
        majority = int(torch.bincount(targets).max())
        return {"accuracy": right / rows, "loss": loss / rows, "majority_rate": majority / rows}


class Regression:
    """Squared error of the standardised target; RMSE and MAE in the target's own unit, and R²."""

    sums = 3

    def __init__(self, mean: float = 0.0, deviation: float = 1.0) -> None:
        self.mean, self.deviation = mean, deviation or 1.0

    @classmethod
    def of(cls, targets: Tensor) -> Regression:
        """By the train split's mean and deviation."""
        return cls(float(targets.mean()), float(targets.std(correction=0)))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mse_loss(outputs.float().reshape(-1), self._standard(targets), reduction="sum")

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        error = (outputs.reshape(-1).double() - self._standard(targets).double()) * self.deviation
        return torch.stack([(error / self.deviation).square().sum(), error.square().sum(), error.abs().sum()])

    def metrics(self, tally: list[float], targets: Tensor) -> dict[str, float]:
        loss, squares, absolute = tally
        rows = len(targets)
        spread = float((targets.double() - targets.double().mean()).square().sum())
        found = {"rmse": math.sqrt(squares / rows), "mae": absolute / rows, "loss": loss / rows}
        return {**found, "r2": 1 - squares / spread} if spread else found

    def _standard(self, targets: Tensor) -> Tensor:
        return ((targets - self.mean) / self.deviation).float()


def objective_of(data: DataShape, targets: Tensor) -> Objective:
    """`targets` are those of the train split."""
    return Classification() if data.classes else Regression.of(targets)
