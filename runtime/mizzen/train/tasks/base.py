"""The Task: examples of a split, the inputs of some rows of them, and what is asked of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from mizzen.errors import UserError
from mizzen.models.shapes import DataShape
from mizzen.train.batches import Rows
from mizzen.train.tasks.objectives import Objective, objective_of
from mizzen_api.conditions import Reason
from mizzen_api.contract import SPLITS

if TYPE_CHECKING:
    import polars as pl

    from mizzen.data.pipeline import Pipeline

_DEVICE_SHARE = 0.3  # of a device's free memory that a split may take; beyond, batches are sent one by one


class RowsAtRest(Protocol):
    """A DatasetVersion, or what is as one."""

    @property
    def pipeline(self) -> Pipeline: ...

    def frame(self, split: str, columns: list[str] | None = None) -> pl.DataFrame:
        """Features in their compact form, and `label`."""


@dataclass(frozen=True)
class Examples:
    """One split in memory: columns of tensors with rows first, targets (N,) int64 of classes or float64."""

    columns: dict[str, Tensor]
    targets: Tensor
    lengths: Rows | None = None  # of texts: rows of like length meet in a batch

    def __len__(self) -> int:
        return len(self.targets)

    def head(self, fraction: float) -> Examples:
        """The first part of the rows; they lie in shuffled order, so it is a sample."""
        rows = max(1, round(len(self) * fraction))
        if rows == len(self):
            return self
        columns = {name: value[: rows + (name.endswith("indptr"))] for name, value in self.columns.items()}
        return Examples(columns, self.targets[:rows], None if self.lengths is None else self.lengths[:rows])

    def near(self, device: torch.device) -> Examples:
        """On the device, where it has room to spare."""
        if device.type != "cuda":
            return self
        size = sum(value.nbytes for value in self.columns.values())
        if size > _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
            return self
        columns = {name: value.to(device) for name, value in self.columns.items()}
        return Examples(columns, self.targets.to(device), self.lengths)


@dataclass(frozen=True)
class Sizes:
    """What a schedule may make smaller for a while; None is the data's own."""

    image_size: int | None = None
    sequence_length: int | None = None


WHOLE = Sizes()


class Task:
    """Rows of one dataset. `device` is where batches are wanted."""

    width_step = 1  # texts are padded to multiples of it: a compiled model meets fewer shapes

    def __init__(self, data: DataShape, load: Callable[[str], Examples], device: str = "cpu") -> None:
        self.data, self._load, self.device = data, load, torch.device(device)
        self._parts: dict[str, Examples] = {}

    def examples(self, split: str) -> Examples:
        """One of contract.SPLITS, read once."""
        if split not in self._parts:
            self._parts[split] = self._load(split).near(self.device)
        return self._parts[split]

    @cached_property
    def objective(self) -> Objective:
        return objective_of(self.data, self.examples(SPLITS[0]).targets)

    def batch(
        self, examples: Examples, rows: Rows, sizes: Sizes = WHOLE, *, training: bool
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs and targets of these rows, on the device."""
        picked_B = torch.from_numpy(rows).to(examples.targets.device)
        inputs = self.inputs(examples, rows, picked_B, sizes, training=training)
        targets = examples.targets[picked_B]
        if targets.device == self.device:
            return inputs, targets
        return tuple(part.to(self.device) for part in inputs), targets.to(self.device)

    def inputs(
        self, examples: Examples, rows: Rows, picked_B: Tensor, sizes: Sizes, *, training: bool
    ) -> tuple[Tensor, ...]:
        """What DataShape says that a model is called with. `rows` and `picked_B` are the same numbers."""
        raise NotImplementedError


def labels_of(frame: pl.DataFrame, data: DataShape) -> Tensor:
    """A copy: arrays over Arrow's buffers are read-only, which torch refuses to share."""
    from mizzen.data.store import LABEL

    return torch.from_numpy(np.array(frame[LABEL].to_numpy(), np.int64 if data.classes else np.float64))


def need_rows(split: str, frame: pl.DataFrame) -> None:
    if split == SPLITS[0] and not frame.height:
        raise UserError(Reason.SOURCE_EMPTY, "the train split has no rows: change the Dataset's split")
