"""What a dataset looks like in numbers, in one pass over its chunks: the reference that drift is measured against."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
import polars as pl

from mizzen.data.sketches.frequent import Frequent
from mizzen.data.sketches.hashing import Numbers, hash_strings, pack, string_hash_version, unpack
from mizzen.data.sketches.hyperloglog import HyperLogLog
from mizzen.data.sketches.numbers import NumberSketch
from mizzen.data.sketches.sample import RowSample

T = TypeVar("T")
FORMAT = 1
BUCKETS = 64  # of string hashes: shows a change of values too many to be counted one by one
_THREADS = min(16, os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0)))
_HEAD = 2048  # of a chunk: tells whether strings come again and again
_WORTH_THREADS = 1 << 16  # cells; below, starting threads costs more than they save


class Kind(StrEnum):
    """How a column is read."""

    NUMBER = "number"
    TIME = "time"  # dates, times and durations, as the integers that polars keeps
    BOOLEAN = "boolean"
    STRING = "string"
    LIST = "list"  # only its lengths
    OTHER = "other"  # only rows and nulls

    @classmethod
    def of(cls, dtype: pl.DataType) -> Kind:
        if dtype.is_numeric():
            return cls.NUMBER
        if dtype.is_temporal():
            return cls.TIME
        if dtype == pl.Boolean:
            return cls.BOOLEAN
        if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
            return cls.STRING
        return cls.LIST if isinstance(dtype, pl.List) else cls.OTHER


class ColumnProfile:
    """One column. Which parts there are depends on its kind.

    numbers    finite values; for a time, in the unit of its type
    frequent   most frequent strings, or "true" and "false"
    distinct   and `buckets`: of strings
    lengths    characters of strings, items of lists
    """

    def __init__(self, dtype: str, kind: Kind) -> None:
        self.dtype, self.kind = dtype, kind
        self.rows = self.missing = self.nan = self.infinite = 0
        self.numbers: NumberSketch | None = None
        self.frequent: Frequent | None = None
        self.hashes: HyperLogLog | None = None
        self.buckets: Numbers | None = None
        self.lengths: NumberSketch | None = None

    @classmethod
    def empty(cls, dtype: pl.DataType) -> ColumnProfile:
        return cls.of(pl.Series([], dtype=dtype))

    @classmethod
    def of(cls, column: pl.Series) -> ColumnProfile:
        profile = cls(str(column.dtype), Kind.of(column.dtype))
        profile.rows, profile.missing = len(column), column.null_count()
        there = column.drop_nulls() if profile.missing else column
        match profile.kind:
            case Kind.NUMBER:
                profile.numbers = NumberSketch.of(profile._finite(there))
            case Kind.TIME:
                profile.numbers = NumberSketch.of(there.to_physical().cast(pl.Int64).to_numpy())
            case Kind.BOOLEAN:
                true = int(there.sum())
                counts = {"true": true, "false": len(there) - true}
                profile.frequent = Frequent({value: count for value, count in counts.items() if count}, len(there))
            case Kind.STRING:
                profile._read_strings(there.cast(pl.String))
            case Kind.LIST:
                profile.lengths = NumberSketch.of(there.list.len().cast(pl.Int64).to_numpy())
            case Kind.OTHER:
                pass
        return profile

    def _finite(self, column: pl.Series) -> Numbers:
        if column.dtype.is_integer() and column.dtype not in (pl.Int128, pl.UInt128):
            return column.cast(pl.UInt64 if column.dtype == pl.UInt64 else pl.Int64).to_numpy()
        values: Numbers = column.cast(pl.Float64).to_numpy()
        finite = np.isfinite(values)
        if finite.all():
            return values
        self.nan = int(np.isnan(values).sum())
        self.infinite = len(values) - int(finite.sum()) - self.nan
        return values[finite]

    def _read_strings(self, column: pl.Series) -> None:
        self.hashes = HyperLogLog()
        head = column.head(_HEAD)
        if head.n_unique() <= max(1, len(head) // 2):  # look at each different string once
            table = column.rename("value").value_counts(name="rows")
            different, counts = table["value"], table["rows"].cast(pl.Int64).to_numpy()
            hashes = hash_strings(different)
            self.buckets = np.bincount(_bucket(hashes), counts, minlength=BUCKETS).astype(np.int64)
            self.frequent = Frequent.of_counts(different, counts, len(column))
            self.lengths = NumberSketch.of_counts(_characters(different), counts)
        else:
            hashes = hash_strings(column)
            self.buckets = np.bincount(_bucket(hashes), minlength=BUCKETS)
            self.frequent = Frequent.of(column, hashes)
            self.lengths = NumberSketch.of(_characters(column))
        self.hashes.add(hashes)

    def merge(self, other: ColumnProfile) -> None:
        for name in ("rows", "missing", "nan", "infinite"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if self.numbers and other.numbers:
            self.numbers.merge(other.numbers)
        if self.frequent and other.frequent:
            self.frequent.merge(other.frequent)
        if self.hashes and other.hashes:
            self.hashes.merge(other.hashes)
        if self.buckets is not None and other.buckets is not None:
            self.buckets = self.buckets + other.buckets
        if self.lengths and other.lengths:
            self.lengths.merge(other.lengths)

    @property
    def present(self) -> int:
        """Rows that hold a value: neither null nor NaN nor infinite."""
        return self.rows - self.missing - self.nan - self.infinite

    @property
    def distinct(self) -> int | None:
        """Different values: exact while there are few, else estimated within 1.6 % (one standard error)."""
        if self.numbers is not None:
            return round(self.numbers.distinct)
        if self.frequent is not None and self.frequent.exact:
            return len(self.frequent.counts)
        return None if self.hashes is None else round(self.hashes.estimate())

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"dtype": self.dtype, "kind": self.kind.value, "rows": self.rows}
        document |= {"missing": self.missing, "nan": self.nan, "infinite": self.infinite}
        if self.buckets is not None:
            document["buckets"] = pack(self.buckets)
        parts = {"numbers": self.numbers, "frequent": self.frequent, "distinct": self.hashes, "lengths": self.lengths}
        return document | {name: part.to_json() for name, part in parts.items() if part is not None}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ColumnProfile:
        profile = cls(document["dtype"], Kind(document["kind"]))
        profile.rows, profile.missing = document["rows"], document["missing"]
        profile.nan, profile.infinite = document["nan"], document["infinite"]
        profile.numbers = _part(NumberSketch.from_json, document.get("numbers"))
        profile.frequent = _part(Frequent.from_json, document.get("frequent"))
        profile.hashes = _part(HyperLogLog.from_json, document.get("distinct"))
        profile.lengths = _part(NumberSketch.from_json, document.get("lengths"))
        if "buckets" in document:
            profile.buckets = unpack(document["buckets"], np.int64)
        return profile


class Profile:
    """Columns by name, and a sample of rows.

    `update(frame)` is `merge(Profile.of(frame))`: whoever profiles the chunks, wherever, merging them in the chunks'
    order gives the same bits. A server collects some thousand rows before it updates: a frame costs about 0.1 ms a
    column however short it is.

    In JSON a column takes at most 30 KB, a column of strings 80 KB (512 values of 64 bytes); typical are 8 and 20.
    """

    def __init__(self, columns: dict[str, ColumnProfile], sample: RowSample, hash_version: str) -> None:
        self.columns, self.sample, self.hash_version = columns, sample, hash_version

    @classmethod
    def empty(cls, schema: Mapping[str, pl.DataType]) -> Profile:
        return cls.of(pl.DataFrame(schema=dict(schema)))

    @classmethod
    def of(cls, frame: pl.DataFrame, threads: int = _THREADS) -> Profile:
        """The profile of one chunk; of some 100,000 rows at most, since some parts look at a chunk as a whole.

        Whoever profiles several chunks at a time needs one thread for each.
        """
        if threads == 1 or frame.height * frame.width < _WORTH_THREADS:
            columns = [ColumnProfile.of(column) for column in frame]
        else:  # numpy and polars let go of the interpreter's lock
            with ThreadPoolExecutor(threads) as pool:
                columns = list(pool.map(ColumnProfile.of, frame))
        named = dict(zip(frame.columns, columns, strict=True))
        sampled = {name: c.kind is Kind.STRING for name, c in named.items() if c.kind not in (Kind.LIST, Kind.OTHER)}
        return cls(named, RowSample.of(frame, sampled), string_hash_version())

    def update(self, frame: pl.DataFrame) -> Profile:
        """Take in the next chunk; the columns must be those of the schema. Returns itself."""
        return self.merge(Profile.of(frame))

    def merge(self, other: Profile) -> Profile:
        """Take in what follows. Returns itself. ValueError where columns, types or versions differ."""
        mine, theirs = ({name: c.dtype for name, c in p.columns.items()} for p in (self, other))
        if mine != theirs:
            name = min(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
            raise ValueError(
                f"profiles of different columns cannot be merged: column {name!r} is "
                f"{mine.get(name, 'absent')} in one and {theirs.get(name, 'absent')} in the other"
            )
        if self.hash_version != other.hash_version:
            raise ValueError("the profiles were made by versions of polars that hash strings differently: profile anew")
        for name, column in self.columns.items():
            column.merge(other.columns[name])
        self.sample.merge(other.sample)
        return self

    @property
    def rows(self) -> int:
        return max((column.rows for column in self.columns.values()), default=0)

    def to_json(self) -> str:
        return json.dumps(
            {
                "format": FORMAT,
                "hashVersion": self.hash_version,
                "rows": self.rows,
                "columns": {name: column.to_json() for name, column in self.columns.items()},
                "sample": self.sample.to_json(),
            },
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Profile:
        document = json.loads(text)
        if document.get("format") != FORMAT:
            raise ValueError(f"profile format {document.get('format')!r}; this version of mizzen reads {FORMAT}")
        columns = {name: ColumnProfile.from_json(column) for name, column in document["columns"].items()}
        return cls(columns, RowSample.from_json(document["sample"]), document["hashVersion"])


def _part(read: Callable[[dict[str, Any]], T], document: dict[str, Any] | None) -> T | None:
    return None if document is None else read(document)


def _bucket(hashes: Numbers) -> Numbers:
    return (hashes >> np.uint64(58)).astype(np.int64)


def _characters(column: pl.Series) -> Numbers:
    return column.str.len_chars().cast(pl.Int64).to_numpy()
