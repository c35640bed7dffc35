"""Hashes and pseudo-random numbers for the sketches: functions of the data alone, so every machine draws the same."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

Numbers = np.ndarray[Any, np.dtype[Any]]
BUCKETS = 1 << 16
_SEED = 7


def splitmix64(values: Numbers) -> Numbers:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), a bijection of 64 bits; a new array of uint64."""
    mixed = values.astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    shifted = mixed >> np.uint64(30)
    mixed ^= shifted
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(mixed, np.uint64(27), out=shifted)
    mixed ^= shifted
    mixed *= np.uint64(0x94D049BB133111EB)
    np.right_shift(mixed, np.uint64(31), out=shifted)
    mixed ^= shifted
    return mixed


def draw(*numbers: int) -> int:
    """64 pseudo-random bits that the numbers decide: what replaces a generator that someone would have to carry."""
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = splitmix64(state ^ np.uint64(number & 0xFFFF_FFFF_FFFF_FFFF))
    return int(state[0])


def hash_numbers(values: Numbers) -> Numbers:
    """uint64 for each int64, uint64 or float64; NaN and negative zero are the caller's to settle."""
    return splitmix64(values.view(np.uint64))


def hash_strings(values: pl.Series) -> Numbers:
    """uint64 for each string; there must be no nulls. Fixed within a version of polars: see `string_hash_version`."""
    return values.hash(_SEED).to_numpy()


def hashed(strings: pl.Expr) -> pl.Expr:
    """The same, as an expression."""
    return strings.hash(_SEED)


def buckets_of(hashes: Numbers) -> Numbers:
    """Number of the bucket, below BUCKETS, that each hash falls into."""
    return (hashes >> np.uint64(48)).astype(np.int64)


def distinct_rows(hashes: Numbers, most: int) -> tuple[Numbers, Numbers] | None:
    """One row for each different hash, and how often it occurs; None where there are more than `most` of them.

    Buckets hold one hash each as a rule, so that nothing need be sorted; those left over go into buckets again.
    """
    if 2 * most < len(hashes) and len(np.unique(hashes[: 2 * most])) > most:
        return None  # as most columns of many values say at once
    rows, rest = np.arange(len(hashes)), hashes
    found, counts, total = [rows[:0]], [rows[:0]], 0
    last = np.zeros(BUCKETS, np.int64)
    while len(rows):
        buckets = buckets_of(rest)
        sizes = np.bincount(buckets, minlength=BUCKETS)
        taken = np.flatnonzero(sizes)
        total += len(taken)
        if total > most:
            return None
        last[buckets] = rows
        alike = rest == hashes[last[buckets]]
        if not alike.all():
            sizes = np.bincount(buckets[alike], minlength=BUCKETS)
        found.append(last[taken])
        counts.append(sizes[taken])
        rows = rows[~alike]
        rest = hashes[rows]
    return np.concatenate(found), np.concatenate(counts)


@lru_cache(maxsize=1)
def string_hash_version() -> str:
    """Differs where polars hashes strings differently: sketches made of such hashes must not be merged or compared."""
    probe = pl.Series(["mizzen", "a text that does not fit into sixteen bytes"])
    return f"{int(np.bitwise_xor.reduce(hash_strings(probe))):016x}"


@lru_cache(maxsize=8)
def one_of_each_block(rows: int, width: int) -> Numbers:
    """Row numbers, one at a pseudo-random place in each block of `width` rows.

    A fixed stride would fall in step with data that has a period.
    """
    blocks = np.arange(rows // width, dtype=np.uint64)
    places: Numbers = (blocks * np.uint64(width) + splitmix64(blocks) % np.uint64(width)).astype(np.int64)
    return places


def pack(array: Numbers) -> str:
    """Little-endian bytes in base64: exact, and a third longer than the memory; decimal digits would be twice that."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def unpack(text: str, dtype: Any) -> Numbers:
    stored = np.dtype(dtype)
    return np.frombuffer(base64.b64decode(text), stored.newbyteorder("<")).astype(stored)
