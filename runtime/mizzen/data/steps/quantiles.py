"""Quantiles that steps are fitted by: exact for some ten thousand rows, within a few hundredths of a percent beyond.

Levels of values that stand for 2^level rows each, as in KLL (Karnin, Lang, Liberty 2016), but large, and halved by a
fixed rule instead of a coin: a fit must not depend on chance. Profiles have a smaller sketch, for they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

CAPACITY = 8192  # values of a level

Numbers = np.ndarray[Any, Any]


class QuantileSketch:
    """float64 values of a column without the missing ones. Merged in the order of the chunks."""

    def __init__(self, levels: Sequence[Numbers] = (), turn: int = 0) -> None:
        self._levels = list(levels)
        self._turn = turn  # which half the next halving keeps: they alternate, so that errors cancel

    def update(self, values: Numbers) -> None:
        """Take values in any order."""
        ordered = np.sort(values)
        level = 0
        while len(ordered) > 4 * CAPACITY:
            ordered, rest = self._halved(ordered)
            self._put(level, rest)
            level += 1
        self._put(level, ordered)
        self._shrink()

    def merge(self, other: Self) -> None:
        for level, values in enumerate(other._levels):
            self._put(level, values)
        self._shrink()

    def add_repeated(self, value: float, times: int) -> None:
        """The same value many times."""
        for level in range(times.bit_length()):
            if times >> level & 1:
                self._put(level, np.array([value]))
        self._shrink()

    def copy(self) -> Self:
        return type(self)(self._levels, self._turn)

    def mapped(self, change: Callable[[Numbers], Numbers]) -> Self:
        """Of the changed values; `change` keeps their order."""
        return type(self)([change(values) for values in self._levels], self._turn)

    def quantiles(self, q: Sequence[float]) -> Numbers:
        """At the given shares, between neighbours by a straight line, as numpy's default has it."""
        if len(self._levels) == 1:
            return np.asarray(np.quantile(self._levels[0], q))
        values = np.concatenate(self._levels)
        weights = np.concatenate([np.full(len(v), 1 << level) for level, v in enumerate(self._levels)])
        order = np.argsort(values, kind="stable")
        values, weights = values[order], weights[order]
        places = np.cumsum(weights) - (weights + 1) / 2  # the middle of the rows that a value stands for
        return np.asarray(np.interp(np.asarray(q) * (weights.sum() - 1), places, values))

    def _put(self, level: int, values: Numbers) -> None:
        while len(self._levels) <= level:
            self._levels.append(np.zeros(0))
        self._levels[level] = np.concatenate((self._levels[level], values)) if len(values) else self._levels[level]

    def _shrink(self) -> None:
        level = 0
        while level < len(self._levels):
            if len(self._levels[level]) > 4 * CAPACITY:
                upper, rest = self._halved(np.sort(self._levels[level]))
                self._levels[level] = rest
                self._put(level + 1, upper)
            level += 1

    def _halved(self, ordered: Numbers) -> tuple[Numbers, Numbers]:
        """Every other value, and the one that has no partner."""
        odd = len(ordered) % 2
        self._turn ^= 1
        return ordered[: len(ordered) - odd][self._turn :: 2], ordered[len(ordered) - odd :]
