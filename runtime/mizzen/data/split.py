"""Which row goes to which part: by a seeded hash of the row, by class where asked, never equal rows in two parts.

The hash is over the columns that features are made from, so exact duplicates share it and stay together; or over the
group's column. The parts' bounds are hashes, too, found from a histogram of each class: a row's part follows from the
row alone, in whatever chunk and on whatever machine it is read. By time, the bounds are times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mizzen.data.steps.counts import as_text
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.contract import SPLITS
from mizzen_api.dataset import Split

if TYPE_CHECKING:
    import polars as pl

HASH = "__hash"
PART = "__part"
_BITS = 14  # of the hash: a class is cut within a sixteen-thousandth of its rows


def with_hash(frame: pl.DataFrame, columns: Sequence[str], split: Split) -> pl.DataFrame:
    """The frame with the column `__hash`: of the group, or of the row's features."""
    import polars as pl

    chosen = [split.group] if split.group else list(columns)
    return frame.with_columns(pl.struct(chosen).hash(seed=split.seed).alias(HASH))


class Divider:
    """Learns the parts' bounds from all rows, chunk by chunk; then says each row's part."""

    def __init__(self, split: Split, target: str, *, by_class: bool) -> None:
        self.split, self.target = split, target
        self.by_class = by_class and split.stratify and not split.group and not split.time
        self.tables: list[pl.DataFrame] = []
        self._bounds: pl.DataFrame | None = None
        self._times: tuple[Any, Any] = (None, None)
        self._torn: pl.DataFrame | None = None

    def _keys(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        if self.split.time:
            return frame.select(pl.lit("").alias("class"), pl.col(self.split.time).alias("place"))
        classes = as_text(frame[self.target]) if self.by_class else pl.Series([""]).new_from_index(0, frame.height)
        places = (frame[HASH] // (1 << (64 - _BITS))).cast(pl.UInt32)
        return pl.DataFrame({"class": classes, "place": places})

    def update(self, frame: pl.DataFrame) -> None:
        import polars as pl

        if self.split.time and self.split.time not in frame.columns:
            there = ", ".join(name for name in frame.columns if name != HASH)
            raise UserError(
                Reason.COLUMN_MISSING,
                f"split.time names the column {self.split.time!r}, which is not there; there are {there}",
            )
        found = self._keys(frame)
        if self.split.time and found["place"].null_count():
            row = int(found["place"].is_null().arg_true()[0])
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"split.time: row {row} of a chunk has no value in {self.split.time!r}; fill it, or drop the row",
            )
        self.tables.append(found.group_by("class", "place").agg(pl.len().cast(pl.Int64).alias("rows")))
        if len(self.tables) > 32:
            self.tables = [self._table()]

    def merge(self, other: Self) -> None:
        self.tables += other.tables

    def _table(self) -> pl.DataFrame:
        import polars as pl

        return pl.concat(self.tables).group_by("class", "place").agg(pl.col("rows").sum()).sort("class", "place")

    def finish(self) -> None:
        """Find the bounds: the first place of each class that belongs to the validation part, and to the test part."""
        import polars as pl

        split, table = self.split, self._table()
        bounds: dict[str, list[Any]] = {"class": [], "validation": [], "test": []}
        for (name,), group in table.group_by("class", maintain_order=True):
            counts = group["rows"].to_numpy()
            middles = np.cumsum(counts) - counts / 2
            total = counts.sum()
            ends = (split.train * total, (split.train + split.validation) * total)
            places = group["place"]
            firsts = [int(np.searchsorted(middles, end + 1e-9, side="right")) for end in ends]
            cut = [places[first] if first < len(places) else None for first in firsts]
            if split.time:
                self._times = (cut[0], cut[1])
                return
            bounds["class"].append(name)
            for part, value in zip(SPLITS[1:], cut, strict=True):
                bounds[part].append((1 << _BITS) if value is None else int(value))
        schema = {"class": pl.String, "validation": pl.UInt32, "test": pl.UInt32}
        self._bounds = pl.DataFrame(bounds, schema=schema)

    def settle(self, chunks: Iterable[pl.DataFrame]) -> None:
        """Equal rows of different classes go where the first class by name goes: bounds differ a little by class.

        `chunks` are the rows once more; only those between two classes' bounds are kept in memory.
        """
        import polars as pl

        if self._bounds is None or self._bounds.height < 2:
            return
        between = pl.lit(value=False)
        for part in SPLITS[1:]:
            low, high = self._bounds[part].min(), self._bounds[part].max()
            between |= (pl.col("place") >= low) & (pl.col("place") < high)
        found = []
        for chunk in chunks:
            rows = self._keys(chunk).with_columns(chunk[HASH]).filter(between)
            found.append(rows.select(HASH, "class").unique())
        torn = pl.concat(found).group_by(HASH).agg(pl.col("class").min().alias("first"), pl.col("class").n_unique())
        torn = torn.filter(pl.col("class") > 1).select(HASH, "first")
        self._torn = torn if torn.height else None

    def parts(self, frame: pl.DataFrame) -> pl.Series:
        """0, 1 or 2 for each row: an index of contract.SPLITS."""
        import polars as pl

        keys = self._keys(frame)
        if self.split.time:
            first, second = self._times
            at = pl.col("place")
            later = pl.lit(value=False) if first is None else at >= first
            last = pl.lit(value=False) if second is None else at >= second
            return keys.select((later.cast(pl.UInt8) + last.cast(pl.UInt8)).alias(PART)).to_series()
        assert self._bounds is not None, "finish comes before parts"
        if self._torn is not None:
            joined = pl.DataFrame(frame[HASH]).join(self._torn, on=HASH, how="left", maintain_order="left")
            keys = keys.with_columns(pl.coalesce(joined["first"], pl.col("class")).alias("class"))
        joined = keys.join(self._bounds, on="class", how="left", maintain_order="left")
        part = (pl.col("place") >= pl.col("validation")).cast(pl.UInt8) + (pl.col("place") >= pl.col("test")).cast(
            pl.UInt8
        )
        return joined.select(part.fill_null(0).alias(PART)).to_series()
