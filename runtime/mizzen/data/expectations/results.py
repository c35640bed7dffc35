"""What came of each expectation: counts, a few values, and a message that says what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_expectations import OnViolation

SAMPLES = 5  # broken rows that a result shows, the first ones
ROW_KINDS = ("nulls", "range", "set", "pattern", "expression", "unique")  # whose violations are rows
SAMPLE_LENGTH = 80  # reports travel further than data: nobody's whole text goes along


@dataclass(frozen=True)
class Sample:
    """A row that breaks an expectation: its number among all rows of the sources, from 1, and what stands there."""

    row: int
    value: str


@dataclass(frozen=True)
class Result:
    """One constraint, held against all rows.

    `rows` are those that could break it (a missing value cannot be out of range), `violations` those that did.
    """

    expectation: int  # its place in spec.expectations
    kind: str
    columns: tuple[str, ...]
    statement: str  # the constraint, as short as a table wants it
    on_violation: OnViolation
    passed: bool
    rows: int
    violations: int
    message: str
    samples: tuple[Sample, ...] = ()
    observed: dict[str, str | float | int | None] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        return self.violations / self.rows if self.rows else 0.0

    @property
    def outcome(self) -> str:
        """Passed, Dropped (rows, within what is tolerated), Warned or Failed."""
        if self.passed:
            return "Dropped" if self.on_violation == "Drop" and self.violations else "Passed"
        return "Warned" if self.on_violation == "Warn" else "Failed"

    def to_wire(self) -> dict[str, Any]:
        return {
            "expectation": self.expectation,
            "kind": self.kind,
            "columns": list(self.columns),
            "statement": self.statement,
            "onViolation": self.on_violation,
            "outcome": self.outcome,
            "passed": self.passed,
            "rows": self.rows,
            "violations": self.violations,
            "fraction": self.fraction,
            "observed": self.observed,
            "samples": [asdict(sample) for sample in self.samples],
            "message": self.message,
        }

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Result:
        return cls(
            expectation=wire["expectation"],
            kind=wire["kind"],
            columns=tuple(wire["columns"]),
            statement=wire["statement"],
            on_violation=wire["onViolation"],
            passed=wire["passed"],
            rows=wire["rows"],
            violations=wire["violations"],
            message=wire["message"],
            samples=tuple(Sample(**sample) for sample in wire["samples"]),
            observed=wire["observed"],
        )


@dataclass(frozen=True)
class Outcome:
    """All results of a version, and how many rows were kept aside."""

    results: tuple[Result, ...]
    rows: int
    dropped: int

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome == "Failed")

    @property
    def warnings(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome == "Warned")

    def check(self) -> None:
        """UserError where an expectation failed; it names each of them."""
        if self.failures:
            said = "; ".join(result.message for result in self.failures[:5])
            more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
            raise UserError(Reason.EXPECTATION_FAILED, f"{said}{more}")

    def to_json(self) -> str:
        wire = {"rows": self.rows, "dropped": self.dropped, "results": [result.to_wire() for result in self.results]}
        return json.dumps(wire, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Outcome:
        wire = json.loads(text)
        results = tuple(Result.from_wire(result) for result in wire["results"])
        return cls(results, wire["rows"], wire["dropped"])


def cut(value: object) -> str:
    """A value as text on one line, never longer than a sample may be."""
    text = "missing" if value is None else " ".join(str(value).split())
    return text if len(text) <= SAMPLE_LENGTH else text[: SAMPLE_LENGTH - 1] + "…"


def show(values: Sequence[tuple[str, object]]) -> str:
    """The values of one row, by column where there are several; all together no longer than a sample may be."""
    if len(values) == 1:
        return cut(values[0][1])
    return cut(", ".join(f"{name}={cut(value)}" for name, value in values))


def percent(part: float) -> str:
    """0.0012 as 0.12 %; what is above nothing never reads as 0."""
    said = f"{100 * part:.3g}"
    return f"{said if 'e' not in said else '<0.001'} %"


def count(number: int, noun: str = "row") -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain(value: float) -> str:
    """A bound as its author wrote it: 130, 0.5, 123456789."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
