"""How often each value of a column occurs: what encoders and the most frequent value are learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    import polars as pl

MOST_VALUES = 1_000_000  # beyond twice as many, the rarest are forgotten


@dataclass(frozen=True)
class Counts:
    """Values as text with their counts, and how many rows have none."""

    table: pl.DataFrame  # value: String, rows: UInt32, sorted by value
    missing: int = 0

    @classmethod
    def empty(cls) -> Self:
        import polars as pl

        return cls(pl.DataFrame(schema={"value": pl.String, "rows": pl.Int64}))

    @classmethod
    def of(cls, series: pl.Series) -> Self:
        import polars as pl

        column = pl.DataFrame({"value": as_text(series)})
        table = column.drop_nulls().group_by("value").len("rows").with_columns(pl.col("rows").cast(pl.Int64))
        return cls(table.sort("value"), series.null_count())

    @classmethod
    def of_codes(cls, names: Sequence[str], codes: np.ndarray[Any, Any]) -> Self:
        """From different values, sorted, and the place of each row's among them."""
        import polars as pl

        rows = np.bincount(codes, minlength=len(names)).astype(np.int64)
        return cls(pl.DataFrame({"value": names, "rows": rows}, schema={"value": pl.String, "rows": pl.Int64}))

    def merge(self, other: Counts) -> Counts:
        import polars as pl

        both = pl.concat([self.table, other.table]).group_by("value").agg(pl.col("rows").sum())
        if both.height > 2 * MOST_VALUES:
            both = both.sort(["rows", "value"], descending=[True, False]).head(MOST_VALUES)
        return Counts(both.sort("value"), self.missing + other.missing)

    def most_frequent(self) -> str | None:
        """The first by name among equals."""
        ranked = self.ranked(1)
        return ranked[0] if ranked else None

    def ranked(self, most: int) -> list[str]:
        """The `most` most frequent values, the first by name among equals."""
        found = self.table.sort(["rows", "value"], descending=[True, False]).head(most)
        return [str(value) for value in found["value"]]

    def filled(self, value: str) -> Counts:
        """Once missing values are `value`."""
        import polars as pl

        if not self.missing:
            return self
        more = pl.DataFrame({"value": [value], "rows": [self.missing]}, schema=self.table.schema)
        return replace(self, missing=0).merge(Counts(more))


def as_text(series: pl.Series) -> pl.Series:
    """Values as the text that categories are told apart by: 3.0 of a number column is 3, as the integer's."""
    import polars as pl

    if series.dtype == pl.String:
        return series
    if series.dtype == pl.Boolean:
        return series.cast(pl.Int8).cast(pl.String)
    if series.dtype.is_float():
        whole = series.fill_nan(None)
        exact = whole.cast(pl.Int64, strict=False)
        is_whole = (exact.cast(pl.Float64) == whole.cast(pl.Float64)).fill_null(value=False)
        return exact.cast(pl.String).zip_with(is_whole, whole.cast(pl.String))
    return series.cast(pl.String)


class CountFit:
    """The counts of some columns, chunk by chunk."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.counts = {name: Counts.empty() for name in columns}

    def update(self, frame: pl.DataFrame) -> None:
        for name, known in self.counts.items():
            self.counts[name] = known.merge(Counts.of(frame[name]))

    def merge(self, other: Self) -> None:
        for name, found in other.counts.items():
            self.counts[name] = self.counts[name].merge(found)
