"""All expectations of a Dataset over its rows: chunk by chunk, broken rows apart from kept ones, results at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mizzen.data.expectations.build import build
from mizzen.data.expectations.checks import Check, RowCheck, Rows
from mizzen.data.expectations.results import Outcome
from mizzen_api.dataset_expectations import Expectation

if TYPE_CHECKING:
    import polars as pl

REASONS = "_reasons"  # column of rejected rows: what each of them broke
ROW = "_row"  # column of rejected rows: their number among all rows of the sources, from 1


@dataclass(frozen=True)
class Sifted:
    """A chunk after its expectations: what stays, and what is kept aside with columns REASONS and ROW."""

    kept: pl.DataFrame
    rejected: pl.DataFrame


class Suite:
    """Checks with onViolation Drop see every row; all others see the rows that are left, as the version will have them.

    suite = Suite(spec.expectations, schema)
    for frame in source.chunks():
        sifted = suite.update(frame)
    suite.finish(now).check()
    """

    def __init__(
        self, expectations: Sequence[Expectation], schema: Mapping[str, pl.DataType], scratch: Path | None = None
    ) -> None:
        """UserError where an expectation cannot be held against these columns. `scratch` takes what memory does not."""
        self.checks: list[Check] = build(expectations, schema, scratch)
        self.row_checks = [check for check in self.checks if isinstance(check, RowCheck)]
        self.droppers = [check for check in self.row_checks if check.subject.on_violation == "Drop"]
        self.watchers = [check for check in self.checks if check not in self.droppers]
        self.rows = 0
        self.dropped = 0

    def update(self, frame: pl.DataFrame) -> Sifted:
        """Count a chunk; its rows follow those that this suite has seen."""
        import polars as pl

        rows = np.arange(self.rows, self.rows + frame.height, dtype=np.int64)
        masks = self._count(self.droppers, frame, rows)
        self.rows += frame.height
        bad = pl.Series("bad", np.zeros(frame.height, dtype=bool))
        for mask in masks:
            bad = bad | mask
        kept = frame
        dropped = int(bad.sum())
        if dropped:
            self.dropped += dropped
            kept, rows_kept = frame.filter(~bad), rows[~bad.to_numpy()]
        else:
            rows_kept = rows
        self._count([check for check in self.watchers if isinstance(check, RowCheck)], kept, rows_kept)
        for check in self.watchers:
            if not isinstance(check, RowCheck):
                check.update(kept, rows_kept)
        return Sifted(kept, self._rejected(frame, rows, bad, masks))

    @staticmethod
    def _count(checks: Sequence[RowCheck], frame: pl.DataFrame, rows: Rows) -> list[pl.Series]:
        """All masks in one pass of polars, which runs them in parallel and shares what they have in common."""
        if not checks:
            return []
        broken = frame.select(check.broken.alias(f"{place}") for place, check in enumerate(checks))
        seen = frame.select(check.seen.sum().alias(f"{place}") for place, check in enumerate(checks)).row(0)
        masks = broken.get_columns()
        for check, mask, count in zip(checks, masks, seen, strict=True):
            check.count(frame, rows, mask, count)
        return masks

    def _rejected(self, frame: pl.DataFrame, rows: Rows, bad: pl.Series, masks: list[pl.Series]) -> pl.DataFrame:
        import polars as pl

        reasons = [
            pl.when(mask.filter(bad)).then(pl.lit(check.subject.statement))
            for check, mask in zip(self.droppers, masks, strict=True)
        ]
        listed = pl.concat_list(reasons).list.drop_nulls() if reasons else pl.lit([], dtype=pl.List(pl.String))
        return frame.filter(bad).with_columns(
            listed.alias(REASONS), pl.Series(ROW, rows[bad.to_numpy()] + 1, dtype=pl.Int64)
        )

    def merge(self, other: Suite) -> None:
        """Add a suite of the same expectations over the rows that follow."""
        for mine, theirs in zip(self.checks, other.checks, strict=True):
            mine.merge(theirs, self.rows)
        self.rows += other.rows
        self.dropped += other.dropped

    def to_json(self) -> str:
        states = [check.state() for check in self.checks]
        return json.dumps({"rows": self.rows, "dropped": self.dropped, "checks": states})

    def restore(self, text: str | bytes) -> Suite:
        """Take the state of a suite of the same expectations and columns; returns itself."""
        wire = json.loads(text)
        self.rows, self.dropped = wire["rows"], wire["dropped"]
        for check, state in zip(self.checks, wire["checks"], strict=True):
            check.restore(state)
        return self

    def finish(self, now: datetime) -> Outcome:
        """The results; `now` is what ages are measured from."""
        try:
            return Outcome(tuple(check.finish(now) for check in self.checks), self.rows, self.dropped)
        finally:
            for check in self.checks:
                check.close()
