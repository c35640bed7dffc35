"""Which rows make which step: a pure function of seed and epoch, so a resumed or resized run sees the same batches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

POOL = 16  # batches that are sorted by length together: little padding, and the order stays random

Rows = np.ndarray[Any, Any]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    return math.ceil(rows / batch_size)


def epoch_batches(lengths: Rows, batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """Row numbers of every batch of one epoch. Rows of like length meet: trimmed batches hold little padding."""
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    batches: list[Rows] = []
    for start in range(0, len(order), batch_size * POOL):
        pool = order[start : start + batch_size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def share(batch: Rows, rank: int, world: int) -> Rows:
    """The rows of one rank. Interleaved: every rank gets short and long rows alike."""
    return batch[rank::world]


def micro_batches(rows: Rows, count: int) -> list[Rows]:
    """`count` slices for gradient accumulation, some of them empty where there are few rows."""
    return list(np.array_split(rows, count))
