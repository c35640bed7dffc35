"""Uniqueness of one column or a compound key: exact, over any number of rows, in bounded memory.

Keys are kept by value, never by a digest alone. Up to SPILL_BYTES of them wait in memory; then they are cut by a hash
into PARTS parts and written as one Arrow file, a batch for each. Equal keys have equal hashes, so at the end each part
is looked at alone: its batches of all files are compared by value. Of n keys, about n / PARTS are in memory then.
"""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mizzen.data.expectations.checks import Check, Rows, Subject
from mizzen.data.expectations.results import SAMPLES, Result, Sample, count, percent, show

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SPILL_BYTES = 128 << 20
PARTS = 64
_ROW, _PART = "__row__", "__part__"


@dataclass(frozen=True)
class Run:
    """One spilled file with a batch for each part; its row numbers grow by `offset`."""

    path: Path
    offset: int


class Unique(Check):
    """No two rows have the same key; a key with a missing value equals none."""

    def __init__(self, subject: Subject, scratch: Path | None = None, spill_bytes: int = SPILL_BYTES) -> None:
        super().__init__(subject)
        self.scratch = scratch
        self.spill_bytes = spill_bytes
        self.rows = 0
        self.waiting: list[pl.DataFrame] = []
        self.waiting_bytes: float = 0
        self.runs: list[Run] = []
        self.folders: list[_Folder] = []

    def update(self, frame: pl.DataFrame, rows: Rows) -> None:
        import polars as pl

        keys = frame.select(_plain(name, frame.schema[name]) for name in self.columns)
        self._add(keys.with_columns(pl.Series(_ROW, rows)).drop_nulls())

    @property
    def columns(self) -> list[str]:
        return list(self.subject.columns)

    def _key(self) -> pl.Expr:
        import polars as pl

        return pl.struct(self.columns) if len(self.columns) > 1 else pl.col(self.columns[0])

    def _add(self, keys: pl.DataFrame) -> None:
        if keys.height:
            self.rows += keys.height
            self.waiting.append(keys)
            self.waiting_bytes += keys.estimated_size()
        if self.waiting_bytes >= self.spill_bytes:
            self._spill()

    def _spill(self) -> None:
        import polars as pl
        import pyarrow as pa

        keys = pl.concat(self.waiting)
        parts = (self._key().hash(seed=7) % PARTS).cast(pl.UInt8).alias(_PART)
        keys = keys.with_columns(parts).sort(_PART, maintain_order=True)
        bounds = np.searchsorted(keys[_PART].to_numpy(), np.arange(PARTS + 1))
        if not self.folders:
            self.folders.append(_Folder(self.scratch))
        path = self.folders[0].path / f"{len(self.runs)}.arrow"
        table = keys.drop(_PART).to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            for start, stop in pairwise(bounds.tolist()):
                writer.write_batch(_one_batch(table.slice(start, stop - start)))
        self.runs.append(Run(path, 0))
        self.waiting, self.waiting_bytes = [], 0

    def merge(self, other: Self, offset: int) -> None:
        import polars as pl

        self.rows += other.rows
        self.runs += [Run(run.path, run.offset + offset) for run in other.runs]
        self.folders += other.folders  # they live as long as somebody reads them
        self.waiting += [keys.with_columns(pl.col(_ROW) + offset) for keys in other.waiting]
        self.waiting_bytes += other.waiting_bytes
        if self.waiting_bytes >= self.spill_bytes:
            self._spill()

    def state(self) -> dict[str, Any]:
        """The keys themselves: a state may be merged on another machine, whose polars may hash differently."""
        import polars as pl

        frames = [self._read(run, part) for run in self.runs for part in range(PARTS)] + self.waiting
        if not frames:
            return {"keys": None}
        buffer = io.BytesIO()
        pl.concat(frames).write_ipc(buffer, compression="zstd")
        return {"keys": base64.b64encode(buffer.getvalue()).decode()}

    def restore(self, state: dict[str, Any]) -> None:
        import polars as pl

        if state["keys"] is not None:
            self._add(pl.read_ipc(io.BytesIO(base64.b64decode(state["keys"]))))

    def _read(self, run: Run, part: int) -> pl.DataFrame:
        import polars as pl
        import pyarrow as pa

        with pa.memory_map(str(run.path)) as file:
            keys = pl.DataFrame(pa.ipc.open_file(file).get_batch(part))
        return keys.with_columns(pl.col(_ROW) + run.offset)

    def _parts(self) -> Iterator[pl.DataFrame]:
        """Frames that hold all rows, each with every row of the keys that it has."""
        import polars as pl

        if not self.runs:
            if self.waiting:
                yield pl.concat(self.waiting)
            return
        if self.waiting:
            self._spill()
        for part in range(PARTS):
            yield pl.concat([self._read(run, part) for run in self.runs])

    def finish(self, now: datetime) -> Result:  # noqa: ARG002
        """Violations are the rows that repeat an earlier one: dropping them would make the key unique."""
        violations = 0
        samples: list[Sample] = []
        for keys in self._parts():
            repeated = keys.height - int(keys.select(self._key().n_unique()).item())
            violations += repeated
            if repeated:  # only now does the order matter: parts that were merged may lie behind later rows
                repeats = keys.sort(_ROW).filter(~self._key().is_first_distinct()).head(SAMPLES)
                for *values, row in repeats.select(*self.columns, _ROW).iter_rows():
                    samples.append(Sample(row + 1, show(list(zip(self.columns, values, strict=True)))))
        samples = sorted(samples, key=lambda sample: sample.row)[:SAMPLES]
        passed = violations == 0
        if passed:
            message = f"holds in all {count(self.rows)}"
        else:
            part = percent(violations / self.rows)
            message = (
                f"{violations:,} of {count(self.rows)} ({part}) repeat an earlier one, first row {samples[0].row:,}: "
                f"{samples[0].value}; remove them from the source, or add columns to the key"
            )
        return self.result(
            passed=passed, rows=self.rows, violations=violations, message=message, samples=tuple(samples)
        )

    def close(self) -> None:
        self.waiting, self.runs = [], []
        self.folders = []


def _plain(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as values that one can compare across chunks: NaN is missing, categories are their texts."""
    import polars as pl

    if dtype.is_float():
        return pl.col(name).fill_nan(None)
    return pl.col(name).cast(pl.String) if dtype in (pl.Categorical, pl.Enum) else pl.col(name)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    import pyarrow as pa

    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


class _Folder:
    """A folder of spilled files that goes with the last state that names it."""

    def __init__(self, scratch: Path | None) -> None:
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="unique-", dir=scratch))
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
