"""KLL: quantiles of a stream within a stated error of the rank, in a size that hardly grows."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from mizzen.data.sketches.cdf import Cdf
from mizzen.data.sketches.hashing import Numbers, draw, one_of_each_block, pack, unpack

K = 512
# Share of the rows by which the rank of any one value may be wrong, in 99 of 100 cases; the tests measure it.
RANK_ERROR = 0.008
_SHRINK = 2 / 3  # capacity of a level against the one above it
_LEAST = 8
SORTED_AT_ONCE = 32768


class Kll:
    """Karnin, Lang, Liberty 2016: level h holds values that stand for 2^h rows each.

    Two things differ from the paper, for the sake of whole arrays. A chunk enters sorted, straight at the level where
    it needs K values. And of a chunk of more than SORTED_AT_ONCE rows one row of each block enters: sorting all would
    cost more than everything else in the profile, and the error that remains, 0.3 % for a single chunk, falls with
    each chunk. Coins are drawn from the state: the same chunks in the same order give the same bits.
    """

    def __init__(self, levels: list[Numbers] | None = None) -> None:
        self.levels = levels or []

    @classmethod
    def of(cls, values: Numbers) -> Kll:
        """From float64 values in any order, at most some 100,000s."""
        width = _block(len(values))
        rows = values[one_of_each_block(len(values), width)] if width > 1 else values
        return cls.of_sorted(np.sort(rows), width)

    @classmethod
    def of_sorted(cls, ordered: Numbers, each: int = 1) -> Kll:
        """From ascending values that stand for `each` rows, a power of two."""
        shift = max(0, math.ceil(math.log2(max(1, len(ordered)) / K)))
        base = each.bit_length() - 1
        kept = len(ordered) >> shift << shift
        seed = (
            draw(len(ordered), *ordered[[len(ordered) // 3, len(ordered) // 2]].view(np.int64).tolist()) if kept else 0
        )
        empty = ordered[:0]
        levels = [empty] * (base + shift + 1)
        # The remainder is the upper end: the values there stand for themselves.
        levels[base] = ordered[kept:]
        levels[base + shift] = np.concatenate((levels[base + shift], ordered[seed % (1 << shift) : kept : 1 << shift]))
        return cls(levels)

    @classmethod
    def of_counts(cls, values: Numbers, counts: Numbers) -> Kll:
        """From different values and how often each occurs; nothing is lost but what exceeds the size."""
        height = int(counts.max()).bit_length() if len(counts) else 0
        sketch = cls([values[(counts >> level) & 1 == 1].astype(np.float64) for level in range(height)])
        sketch._compress()
        return sketch

    def merge(self, other: Kll) -> None:
        """Take in another sketch. The order of merges decides the last bits, not the error."""
        height = max(len(self.levels), len(other.levels))
        empty = np.zeros(0)
        mine = self.levels + [empty] * (height - len(self.levels))
        others = other.levels + [empty] * (height - len(other.levels))
        self.levels = [np.concatenate(pair) if len(pair[1]) else pair[0] for pair in zip(mine, others, strict=True)]
        self._compress()

    @property
    def weight(self) -> int:
        """Rows that the values stand for."""
        return sum(len(level) << height for height, level in enumerate(self.levels))

    @property
    def size(self) -> int:
        return sum(map(len, self.levels))

    def cdf(self) -> Cdf:
        if not self.levels:
            return Cdf.of(np.zeros(0), np.zeros(0))
        weights = np.concatenate([np.full(len(level), 1 << height) for height, level in enumerate(self.levels)])
        return Cdf.of(np.concatenate(self.levels), weights)

    def _compress(self) -> None:
        while self.size > sum(capacities := _capacities(len(self.levels))):
            height = next(h for h, level in enumerate(self.levels) if len(level) > capacities[h])
            ordered = np.sort(self.levels[height])
            coin = draw(height, self.weight, self.size) & 3
            odd = len(ordered) % 2
            # With an odd number one stays: the least or the greatest, so that no side is favoured.
            stays, pairs = (ordered[:odd], ordered[odd:]) if coin & 2 else (ordered[len(ordered) - odd :], ordered)
            if height + 1 == len(self.levels):
                self.levels.append(ordered[:0])
            self.levels[height] = stays
            self.levels[height + 1] = np.concatenate(
                (self.levels[height + 1], pairs[: len(ordered) - odd][coin & 1 :: 2])
            )

    def to_json(self) -> list[str]:
        return [pack(np.sort(level)) for level in self.levels]

    @classmethod
    def from_json(cls, document: list[Any]) -> Kll:
        return cls([unpack(level, np.float64) for level in document])


@lru_cache(maxsize=64)
def _capacities(levels: int) -> tuple[int, ...]:
    """Values that each level may hold."""
    return tuple(max(_LEAST, math.ceil(K * _SHRINK ** (levels - 1 - height))) for height in range(levels))


def _block(rows: int) -> int:
    """Rows of which one enters: a power of two."""
    return 1 << max(0, (rows - 1) // SORTED_AT_ONCE).bit_length() if rows > SORTED_AT_ONCE else 1
