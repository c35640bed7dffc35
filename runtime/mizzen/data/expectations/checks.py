"""Constraints that single rows can break: one polars condition each, and a count that merges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mizzen.data.expectations.results import SAMPLES, Result, Sample, count, percent, show
from mizzen_api.dataset_expectations import OnViolation

if TYPE_CHECKING:
    import polars as pl

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Subject:
    """What a check is about: the place of its expectation in the spec, its columns, and what a violation does."""

    expectation: int
    kind: str
    columns: tuple[str, ...]
    statement: str
    on_violation: OnViolation


class Check(ABC):
    """One constraint and what has been seen of the rows so far.

    A state is a sum over chunks: states of neighbouring parts merge, in the order of the rows, into the state of both,
    whatever the parts are and wherever they were counted.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def row_mask(self, frame: pl.DataFrame) -> pl.Series | None:  # noqa: ARG002
        """True where a row breaks it; None where no single row can."""
        return None

    @abstractmethod
    def update(self, frame: pl.DataFrame, rows: Rows) -> None:
        """Count a chunk; `rows` are its rows' numbers, from 0, among those that this state has seen."""

    @abstractmethod
    def merge(self, other: Self, offset: int) -> None:
        """Add the state of the rows that follow; their numbers grow by `offset`."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """As JSON knows it."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None: ...

    @abstractmethod
    def finish(self, now: datetime) -> Result: ...

    def close(self) -> None:  # noqa: B027 (most have nothing to free)
        """Free what lies outside the memory."""

    def result(self, *, passed: bool, rows: int, violations: int, message: str, **more: Any) -> Result:
        subject = self.subject
        return Result(
            expectation=subject.expectation,
            kind=subject.kind,
            columns=subject.columns,
            statement=subject.statement,
            on_violation=subject.on_violation,
            passed=passed,
            rows=rows,
            violations=violations,
            message=f"{subject.statement}: {message}",
            **more,
        )


class RowCheck(Check):
    """Nulls, ranges, sets, patterns and expressions: rows where `broken` is true, among those where `seen` is.

    At most `allowed` of the rows seen may be broken.
    """

    def __init__(self, subject: Subject, broken: pl.Expr, seen: pl.Expr, allowed: float, advice: str) -> None:
        super().__init__(subject)
        self.broken = broken.fill_null(False)
        self.seen = seen
        self.allowed = allowed
        self.advice = advice
        self.rows = 0
        self.violations = 0
        self.samples: list[Sample] = []

    def row_mask(self, frame: pl.DataFrame) -> pl.Series:
        return frame.select(self.broken.alias("broken"))["broken"]

    def update(self, frame: pl.DataFrame, rows: Rows) -> None:
        self.count(frame, rows, self.row_mask(frame), frame.select(self.seen.sum()).item())

    def count(self, frame: pl.DataFrame, rows: Rows, mask: pl.Series, seen: int) -> None:
        """As update, where the mask is known already."""
        broken = int(mask.sum())
        self.rows += seen
        self.violations += broken
        wanted = SAMPLES - len(self.samples)
        if broken and wanted > 0:
            places = mask.arg_true().head(wanted)
            chosen = frame.select(self.subject.columns)[places]
            self.samples += [
                Sample(int(rows[place]) + 1, show(list(zip(self.subject.columns, values, strict=True))))
                for place, values in zip(places, chosen.iter_rows(), strict=True)
            ]

    def merge(self, other: Self, offset: int) -> None:
        self.rows += other.rows
        self.violations += other.violations
        self.samples = (self.samples + moved(other.samples, offset))[:SAMPLES]

    def state(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "violations": self.violations,
            "samples": [[sample.row, sample.value] for sample in self.samples],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.rows, self.violations = state["rows"], state["violations"]
        self.samples = [Sample(row, value) for row, value in state["samples"]]

    def finish(self, now: datetime) -> Result:  # noqa: ARG002 (only freshness asks the time)
        fraction = self.violations / self.rows if self.rows else 0.0
        passed = fraction <= self.allowed
        found = f"{self.violations:,} of {count(self.rows)} ({percent(fraction)})"
        first = f", first row {self.samples[0].row:,}: {self.samples[0].value}" if self.samples else ""
        allowed = f", more than the {percent(self.allowed)} that are tolerated" if self.allowed else ""
        if not self.violations:
            message = f"holds in all {count(self.rows)}"
        elif passed and self.subject.on_violation == "Drop":
            message = f"{found} broke it and {'was' if self.violations == 1 else 'were'} kept aside{first}"
        elif passed:
            message = f"{found} break it, within the {percent(self.allowed)} that are tolerated{first}"
        else:
            message = f"{found} break it{allowed}{first}; {self.advice}"
        return self.result(
            passed=passed, rows=self.rows, violations=self.violations, message=message, samples=tuple(self.samples)
        )


def moved(samples: Sequence[Sample], offset: int) -> list[Sample]:
    return [Sample(sample.row + offset, sample.value) for sample in samples]
