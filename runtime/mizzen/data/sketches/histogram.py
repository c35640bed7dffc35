"""A histogram whose bins are fixed before the data is known: the multiples of a power of two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mizzen.data.sketches.hashing import Numbers, pack, unpack

BINS = 128
_FINEST, _COARSEST = -1000, 1019


class Histogram:
    """Counts of values in [i, i + 1) · 2^exponent, for at most BINS neighbouring i from `start` on.

    The exponent is the least with which all values fit. When the range grows, neighbouring bins are added up, exactly,
    so the state depends on the values alone, whatever the order of chunks and merges. Logarithmic bins (DDSketch) need
    no range either, but put all years, and all times of a decade, into one bin. Bins taken from a reference profile
    make the same data look different from one reference to the next; where tests need bins that fit a reference,
    they read them off its quantiles.
    """

    def __init__(self, exponent: int, start: int, counts: Numbers) -> None:
        self.exponent, self.start, self.counts = exponent, start, counts

    @classmethod
    def of(cls, values: Numbers, low: float, high: float, weights: Numbers | None = None) -> Histogram:
        """From finite float64 values between `low` and `high`, which occur; at least one."""
        exponent = _exponent(low, high)
        start = _bin(low, exponent)
        scaled = values * 2.0**-exponent
        if low < 0 and exponent > 0:
            scaled[(scaled == 0) & (values < 0)] = -1  # too small for a float now, but below zero all the same
        np.floor(scaled, out=scaled)
        scaled -= start
        counts = np.bincount(scaled.astype(np.int64), weights, minlength=_bin(high, exponent) - start + 1)
        return cls(exponent, start, counts.astype(np.int64))

    def merge(self, other: Histogram) -> None:
        exponent = max(self.exponent, other.exponent)
        low = min(self.start >> (exponent - self.exponent), other.start >> (exponent - other.exponent))
        high = max(self._last >> (exponent - self.exponent), other._last >> (exponent - other.exponent))
        while high - low >= BINS:
            exponent, low, high = exponent + 1, low >> 1, high >> 1
        counts = np.zeros(high - low + 1, np.int64)
        for one in (self, other):
            bins = [((one.start + i) >> (exponent - one.exponent)) - low for i in range(len(one.counts))]
            np.add.at(counts, bins, one.counts)
        self.exponent, self.start, self.counts = exponent, low, counts

    @property
    def _last(self) -> int:
        return self.start + len(self.counts) - 1

    @property
    def edges(self) -> Numbers:
        """One more than bins, float64."""
        bins = np.arange(self.start, self.start + len(self.counts) + 1, dtype=np.float64)
        with np.errstate(over="ignore"):  # the last edge may be beyond the greatest float
            edges: Numbers = np.ldexp(bins, self.exponent)
        return edges

    def to_json(self) -> dict[str, Any]:
        return {"exponent": self.exponent, "start": self.start, "counts": pack(self.counts)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Histogram:
        return cls(document["exponent"], document["start"], unpack(document["counts"], np.int64))


def _exponent(low: float, high: float) -> int:
    """The least exponent with which low..high fits, and with which bin numbers are exact in a float."""
    exponent = _FINEST
    for value in (low, high):
        if value:
            exponent = max(exponent, math.frexp(value)[1] - 52)
    if apart := high / BINS - low / BINS:
        exponent = max(exponent, math.frexp(apart)[1] - 2)
    while _bin(high, exponent) - _bin(low, exponent) >= BINS:
        exponent += 1
    assert exponent <= _COARSEST
    return exponent


def _bin(value: float, exponent: int) -> int:
    scaled = value * 2.0**-exponent
    return -1 if value < 0 and scaled == 0 else math.floor(scaled)
