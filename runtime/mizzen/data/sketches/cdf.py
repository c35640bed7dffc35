"""A distribution function as steps: what exact counts and quantile sketches both turn into when one asks them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mizzen.data.sketches.hashing import Numbers


@dataclass(frozen=True)
class Cdf:
    """`values` ascending and different, float64; `upto[i]` is the share of the rows at or below `values[i]`."""

    values: Numbers
    upto: Numbers

    @classmethod
    def of(cls, values: Numbers, weights: Numbers) -> Cdf:
        """From values in any order, repetitions allowed, and their weights."""
        order = np.argsort(values, kind="stable")
        ordered, total = values[order], np.cumsum(weights[order], dtype=np.float64)
        if not len(ordered):
            return cls(np.zeros(0), np.zeros(0))
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        return cls(ordered[last].astype(np.float64), total[last] / total[-1])

    def at(self, points: Numbers) -> Numbers:
        """Share of the rows at or below each point."""
        found: Numbers = np.append(0.0, self.upto)[np.searchsorted(self.values, points, side="right")]
        return found

    def quantile(self, shares: Numbers) -> Numbers:
        """The least value with at least that share of the rows at or below it. Shares are within 0..1."""
        index = np.searchsorted(self.upto, np.asarray(shares) - 1e-12, side="left")
        found: Numbers = self.values[np.minimum(index, len(self.values) - 1)]
        return found

    def clipped(self, low: float, high: float) -> Cdf:
        """The same rows with every value moved into low..high."""
        return Cdf.of(np.clip(self.values, low, high), np.diff(self.upto, prepend=0.0))

    @property
    def std(self) -> float:
        scale = float(np.abs(self.values).max()) or 1.0  # squares of what is near 1e308 have no value
        weights, values = np.diff(self.upto, prepend=0.0), self.values / scale
        mean = float((values * weights).sum())
        return scale * float(np.sqrt(((values - mean) ** 2 * weights).sum()))
