"""Short builders for the data tests: a mixed table, a spec over it, and a version made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from mizzen.data import making
from mizzen.data.frames import FrameSource
from mizzen.data.making import LocalRunner, Making
from mizzen.data.pipeline import Pipeline
from mizzen.data.spool import Spool
from mizzen_api.dataset import DatasetSpec


def table(rows: int = 600, seed: int = 1) -> pl.DataFrame:
    """Numbers with gaps, categories, dates, texts, and a class that follows from them."""
    random = np.random.default_rng(seed)
    age = random.normal(40, 12, rows).round(1)
    return pl.DataFrame(
        {
            "age": pl.Series(age).set(pl.Series(random.random(rows) < 0.1), None),
            "price": random.exponential(3.0, rows),
            "visits": random.integers(0, 20, rows),
            "country": random.choice(["de", "fr", "us"], rows, p=[0.5, 0.3, 0.2]),
            "seen": [f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}T{i % 24:02d}:30:00Z" for i in range(rows)],
            "text": [f"word{i % 50} is {'good' if i % 3 else 'bad'} number {i}" for i in range(rows)],
            "label": np.where(age > 40, "old", "young"),
        }
    )


def spec(*transforms: dict[str, Any], **changes: Any) -> DatasetSpec:
    document = {"sources": [{"uri": "memory://frame"}], "target": "label", "transforms": list(transforms), **changes}
    return DatasetSpec.model_validate(document)


class CountingRunner(LocalRunner):
    """Counts the passes over the data."""

    def __init__(self) -> None:
        self.passes = 0

    def fit(self, *args: Any) -> Any:
        self.passes += 1
        return super().fit(*args)


class Made:
    """A version in memory: the pipeline and the rows of each part."""

    def __init__(self, making_: Making, pipeline: Pipeline, parts: Sequence[pl.DataFrame], passes: int) -> None:
        self.making, self.pipeline, self.parts, self.passes = making_, pipeline, parts, passes

    @property
    def train(self) -> pl.DataFrame:
        return self.parts[0]


def make(of: DatasetSpec, frame: pl.DataFrame, chunk_rows: int | None = None) -> Made:
    source = FrameSource(frame)
    if chunk_rows:
        source.chunk_rows = chunk_rows
    runner = CountingRunner()
    with Spool() as spool:
        made = making.ingest(of, source, spool)
        pipeline = making.fit(made, runner)
        parts: dict[int, list[pl.DataFrame]] = {}
        runner.transform(made, lambda _, part, rows: parts.setdefault(part, []).append(rows))
    empty = next(iter(parts.values()))[0].clear()
    return Made(made, pipeline, [pl.concat(parts.get(part) or [empty]) for part in range(3)], runner.passes)
