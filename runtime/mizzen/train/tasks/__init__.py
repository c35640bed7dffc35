"""What a dataset is to the loop: examples in memory, inputs of a batch, loss and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mizzen.train.tasks.base import RowsAtRest, Task


def task_of(dataset: RowsAtRest, device: str = "cpu") -> Task:
    """The task that the dataset's features and target make. UserError where they make none."""
    from mizzen.models.shapes import IMAGE, TEXT, DataShape
    from mizzen.train.tasks.image import image_task
    from mizzen.train.tasks.table import table_task
    from mizzen.train.tasks.text import text_task

    data = DataShape.of(dataset.pipeline)
    make = {TEXT: text_task, IMAGE: image_task}.get(data.modality, table_task)
    return make(dataset, data, device)
