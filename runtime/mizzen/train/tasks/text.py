"""Texts: token ids, cut to the longest of the batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mizzen.data.store import LABEL
from mizzen.models.shapes import DataShape
from mizzen.train.batches import Rows
from mizzen.train.tasks.base import Examples, RowsAtRest, Sizes, Task, labels_of, need_rows


class TextTask(Task):
    """`ids` (N, max_length) int32 and `lengths` (N,) int32."""

    def inputs(
        self, examples: Examples, rows: Rows, picked_B: Tensor, sizes: Sizes, *, training: bool
    ) -> tuple[Tensor, ...]:
        assert examples.lengths is not None
        width = -(-int(examples.lengths[rows].max()) // self.width_step) * self.width_step
        width = min(width, self.data.max_length)
        lengths_B = examples.columns["lengths"][picked_B]
        if training and sizes.sequence_length is not None and sizes.sequence_length < width:
            width = sizes.sequence_length
            lengths_B = lengths_B.clamp(max=width)
        return examples.columns["ids"][:, :width][picked_B].long(), lengths_B


def text_task(dataset: RowsAtRest, data: DataShape, device: str = "cpu") -> TextTask:
    (name,) = dataset.pipeline.tokens.columns

    def load(split: str) -> Examples:
        frame = dataset.frame(split, [name, f"{name}_length", LABEL])
        need_rows(split, frame)
        ids = np.array(frame[name].explode().to_numpy(), np.int32).reshape(-1, data.max_length)[: frame.height]
        lengths = np.array(frame[f"{name}_length"].to_numpy(), np.int32)
        columns = {"ids": torch.from_numpy(ids), "lengths": torch.from_numpy(lengths)}
        return Examples(columns, labels_of(frame, data), lengths)

    return TextTask(data, load, device)
