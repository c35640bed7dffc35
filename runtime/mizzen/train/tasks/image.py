"""Images: bytes in memory; augmented, resized and brought to the standard form batch by batch, on the device."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mizzen.data.steps.image import Pixels
from mizzen.data.store import LABEL
from mizzen.models.shapes import DataShape
from mizzen.train.batches import Rows
from mizzen.train.tasks.augment import augmented
from mizzen.train.tasks.base import Examples, RowsAtRest, Sizes, Task, labels_of, need_rows


class ImageTask(Task):
    """`image` (N, C, H, W) uint8, or float32 that is in its standard form already."""

    augment: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()  # of the channels, where 255 is 1; empty: images are 0..1
    deviation: tuple[float, ...] = ()

    def inputs(
        self, examples: Examples, rows: Rows, picked_B: Tensor, sizes: Sizes, *, training: bool
    ) -> tuple[Tensor, ...]:
        picked = examples.columns["image"][picked_B].to(self.device)
        x_BCHW = picked.float().div_(255) if picked.dtype == torch.uint8 else picked
        if training:
            x_BCHW = augmented(x_BCHW, self.augment)
            x_BCHW = _resized(x_BCHW, sizes.image_size)
        if self.mean:
            mean_1C11, deviation_1C11 = self._moments
            x_BCHW = (x_BCHW - mean_1C11) / deviation_1C11
        return (x_BCHW,)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """On the device once, for each transfer waits for all that is under way there."""
        mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.deviation))
        return mean.to(self.device), deviation.to(self.device)


def image_task(dataset: RowsAtRest, data: DataShape, device: str = "cpu") -> ImageTask:
    (feature,) = (one for one in dataset.pipeline.features if one.kind == "image")

    def load(split: str) -> Examples:
        frame = dataset.frame(split, [feature.name, LABEL])
        need_rows(split, frame)
        flat = np.array(frame[feature.name].explode().to_numpy(), np.uint8).reshape(-1, *feature.shape)[: frame.height]
        columns = {"image": torch.from_numpy(flat).permute(0, 3, 1, 2).contiguous()}
        return Examples(columns, labels_of(frame, data))

    task = ImageTask(data, load, device)
    task.mean, task.deviation = feature.mean, feature.deviation
    steps = [step for step in dataset.pipeline.steps if isinstance(step, Pixels) and feature.name in step.columns]
    task.augment = steps[-1].augment if steps else ()
    return task


def _resized(x_BCHW: Tensor, size: int | None) -> Tensor:
    """The longer side becomes `size`."""
    height, width = x_BCHW.shape[2:]
    if size is None or size >= max(height, width):
        return x_BCHW
    scale = size / max(height, width)
    wanted = (max(1, round(height * scale)), max(1, round(width * scale)))
    return interpolate(x_BCHW, wanted, mode="bilinear", antialias=True, align_corners=False)
