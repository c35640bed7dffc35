"""Which rows make which step: a pure function of seed, epoch and position, whatever group and batch size are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

POOL = 16  # largest batches that are sorted by length together: little padding, and the order stays random

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Order:
    """The rows of one epoch in the order of their use; a step takes `rows[row : row + batch_size]`.

    Where rows have lengths, neighbours have like ones: batches that are cut to their longest row hold little padding.
    Lengths are alike within blocks of the largest batch, whose parts of the smallest are shuffled, so that batches of
    all sizes between meet short and long rows in a random order.
    """

    smallest: int
    largest: int

    def rows(self, count: int, lengths: Rows | None, seed: int, epoch: int) -> Rows:
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(count)
        if lengths is None:
            return order
        pool = self.largest * POOL
        blocks: list[Rows] = []
        for start in range(0, count, pool):
            part = order[start : start + pool]
            blocks += _cut(part[np.argsort(lengths[part], kind="stable")], self.largest)
        shuffled = _shuffled(blocks, random)
        if self.smallest < self.largest:
            shuffled = [np.concatenate(_shuffled(_cut(block, self.smallest), random)) for block in shuffled]
        return np.concatenate(shuffled)


def _cut(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _shuffled(blocks: list[Rows], random: np.random.Generator) -> list[Rows]:
    """A block that is not whole stays the last: those before it begin where batches begin."""
    whole = blocks if len(blocks[-1]) == len(blocks[0]) else blocks[:-1]
    return [whole[at] for at in random.permutation(len(whole))] + blocks[len(whole) :]


def share(batch: Rows, rank: int, world: int) -> Rows:
    """The rows of one rank. Interleaved: every rank gets short and long rows alike."""
    return batch[rank::world]


def micro_batches(rows: Rows, count: int) -> list[Rows]:
    """`count` slices for gradient accumulation, some of them empty where there are few rows."""
    return list(np.array_split(rows, count))
