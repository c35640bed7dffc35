"""Which row goes to which part: by a seeded hash of the row, by class where asked, never equal rows in two parts.

The hash is over the columns that features are made from, so exact duplicates share it and stay together; or over the
group's column. The parts' bounds are hashes, too, found from a histogram of each class: a row's part follows from the
row alone, in whatever chunk and on whatever machine it is read. By time, the bounds are times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mizzen.data.steps.counts import as_text
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.contract import SPLITS
from mizzen_api.dataset import Split

if TYPE_CHECKING:
    import polars as pl

HASH = "__hash"
CLASS = "__class"
PART = "__part"
_BITS = 14  # of the hash: a class is cut within a sixteen-thousandth of its rows
_NEVER = (1 << _BITS, 1 << _BITS)  # bounds that no row reaches
_HASHED = 32_768  # rows at once: hashes of so many stay in the processor's cache from column to column
_COUNTABLE = 16  # classes whose places are counted in an array


def with_hash(frame: pl.DataFrame, columns: Sequence[str], split: Split) -> pl.DataFrame:
    """The frame with the column `__hash`: of the group, or of the row's features."""
    import polars as pl

    row = pl.struct([split.group] if split.group else list(columns)).hash(seed=split.seed).alias(HASH)
    hashes = [piece.select(row).to_series() for piece in frame.iter_slices(_HASHED)]
    return frame.with_columns(pl.concat(hashes).rechunk() if hashes else row)


def with_class(frame: pl.DataFrame, target: str) -> pl.DataFrame:
    """The frame with the column `__class`: the target as an enumeration of the classes of this chunk."""
    import polars as pl

    text = as_text(frame[target])
    return frame.with_columns(text.cast(pl.Enum(text.drop_nulls().unique().sort())).alias(CLASS))


def classes_of(frame: pl.DataFrame, target: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Names of the classes of a chunk, sorted, and the place of each row's name among them (0 where there is none)."""
    import polars as pl

    classes = (frame if CLASS in frame.columns else with_class(frame, target))[CLASS]
    assert isinstance(classes.dtype, pl.Enum)
    return classes.dtype.categories.to_list(), classes.to_physical().fill_null(0).to_numpy()


class Divider:
    """Learns the parts' bounds from all rows, chunk by chunk; then says each row's part."""

    def __init__(self, split: Split, target: str, *, by_class: bool) -> None:
        self.split, self.target = split, target
        self.by_class = by_class and split.stratify and not split.group and not split.time
        self.tables: list[pl.DataFrame] = []
        self._bounds: pl.DataFrame | None = None
        self._times: tuple[Any, Any] = (None, None)
        self._torn: pl.DataFrame | None = None

    def count(self, frame: pl.DataFrame) -> pl.DataFrame:
        """How many rows of a chunk there are of each class, at each place. Depends on the chunk alone."""
        if self.split.time:
            return self._count_times(frame)
        names, codes = self._classes(frame)
        keys = _places(frame).astype(np.int64)
        if names != [""]:
            keys += codes.astype(np.int64) << _BITS
        if len(names) <= _COUNTABLE:
            rows = np.bincount(keys, minlength=len(names) << _BITS)
            found = np.flatnonzero(rows)
            return _counted(names, found, rows[found])
        return _counted(names, *np.unique(keys, return_counts=True))

    def _count_times(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        name = str(self.split.time)
        if name not in frame.columns:
            there = ", ".join(column for column in frame.columns if column not in (HASH, CLASS))
            raise UserError(
                Reason.COLUMN_MISSING, f"split.time names the column {name!r}, which is not there; there are {there}"
            )
        if frame[name].null_count():
            row = int(frame[name].is_null().arg_true()[0])
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"split.time: row {row} of a chunk has no value in {name!r}; fill it, or drop the row",
            )
        places = frame.select(pl.lit("").alias("class"), pl.col(name).alias("place"))
        return places.group_by("class", "place").agg(pl.len().cast(pl.Int64).alias("rows"))

    def add(self, counted: pl.DataFrame) -> None:
        """Take in what `count` says of a chunk."""
        self.tables.append(counted)
        if len(self.tables) > 32:
            self.tables = [self._table()]

    def _classes(self, frame: pl.DataFrame) -> tuple[list[str], np.ndarray[Any, Any]]:
        if not self.by_class:
            return [""], np.zeros(1, np.uint8)
        return classes_of(frame, self.target)

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
        ranges = [(self._bounds[part].min(), self._bounds[part].max()) for part in SPLITS[1:]]
        found = []
        for chunk in chunks:
            places = _places(chunk)
            between = np.logical_or.reduce([(places >= low) & (places < high) for low, high in ranges])
            rows = chunk.filter(between)
            names, codes = self._classes(rows)
            classes = pl.Series(names, dtype=pl.String).gather(codes)
            found.append(pl.DataFrame({HASH: rows[HASH], "class": classes}).unique())
        torn = pl.concat(found).group_by(HASH).agg(pl.col("class").min().alias("first"), pl.col("class").n_unique())
        torn = torn.filter(pl.col("class") > 1).select(HASH, "first")
        self._torn = torn if torn.height else None

    def parts(self, frame: pl.DataFrame) -> pl.Series:
        """0, 1 or 2 for each row: an index of contract.SPLITS."""
        import polars as pl

        if self.split.time:
            return self._parts_of_times(frame[self.split.time])
        assert self._bounds is not None, "finish comes before parts"
        bounds = {name: ends for name, *ends in self._bounds.iter_rows()}
        names, codes = self._classes(frame)
        places = _places(frame)
        ends = np.array([bounds.get(name, _NEVER) for name in names], np.uint32)[codes]
        if self._torn is not None:
            torn = pl.DataFrame(frame[HASH]).join(self._torn, on=HASH, how="left", maintain_order="left")["first"]
            rows = np.flatnonzero(torn.is_not_null().to_numpy())
            ends[rows] = [bounds[name] for name in torn.drop_nulls()]
        part = (places >= ends[:, 0]).astype(np.uint8)
        part += places >= ends[:, 1]
        return pl.Series(PART, part)

    def _parts_of_times(self, at: pl.Series) -> pl.Series:
        import polars as pl

        part = pl.Series(PART, np.zeros(len(at), np.uint8))
        for first in self._times:
            if first is not None:
                part += (at >= first).cast(pl.UInt8)
        return part


def _places(frame: pl.DataFrame) -> np.ndarray[Any, Any]:
    """The part of each row's hash by which it finds its part."""
    return (frame[HASH].to_numpy() >> np.uint64(64 - _BITS)).astype(np.uint32)


def _counted(names: Sequence[str], keys: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> pl.DataFrame:
    import polars as pl

    classes = pl.Series(names, dtype=pl.String).gather(keys >> _BITS)
    places = (keys & ((1 << _BITS) - 1)).astype(np.uint32)
    return pl.DataFrame({"class": classes, "place": places, "rows": rows.astype(np.int64)})
