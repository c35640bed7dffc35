"""Steps on numbers. What they learn comes from one set of statistics for each column, which steps pass on exactly.

A fitted step says what the column's statistics are behind it (`push`), so that a chain of steps on one column is
fitted in a single pass over the data. Only behind a cut at a quantile the mean is not known: there a pass ends.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from mizzen.data.steps.base import Fitted, Step
from mizzen.data.steps.quantiles import QuantileSketch
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_transforms import Bucketize, Clip, Scale

if TYPE_CHECKING:
    import polars as pl

RANKS = 1001  # knots of the quantile method, as scikit-learn's QuantileTransformer has


@dataclass(frozen=True)
class NumberStats:
    """Count, moments, range and quantiles of one column's train rows; missing values are counted apart."""

    count: int
    missing: int
    mean: float
    m2: float  # sum of squared distances from the mean
    low: float
    high: float
    sketch: QuantileSketch

    @property
    def deviation(self) -> float:
        """Of the population, as scikit-learn's scalers take it."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0

    def quantile(self, q: Sequence[float]) -> list[float]:
        return [float(value) for value in self.sketch.quantiles(q)] if self.count else [0.0] * len(q)

    def merge(self, other: NumberStats) -> NumberStats:
        """Both together; the order matters in the last bits, so chunks are merged in their order."""
        count = self.count + other.count
        delta = other.mean - self.mean
        share = other.count / count if count else 0.0
        self.sketch.merge(other.sketch)
        return NumberStats(
            count,
            self.missing + other.missing,
            self.mean + delta * share,
            self.m2 + other.m2 + delta * delta * self.count * share,
            min(self.low, other.low),
            max(self.high, other.high),
            self.sketch,
        )

    def filled(self, value: float) -> NumberStats:
        """Once the missing values are `value`."""
        if not self.missing:
            return self
        sketch = self.sketch.copy()
        sketch.add_repeated(value, self.missing)
        fill = NumberStats(self.missing, 0, value, 0.0, value, value, QuantileSketch())
        merged = replace(self, missing=0, sketch=QuantileSketch()).merge(fill)
        return replace(merged, sketch=sketch)

    def moved(self, shift: float, factor: float) -> NumberStats:
        """Of (x - shift) × factor, with a factor above 0."""
        return NumberStats(
            self.count, self.missing, (self.mean - shift) * factor, self.m2 * factor * factor,
            (self.low - shift) * factor, (self.high - shift) * factor,
            self.sketch.mapped(lambda x: (x - shift) * factor),
        )  # fmt: skip


def empty_stats() -> NumberStats:
    return NumberStats(0, 0, 0.0, 0.0, math.inf, -math.inf, QuantileSketch())


def as_floats(frame: pl.DataFrame, name: str) -> pl.Expr:
    """The column as float64, NaN as missing; integers have none to look for."""
    import polars as pl

    column = pl.col(name).cast(pl.Float64)
    return column if frame.schema[name].is_integer() else column.fill_nan(None)


def measure(
    frame: pl.DataFrame, columns: Sequence[str], ranked: Collection[str] | None = None
) -> dict[str, NumberStats]:
    """The statistics of one chunk: one query for all columns. Quantiles cost a sort: only for `ranked`, if given."""
    import polars as pl

    if not columns:
        return {}
    values = frame.select(as_floats(frame, name) for name in columns)
    asked = []
    for name in columns:
        column = pl.col(name)
        asked += [
            column.count().alias(f"{name} n"), column.mean().alias(f"{name} m"), column.min().alias(f"{name} l"),
            column.max().alias(f"{name} h"), (column - column.mean()).pow(2).sum().alias(f"{name} s"),
        ]  # fmt: skip
    found = values.select(asked).row(0, named=True)
    result = {}
    for name in columns:
        count = found[f"{name} n"]
        sketch = QuantileSketch()
        if not count:
            result[name] = replace(empty_stats(), missing=frame.height)
            continue
        if ranked is None or name in ranked:
            sketch.update(values[name].drop_nulls().to_numpy())
        result[name] = NumberStats(
            count, frame.height - count, found[f"{name} m"], found[f"{name} s"], found[f"{name} l"], found[f"{name} h"],
            sketch,
        )  # fmt: skip
        if not math.isfinite(result[name].low) or not math.isfinite(result[name].high):
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"the column {name!r} holds an infinite value, which no scale can take: clean it, or leave it out",
            )
    return result


@dataclass(frozen=True)
class Moved(Fitted):
    """(x - shift) × factor as float32."""

    KIND: ClassVar[str] = "move"

    shift: tuple[float, ...] = ()
    factor: tuple[float, ...] = ()

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        return frame.with_columns(
            ((as_floats(frame, name) - shift) * factor).cast(pl.Float32)
            for name, shift, factor in zip(self.columns, self.shift, self.factor, strict=True)
        )

    def push(self, name: str, stats: NumberStats) -> NumberStats | None:
        index = self.columns.index(name)
        return stats.moved(self.shift[index], self.factor[index])


@dataclass(frozen=True)
class Ranked(Fitted):
    """The share of train values below x, between knots by straight lines."""

    KIND: ClassVar[str] = "rank"

    knots: tuple[tuple[float, ...], ...] = ()

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        made = []
        for name, knots in zip(self.columns, self.knots, strict=True):
            series = frame[name].cast(pl.Float64).fill_nan(None)
            made.append(_ranks(series, np.array(knots)).alias(name))
        return frame.with_columns(made)

    def push(self, name: str, stats: NumberStats) -> NumberStats | None:  # noqa: ARG002
        return None


def _ranks(series: pl.Series, knots: np.ndarray) -> pl.Series:
    """As scikit-learn's: ties lie in the middle of their step, but the lowest value is 0 and the highest 1."""
    import polars as pl

    grid = np.linspace(0.0, 1.0, len(knots))
    values = series.to_numpy()
    up = np.interp(values, knots, grid)
    down = -np.interp(-values, -knots[::-1], -grid[::-1])
    middle = np.where(values <= knots[0], 0.0, np.where(values >= knots[-1], 1.0, (up + down) / 2))
    return pl.Series(middle.astype(np.float32)).fill_nan(None)


@dataclass(frozen=True)
class Cut(Fitted):
    """No lower than `low` and no higher than `high`; a missing bound is none."""

    KIND: ClassVar[str] = "clip"

    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:

        return frame.with_columns(
            as_floats(frame, name).clip(low, high)
            for name, low, high in zip(self.columns, self.low, self.high, strict=True)
        )

    def push(self, name: str, stats: NumberStats) -> NumberStats | None:
        """The mean behind a cut is known only where nothing is cut."""
        index = self.columns.index(name)
        low, high = self.low[index], self.high[index]
        cuts = (low is not None and stats.low < low) or (high is not None and stats.high > high)
        return None if cuts else stats


@dataclass(frozen=True)
class Intervals(Fitted):
    """The number of the interval, from 0; a value on a bound belongs above it."""

    KIND: ClassVar[str] = "bucketize"

    bounds: tuple[tuple[float, ...], ...] = ()

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        made = []
        for name, bounds in zip(self.columns, self.bounds, strict=True):
            series = frame[name].cast(pl.Float64).fill_nan(None)
            places = np.searchsorted(np.array(bounds), series.to_numpy(), side="right").astype(np.int32)
            found = pl.DataFrame({"place": pl.Series(places), "there": series.is_not_null()})
            made.append(found.select(pl.when("there").then("place").alias(name)).to_series())
        return frame.with_columns(made)

    def push(self, name: str, stats: NumberStats) -> NumberStats | None:  # noqa: ARG002
        return None


class ScaleStep(Step):
    """`scale`: see its settings for the methods."""

    def __init__(self, settings: Scale, columns: tuple[str, ...]) -> None:
        self.settings, self.columns = settings, columns

    @property
    def ranks(self) -> bool:
        """Whether it needs quantiles."""
        return self.settings.method in ("robust", "quantile")

    def learn(self, stats: Mapping[str, NumberStats]) -> Moved | Ranked:
        if self.settings.method == "quantile":
            grid = np.linspace(0.0, 1.0, RANKS).tolist()
            return Ranked(self.columns, tuple(tuple(stats[name].quantile(grid)) for name in self.columns))
        pairs = [self._move(stats[name]) for name in self.columns]
        return Moved(self.columns, tuple(shift for shift, _ in pairs), tuple(1.0 / width for _, width in pairs))

    def _move(self, stats: NumberStats) -> tuple[float, float]:
        """(shift, width); a column of one value has the width 1, and so becomes 0."""
        if not stats.count:
            return 0.0, 1.0
        if self.settings.method == "minmax":
            return stats.low, (stats.high - stats.low) or 1.0
        if self.settings.method == "standard":
            return stats.mean, stats.deviation or 1.0
        first, middle, third = stats.quantile([0.25, 0.5, 0.75])
        return middle, (third - first) or 1.0


class ClipStep(Step):
    """`clip`: bounds as given, or quantiles of the train split."""

    def __init__(self, settings: Clip, columns: tuple[str, ...]) -> None:
        self.settings, self.columns = settings, columns

    def ready(self) -> Cut | None:
        settings = self.settings
        if settings.lower_quantile is not None or settings.upper_quantile is not None:
            return None
        count = len(self.columns)
        return Cut(self.columns, (settings.lower,) * count, (settings.upper,) * count)

    @property
    def ranks(self) -> bool:
        return True

    def learn(self, stats: Mapping[str, NumberStats]) -> Cut:
        low, high = self.settings.lower_quantile, self.settings.upper_quantile
        return Cut(
            self.columns,
            tuple(self.settings.lower if low is None else stats[name].quantile([low])[0] for name in self.columns),
            tuple(self.settings.upper if high is None else stats[name].quantile([high])[0] for name in self.columns),
        )


class BucketizeStep(Step):
    """`bucketize`: boundaries as given, or so that buckets hold like many train rows."""

    def __init__(self, settings: Bucketize, columns: tuple[str, ...]) -> None:
        self.settings, self.columns = settings, columns

    def ready(self) -> Intervals | None:
        bounds = self.settings.boundaries
        return Intervals(self.columns, (tuple(bounds),) * len(self.columns)) if bounds else None

    @property
    def ranks(self) -> bool:
        return True

    def learn(self, stats: Mapping[str, NumberStats]) -> Intervals:
        grid = np.linspace(0.0, 1.0, (self.settings.buckets or 10) + 1)[1:-1].tolist()
        return Intervals(self.columns, tuple(tuple(sorted(set(stats[n].quantile(grid)))) for n in self.columns))


class NumberFit:
    """The statistics of some columns, chunk by chunk."""

    def __init__(self, columns: Sequence[str], ranked: Collection[str]) -> None:
        self.stats = {name: empty_stats() for name in columns}
        self.ranked = frozenset(ranked)

    def update(self, frame: pl.DataFrame) -> None:
        for name, found in measure(frame, list(self.stats), self.ranked).items():
            self.stats[name] = self.stats[name].merge(found)

    def merge(self, other: Self) -> None:
        for name, found in other.stats.items():
            self.stats[name] = self.stats[name].merge(found)
