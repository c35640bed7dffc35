"""A column of numbers: exact counts while it has few different values, and sketches of fixed size afterwards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mizzen.data.sketches.cdf import Cdf
from mizzen.data.sketches.hashing import Numbers, distinct_rows, hash_numbers
from mizzen.data.sketches.histogram import Histogram
from mizzen.data.sketches.hyperloglog import HyperLogLog
from mizzen.data.sketches.kll import Kll

EXACT = 256  # different values of which each is counted
_COUNTABLE = 1 << 16  # values on a grid of so few points are counted in an array
_HEAD = 1024  # of a chunk: tells most columns that have no grid at once
_DTYPES = {"i": np.int64, "u": np.uint64, "f": np.float64}


class Values:
    """Each different value, ascending, and how often it occurs."""

    def __init__(self, values: Numbers, counts: Numbers) -> None:
        self.values, self.counts = values, counts

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    def merge(self, other: Values) -> None:
        values = np.concatenate((self.values, other.values))
        self.values, places = np.unique(values, return_inverse=True)
        counts = np.zeros(len(self.values), np.int64)
        np.add.at(counts, places, np.concatenate((self.counts, other.counts)))
        self.counts = counts

    def moments(self) -> tuple[float, float]:
        """Mean, and sum of squared deviations from it."""
        values = self.values.astype(np.float64)
        mean = float((values * self.counts).sum() / self.counts.sum())
        return mean, float(((values - mean) ** 2 * self.counts).sum())


class Summary:
    """What is kept of many different values: all parts merge, and none grows."""

    def __init__(
        self, rows: int, mean: float, m2: float, kll: Kll, histogram: Histogram, distinct: HyperLogLog
    ) -> None:
        self.rows, self.mean, self.m2 = rows, mean, m2
        self.kll, self.histogram, self.distinct = kll, histogram, distinct

    @classmethod
    def of_values(cls, exact: Values) -> Summary:
        values = exact.values.astype(np.float64)
        distinct = HyperLogLog()
        distinct.add(hash_numbers(exact.values))
        histogram = Histogram.of(values, float(values[0]), float(values[-1]), exact.counts)
        return cls(exact.rows, *exact.moments(), Kll.of_counts(values, exact.counts), histogram, distinct)

    @classmethod
    def of(cls, raw: Numbers, hashes: Numbers, low: float, high: float) -> Summary:
        values = raw.astype(np.float64, copy=False)
        distinct = HyperLogLog()
        distinct.add(hashes)
        mean = float(values.sum() / len(values))
        deviations = values - mean
        deviations *= deviations
        histogram = Histogram.of(values, low, high)
        return cls(len(values), mean, float(deviations.sum()), Kll.of(values), histogram, distinct)

    def merge(self, other: Summary) -> None:
        """Moments by Chan, Golub, LeVeque 1979."""
        rows, apart = self.rows + other.rows, other.mean - self.mean
        self.m2 += other.m2 + apart * apart * self.rows * other.rows / rows
        self.mean += apart * other.rows / rows
        self.rows = rows
        self.kll.merge(other.kll)
        self.histogram.merge(other.histogram)
        self.distinct.merge(other.distinct)


class NumberSketch:
    """Finite numbers of one type (int64, uint64 or float64): range, moments, quantiles, histogram, cardinality."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.low: float = math.inf  # an int where the column holds integers
        self.high: float = -math.inf
        self.values: Values | None = Values(np.zeros(0, _DTYPES[kind]), np.zeros(0, np.int64))
        self.summary: Summary | None = None

    @classmethod
    def of(cls, raw: Numbers) -> NumberSketch:
        """From finite int64, uint64 or float64 values of one chunk, in the chunk's order."""
        sketch = cls(raw.dtype.kind)
        if not len(raw):
            return sketch
        if sketch.kind == "f":
            raw = raw + 0.0  # negative zero becomes zero: sorting might leave the two in any order
        sketch.low, sketch.high = raw.min().item(), raw.max().item()
        with np.errstate(over="ignore", invalid="ignore"):  # moments of numbers near 1e308 have no value
            counted = sketch._count_on_grid(raw)
            hashes = hash_numbers(raw) if counted is None else None
            if hashes is not None and (found := distinct_rows(hashes, EXACT)):
                values = raw[found[0]]
                order = np.argsort(values)
                counted = Values(values[order], found[1][order])
            if counted is not None:
                sketch.values = counted
                sketch._settle()
            else:
                assert hashes is not None
                summary = Summary.of(raw, hashes, float(sketch.low), float(sketch.high))
                sketch.values, sketch.summary = None, summary
        return sketch

    @classmethod
    def of_counts(cls, raw: Numbers, counts: Numbers) -> NumberSketch:
        """As `of`, from int64 values, repetitions allowed, and how often each occurs."""
        sketch = cls(raw.dtype.kind)
        if len(raw):
            sketch.low, sketch.high = raw.min().item(), raw.max().item()
            sketch.values = Values(raw[:0], counts[:0])
            sketch.values.merge(Values(raw, counts))
            sketch._settle()
        return sketch

    def _count_on_grid(self, raw: Numbers) -> Values | None:
        """The values, where they lie on a grid: integers in a small range, whole floats, times of full hours."""
        width = self.high - self.low
        if self.kind == "f" and (not width < _COUNTABLE or self.low % 1 or (raw[:_HEAD] % 1).any()):
            return None
        if width >= 2**62:
            return None
        offsets = raw - raw.dtype.type(self.low)
        step = 1 if width < _COUNTABLE else int(np.gcd.reduce(offsets[:_HEAD].astype(np.int64)))
        if width >= _COUNTABLE * step:
            return None
        places = offsets.astype(np.int64)
        if step > 1:
            places //= step
        if (self.kind == "f" or step > 1) and (places * step != offsets).any():
            return None
        sizes = np.bincount(places)
        taken = np.flatnonzero(sizes)
        return Values((taken * step).astype(raw.dtype) + raw.dtype.type(self.low), sizes[taken])

    def _settle(self) -> None:
        if len(self._exact.values) > EXACT:
            self.values, self.summary = None, Summary.of_values(self._exact)

    def merge(self, other: NumberSketch) -> None:
        if not other.rows:
            return
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.values is not None and other.values is not None:
                self.values.merge(other.values)
                self._settle()
                return
            theirs = other.summary or Summary.of_values(other._exact)
            if not self.rows:
                self.values, self.summary = None, _copy(theirs)
                return
            self.summary = self.summary or Summary.of_values(self._exact)
            self.values = None
            self.summary.merge(theirs)

    @property
    def _exact(self) -> Values:
        assert self.values is not None
        return self.values

    @property
    def rows(self) -> int:
        return self._exact.rows if self.summary is None else self.summary.rows

    @property
    def exact(self) -> bool:
        return self.summary is None

    @property
    def mean(self) -> float:
        if not self.rows:
            return math.nan
        return self._exact.moments()[0] if self.summary is None else self.summary.mean

    @property
    def std(self) -> float:
        """Sample standard deviation."""
        if self.rows < 2:
            return math.nan
        m2 = self._exact.moments()[1] if self.summary is None else self.summary.m2
        return math.sqrt(m2 / (self.rows - 1))

    @property
    def distinct(self) -> float:
        return len(self._exact.values) if self.summary is None else self.summary.distinct.estimate()

    def cdf(self) -> Cdf:
        if self.summary is None:
            return Cdf.of(self._exact.values, self._exact.counts)
        cdf = self.summary.kll.cdf()
        # The ends are known exactly; the sketch may have dropped them.
        values, upto = cdf.values, cdf.upto
        if values[0] > self.low:
            values, upto = np.append(float(self.low), values), np.append(0.0, upto)
        if values[-1] < self.high:
            values, upto = np.append(values, float(self.high)), np.append(upto, 1.0)
        return Cdf(values, upto)

    def histogram(self) -> Histogram | None:
        """None where there are no rows."""
        if self.summary is not None:
            return self.summary.histogram
        if not self.rows:
            return None
        return Histogram.of(self._exact.values.astype(np.float64), self.low, self.high, self._exact.counts)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"kind": self.kind}
        if self.rows:
            document |= {"min": self.low, "max": self.high}
        if self.summary is None:
            return document | {"values": self._exact.values.tolist(), "counts": self._exact.counts.tolist()}
        s = self.summary
        return document | {
            "rows": s.rows,
            "mean": s.mean if math.isfinite(s.mean) else None,
            "m2": s.m2 if math.isfinite(s.m2) else None,
            "quantiles": s.kll.to_json(),
            "histogram": s.histogram.to_json(),
            "distinct": s.distinct.to_json(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> NumberSketch:
        sketch = cls(document["kind"])
        sketch.low, sketch.high = document.get("min", math.inf), document.get("max", -math.inf)
        if "values" in document:
            values = np.array(document["values"], _DTYPES[sketch.kind])
            sketch.values = Values(values, np.array(document["counts"], np.int64))
            return sketch
        sketch.values, sketch.summary = None, _summary(document)
        return sketch


def _summary(document: dict[str, Any]) -> Summary:
    return Summary(
        document["rows"],
        math.nan if document["mean"] is None else document["mean"],
        math.nan if document["m2"] is None else document["m2"],
        Kll.from_json(document["quantiles"]),
        Histogram.from_json(document["histogram"]),
        HyperLogLog.from_json(document["distinct"]),
    )


def _copy(s: Summary) -> Summary:
    """So that merging into an empty sketch shares nothing with the other."""
    histogram = Histogram(s.histogram.exponent, s.histogram.start, s.histogram.counts.copy())
    return Summary(s.rows, s.mean, s.m2, Kll(list(s.kll.levels)), histogram, HyperLogLog(s.distinct.registers.copy()))
