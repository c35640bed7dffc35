"""A sample of whole rows, kept as numbers: what tests over several columns at once need, and nothing that reads."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl

from mizzen.data.sketches.hashing import Numbers, hashed, pack, splitmix64, unpack

ROWS = 1024


class RowSample:
    """The ROWS rows with the least keys (bottom-k sampling; Cohen, Kaplan 2007), a uniform sample without repetition.

    A key mixes a digest of its chunk with the row's place in it: no generator, and merging in any order gives the same
    rows. Numbers, times and booleans are kept as float32 with NaN for missing, strings as a hash of 32 bits with 0.
    """

    def __init__(self, keys: Numbers, columns: dict[str, Numbers]) -> None:
        self.keys, self.columns = keys, columns

    @classmethod
    def empty(cls, strings: dict[str, bool]) -> RowSample:
        """`strings` says for each column whether it holds strings."""
        types = {name: np.uint32 if text else np.float32 for name, text in strings.items()}
        return cls(np.zeros(0, np.uint64), {name: np.zeros(0, kind) for name, kind in types.items()})

    @classmethod
    def of(cls, frame: pl.DataFrame, strings: dict[str, bool]) -> RowSample:
        if not frame.height:
            return cls.empty(strings)
        keys = splitmix64(np.arange(frame.height, dtype=np.uint64) ^ np.uint64(_digest(frame)))
        chosen = np.flatnonzero(keys < _likely_bound(frame.height))
        if len(chosen) < ROWS:
            chosen = np.arange(frame.height)
        chosen = chosen[np.argsort(keys[chosen], kind="stable")][:ROWS]
        rows = frame.select(list(strings))[chosen].select(_as_number(name, text) for name, text in strings.items())
        return cls(keys[chosen], {column.name: _packed(column, strings[column.name]) for column in rows})

    def merge(self, other: RowSample) -> None:
        keys = np.concatenate((self.keys, other.keys))
        chosen = np.argsort(keys, kind="stable")[:ROWS]
        self.keys = keys[chosen]
        for name, mine in self.columns.items():
            self.columns[name] = np.concatenate((mine, other.columns[name]))[chosen]

    def to_json(self) -> dict[str, Any]:
        return {
            "keys": pack(self.keys),
            "columns": {name: {"kind": c.dtype.kind, "rows": pack(c)} for name, c in self.columns.items()},
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RowSample:
        types = {"u": np.uint32, "f": np.float32}
        columns = {name: unpack(c["rows"], types[c["kind"]]) for name, c in document["columns"].items()}
        return cls(unpack(document["keys"], np.uint64), columns)


def _digest(frame: pl.DataFrame) -> int:
    """64 bits of the chunk's size and of some of its rows."""
    some = frame.gather_every(max(1, frame.height // 16)).rows()
    return int.from_bytes(hashlib.blake2b(repr((frame.height, some)).encode(), digest_size=8).digest(), "big")


def _likely_bound(rows: int) -> np.uint64:
    """Below it lie twice ROWS keys or so, nearly never fewer than ROWS: what need not be sorted."""
    return np.uint64(min(1.0, 2 * ROWS / rows) * 0xFFFF_FFFF_FFFF_F800)


def _as_number(name: str, text: bool) -> pl.Expr:
    """float64 with NaN for missing, or a hash with null for missing."""
    column = pl.col(name)
    if text:
        return pl.when(column.is_not_null()).then(hashed(column.cast(pl.String)))
    return column.to_physical().cast(pl.Float64).fill_null(np.nan)


def _packed(column: pl.Series, text: bool) -> Numbers:
    if not text:
        with np.errstate(over="ignore"):
            return column.to_numpy().astype(np.float32)
    hashes = column.fill_null(0).to_numpy() >> np.uint64(32)
    return np.where(column.is_null().to_numpy(), np.uint64(0), hashes | np.uint64(1)).astype(np.uint32)
