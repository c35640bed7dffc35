"""Tables: one row of numbers for each example; sparse features are written out batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mizzen.data.pipeline import MATRIX, Arrays, arrays
from mizzen.data.steps.base import Feature
from mizzen.errors import UserError
from mizzen.models.inputs import missing, written_out
from mizzen.models.shapes import DataShape
from mizzen.train.batches import Rows
from mizzen.train.tasks.base import Examples, RowsAtRest, Sizes, Task, labels_of, need_rows
from mizzen_api.conditions import Reason


class TableTask(Task):
    """`features` (N, F) float32, and of each sparse feature a CSR matrix in three columns."""

    sparse: Sequence[Feature] = ()

    def inputs(
        self, examples: Examples, rows: Rows, picked_B: Tensor, sizes: Sizes, *, training: bool
    ) -> tuple[Tensor, ...]:
        columns = examples.columns
        parts = [columns[MATRIX][picked_B]] if MATRIX in columns else []
        for feature in self.sparse:
            parts.append(written_out(columns, feature, picked_B))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1),)


def table_task(dataset: RowsAtRest, data: DataShape, device: str = "cpu") -> TableTask:
    features = dataset.pipeline.features

    def load(split: str) -> Examples:
        frame = dataset.frame(split)
        need_rows(split, frame)
        made = arrays(frame, features)
        _no_gaps(made, features, split)
        columns = {name: torch.from_numpy(value) for name, value in made.items()}
        return Examples(columns, labels_of(frame, data))

    task = TableTask(data, load, device)
    task.sparse = [feature for feature in features if feature.kind == "sparse"]
    return task


def _no_gaps(made: Arrays, features: Sequence[Feature], split: str) -> None:
    """One missing number would make every weight a NaN."""
    if MATRIX not in made:
        return
    gaps = torch.isnan(torch.from_numpy(made[MATRIX])).sum(dim=0)
    for column in gaps.nonzero().flatten().tolist():
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"{missing(features, column)} is missing in {int(gaps[column])} of {len(made[MATRIX])} rows of the {split} "
            "split, and a model cannot read that: add an impute step for it to the Dataset",
        )
