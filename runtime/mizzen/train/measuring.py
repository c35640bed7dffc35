"""Metrics on a split: every rank takes some rows, sums meet at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mizzen.train import precision
from mizzen.train.batches import Rows, share

if TYPE_CHECKING:
    from mizzen.train.plan import TrainPlan
    from mizzen.train.step import Crew
    from mizzen.train.tasks.base import Examples, Task

BATCH = 512
PIXELS = BATCH * 3 * 64 * 64  # of all images of a batch


@torch.no_grad()
def tally(task: Task, crew: Crew, module: nn.Module, examples: Examples, plan: TrainPlan, limit: int) -> list[float]:
    """Sums over the split, see Objective.tally. `limit` is the most rows that fit into memory, 0 where unknown."""
    if not crew.alone:
        crew.strategy.align(crew.module)
    module.eval()
    totals = torch.zeros(task.objective.sums, dtype=torch.float64, device=task.device)
    for rows in _batches(examples, crew, min(_at_once(task), limit or BATCH)):
        # Without rows a rank still takes part, where every pass meets the other ranks.
        inputs, targets = task.batch(examples, rows if len(rows) else np.zeros(1, np.int64), training=False)
        with precision.autocast(plan.precision, task.device):
            outputs = module(*inputs)
        if len(rows):
            totals += task.objective.tally(outputs.float(), targets)
    if not crew.alone:
        crew.strategy.sum(totals)
    return list(totals.tolist())


def _at_once(task: Task) -> int:
    """Rows of a batch: fewer of large images, whose activations are large."""
    pixels = math.prod(task.data.image)
    return max(1, min(BATCH, PIXELS // pixels)) if pixels else BATCH


def _batches(examples: Examples, crew: Crew, size: int) -> Iterator[Rows]:
    """This rank's rows; those of like length together. In lockstep all ranks get equally many batches."""
    world = crew.place.world
    order = np.arange(len(examples)) if examples.lengths is None else np.argsort(examples.lengths, kind="stable")
    rows = share(order, crew.place.rank, world)
    most = math.ceil(len(examples) / world) if crew.strategy.lockstep else len(rows)
    for start in range(0, most, size):
        yield rows[start : start + size]
