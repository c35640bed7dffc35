"""Small tasks and modules that the tests of the loop share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mizzen.models.building import Recipe
from mizzen.models.shapes import IMAGE, TABLE, DataShape
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen.train.tasks.base import Examples
from mizzen.train.tasks.image import ImageTask
from mizzen.train.tasks.table import TableTask

FEATURES, CLASSES = 6, ("a", "b", "c")
TABLE_SHAPE = DataShape(TABLE, CLASSES, num_features=FEATURES)


def rows(count: int = 300) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    x = torch.randn(count, FEATURES, generator=random)
    return x, (x @ torch.randn(FEATURES, len(CLASSES), generator=random)).argmax(dim=1)


def table_task(count: int = 300, broken_row: int | None = None) -> TableTask:
    """Separable rows; `broken_row` has a NaN."""
    x, y = rows(count)
    if broken_row is not None:
        x[broken_row, 0] = float("nan")
    return TableTask(TABLE_SHAPE, lambda _: Examples({"features": x}, y))


def image_task(count: int = 96) -> ImageTask:
    random = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 1, 12, 12), generator=random, dtype=torch.uint8)
    labels = (images.float().mean(dim=(1, 2, 3)) > 127).long()
    task = ImageTask(
        DataShape(IMAGE, ("dark", "light"), image=(1, 12, 12)), lambda _: Examples({"image": images}, labels)
    )
    task.mean, task.deviation = (0.5,), (0.25,)
    return task


def plan(**changes: Any) -> TrainPlan:
    return TrainPlan.from_dict(
        {
            "model": "mlp",
            "settings": {"hidden_dim": 8, "num_layers": 2, "dropout": 0.0},
            "dataset_uri": "",
            "dataset_fingerprint": "f",
            "learning_rate": 1e-2,
            "epochs": 2,
            "batch_size": 64,
            **changes,
        }
    )


class Greedy(nn.Module):
    """Runs out of memory with more rows than `most`; has a parameter that nothing uses."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.largest = most, 0
        self.linear = nn.Linear(FEATURES, len(CLASSES))
        self.unused = nn.Linear(2, 2)

    def forward(self, x_BF: Tensor) -> Tensor:
        if len(x_BF) > self.most and self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.largest = max(self.largest, len(x_BF))
        answer: Tensor = self.linear(x_BF)
        return answer


def greedy_loop(most: int, **changes: Any) -> Loop:
    torch.manual_seed(1)
    module = Greedy(most)
    return Loop(plan(**changes), task=table_task(), built=(Recipe(TABLE_SHAPE, entrypoint="toys:Greedy"), module))
