"""Misra-Gries: the frequent values of a column, exact while there are few, with a bound on the error afterwards."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl

from mizzen.data.sketches.hashing import BUCKETS, Numbers, buckets_of, distinct_rows

CAPACITY = 512
_KEY_BYTES = 64


class Frequent:
    """Counts of at most CAPACITY values; a value's true count lies within counts[v] .. counts[v] + error.

    Misra, Gries 1982, merged by Agarwal et al. 2012: error ≤ rows / (CAPACITY + 1), and 0 while no more than CAPACITY
    values have occurred. No coins: merges depend on their order only in how much of the bound they use.
    """

    def __init__(self, counts: dict[str, int] | None = None, rows: int = 0, error: int = 0) -> None:
        self.counts, self.rows, self.error = counts or {}, rows, error

    @classmethod
    def of(cls, values: pl.Series, hashes: Numbers) -> Frequent:
        """From strings without nulls and their hashes."""
        rows = len(hashes)
        sizes = np.bincount(buckets_of(hashes), minlength=BUCKETS)
        # A value is at most as frequent as its bucket: only rows of the CAPACITY largest buckets need to be looked at.
        cut = _size_of_rank(sizes, CAPACITY + 1, rows)
        if cut:
            chosen = np.flatnonzero((sizes > cut)[buckets_of(hashes)])
            values, hashes = values.gather(chosen), hashes[chosen]
        found = distinct_rows(hashes, most=rows)
        assert found is not None
        return cls.of_counts(values.gather(found[0]), found[1], rows, cut)

    @classmethod
    def of_counts(cls, values: pl.Series, counts: Numbers, rows: int, cut: int = 0) -> Frequent:
        """From different strings, how often each occurs, and `cut`, which no string left out exceeds."""
        sketch = cls({}, rows)
        if len(counts) > CAPACITY:  # so many texts need not be looked at one by one
            cut = max(cut, int(np.partition(counts, -CAPACITY - 1)[-CAPACITY - 1]))
            values, counts = values.filter(counts > cut), counts[counts > cut]
        for text, count in zip(values.to_list(), counts.tolist(), strict=True):
            key = key_of(text)
            sketch.counts[key] = sketch.counts.get(key, 0) + count
        if cut:
            sketch._subtract(cut)
        sketch._shrink()
        return sketch

    def merge(self, other: Frequent) -> None:
        for value, count in other.counts.items():
            self.counts[value] = self.counts.get(value, 0) + count
        self.rows += other.rows
        self.error += other.error
        self._shrink()

    @property
    def exact(self) -> bool:
        return self.error == 0

    def estimates(self) -> dict[str, int]:
        """Likely counts, largest first. What is frequent throughout has lost the whole error, and gets it back."""
        kept = sum(self.counts.values())
        back = min(self.error, (self.rows - kept) // max(1, len(self.counts)))
        return {v: c + back for v, c in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))}

    def _shrink(self) -> None:
        if len(self.counts) > CAPACITY:
            self._subtract(sorted(self.counts.values(), reverse=True)[CAPACITY])

    def _subtract(self, count: int) -> None:
        self.counts = {value: own - count for value, own in self.counts.items() if own > count}
        self.error += count

    def to_json(self) -> dict[str, Any]:
        return {"counts": self.estimates() if self.exact else self._sorted(), "rows": self.rows, "error": self.error}

    def _sorted(self) -> dict[str, int]:
        return dict(sorted(self.counts.items(), key=lambda item: (-item[1], item[0])))

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Frequent:
        return cls(dict(document["counts"]), document["rows"], document["error"])


def key_of(text: str) -> str:
    """The text itself, or, where it is long, its beginning and a digest: a profile must stay small."""
    encoded = text.encode()
    if len(encoded) <= _KEY_BYTES:
        return text
    digest = hashlib.blake2b(encoded, digest_size=6).hexdigest()
    return f"{encoded[: _KEY_BYTES - 16].decode(errors='ignore')}… {digest}"


def _size_of_rank(sizes: Numbers, rank: int, rows: int) -> int:
    """The rank-th largest size. It is at most rows / rank, so counting sizes up to there is enough: no sorting."""
    most = rows // rank + 1
    having = np.bincount(np.minimum(sizes, most), minlength=most + 1)
    at_least = np.cumsum(having[::-1])[::-1]
    return int(np.flatnonzero(at_least >= rank)[-1])
