"""What a user may give to `fit` as a dataset, as the loop takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mizzen.data.pipeline import MATRIX, Pipeline
from mizzen.data.sdk import DataPipeline, ProcessedData
from mizzen.data.steps.base import Feature, Target
from mizzen.data.store import LABEL, DatasetVersion
from mizzen.errors import UserError
from mizzen.models.shapes import IMAGE, TABLE, DataShape
from mizzen.train import accelerators
from mizzen.train.tasks import task_of
from mizzen.train.tasks.base import Examples, RowsAtRest, Task
from mizzen.train.tasks.image import ImageTask
from mizzen.train.tasks.table import TableTask
from mizzen_api.conditions import Reason
from mizzen_api.contract import SPLITS

if TYPE_CHECKING:
    import polars as pl

_PARTS = (0.8, 0.9)  # of arrays: where validation and test begin


@dataclass(frozen=True)
class Given:
    """A dataset. `rows` has no frames where it came as arrays; its task has them."""

    shape: DataShape
    make: Callable[[str], Task]  # for a device
    rows: RowsAtRest | None
    uri: str = ""  # of a dataset version
    fingerprint: str = ""

    def task(self, accelerator: str) -> Task:
        return self.make(str(accelerators.device(accelerators.select(accelerator))))


def given(dataset: Any, seed: int) -> Given:
    """UserError where it is nothing that one can train on."""
    if isinstance(dataset, DataPipeline):
        dataset = dataset.fit_transform()
    if isinstance(dataset, str | Path):
        dataset = DatasetVersion(str(dataset))
    if isinstance(dataset, DatasetVersion):
        uri, fingerprint = str(dataset.folder), dataset.manifest.get("fingerprint", "")
        return _at_rest(dataset, uri, fingerprint)
    if isinstance(dataset, ProcessedData):
        return _at_rest(_Processed(dataset), "", dataset.fingerprint)
    if isinstance(dataset, tuple) and len(dataset) == 2:
        return _arrays(*dataset, seed)
    raise UserError(
        Reason.INVALID_PARAMETERS,
        "dataset must be what DataPipeline makes, the path of a dataset version, or arrays (x, y), not a "
        f"{type(dataset).__name__}",
    )


class _Processed:
    """Features in memory behind the interface of those at rest."""

    def __init__(self, data: ProcessedData) -> None:
        self._data, self.pipeline = data, data.pipeline

    def frame(self, split: str, columns: list[str] | None = None) -> pl.DataFrame:
        stored = self._data.stored(split)
        return stored.select(columns) if columns else stored


class _Columns:
    """Arrays of a table have a pipeline too: columns x0, x1, ... as they are."""

    def __init__(self, pipeline: Pipeline, parts: Mapping[str, Examples]) -> None:
        self.pipeline, self._parts = pipeline, parts

    def frame(self, split: str, columns: list[str] | None = None) -> pl.DataFrame:
        import polars as pl

        part = self._parts[split]
        frame = pl.from_numpy(part.columns[MATRIX].numpy(), schema=list(self.pipeline.columns))
        whole = frame.with_columns(pl.Series(LABEL, part.targets.numpy()))
        return whole.select(columns) if columns else whole


def _at_rest(rows: RowsAtRest, uri: str, fingerprint: str) -> Given:
    return Given(DataShape.of(rows.pipeline), lambda device: task_of(rows, device), rows, uri, fingerprint)


def _arrays(x: Any, y: Any, seed: int) -> Given:
    inputs, (targets, classes) = torch.as_tensor(np.asarray(x)), _targets(y)
    if len(inputs) != len(targets) or inputs.dim() not in (2, 4) or len(inputs) < 3:
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"x must be (rows, features) or (rows, channels, height, width) and y (rows,), with 3 rows or more; x is "
            f"{tuple(inputs.shape)}, y {tuple(targets.shape)}",
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(inputs)))
    ends = [0, *(max(1, round(part * len(order))) for part in _PARTS), len(order)]
    name = MATRIX if inputs.dim() == 2 else "image"
    if inputs.dtype != torch.uint8 or name == MATRIX:
        inputs = inputs.float()
    parts = {
        split: Examples({name: inputs[order[start:end]]}, targets[order[start:end]])
        for split, start, end in zip(SPLITS, ends[:-1], ends[1:], strict=True)
    }
    if inputs.dim() == 4:
        channels, height, width = inputs.shape[1:]
        data = DataShape(IMAGE, classes, image=(channels, height, width))
        return Given(data, lambda device: ImageTask(data, parts.__getitem__, device), None)
    data = DataShape(TABLE, classes, num_features=inputs.shape[1])
    columns = tuple(f"x{number}" for number in range(data.num_features))
    pipeline = Pipeline(dict.fromkeys(columns, "Float64"), (), Target("y", classes), tuple(map(Feature, columns)))
    return Given(data, lambda device: TableTask(data, parts.__getitem__, device), _Columns(pipeline, parts))


def _targets(y: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Floating-point numbers are values; everything else is a class."""
    values = np.asarray(y)
    if values.ndim == 1 and values.dtype.kind == "f":
        return torch.from_numpy(values.astype(np.float64)), ()
    if values.ndim != 1 or values.dtype.kind not in "biuUSO":
        return torch.as_tensor(values), ()
    classes, codes = np.unique(values, return_inverse=True)
    return torch.from_numpy(codes.astype(np.int64)), tuple(str(name) for name in classes)
