"""What the page's template asks that is more than a value: orders, shares, words."""

from __future__ import annotations

from collections.abc import Sequence

from mizzen.data.expectations.results import ROW_KINDS, Outcome, Result
from mizzen.data.report.view import Column, Drift, FeatureDrift, Part, Report, Unit

TOP_VALUES = 6
MOST_CLASSES = 12
_ORDER = {"Failed": 0, "Warned": 1, "Dropped": 2, "Passed": 3}
_MARKS = {"Failed": "✕", "Warned": "!", "Dropped": "↓", "Passed": "✓"}


def results(outcome: Outcome) -> list[Result]:
    """The worst first; within that, in the order of the spec."""
    return sorted(outcome.results, key=lambda result: _ORDER[result.outcome])


def mark(outcome: str) -> str:
    """A sign beside the colour: not everybody sees colours."""
    return _MARKS[outcome]


def counts_rows(result: Result) -> bool:
    """Whether its violations are rows; a mean is within its bounds or not."""
    return result.kind in ROW_KINDS


def verdict(outcome: Outcome) -> str:
    """3 failed, 1 warned, 12 passed."""
    counts = {name: sum(result.outcome == name for result in outcome.results) for name in _ORDER}
    return ", ".join(f"{count} {name.lower()}" for name, count in counts.items() if count) or "none"


def drifts(drift: Drift) -> list[FeatureDrift]:
    """The farthest from its reference first; those that were not compared last."""

    def distance(feature: FeatureDrift) -> float:
        if feature.statistic is None:
            return -1.0
        return feature.statistic / feature.threshold if feature.threshold else feature.statistic

    return sorted(drift.features, key=lambda feature: (not feature.drifted, -distance(feature), feature.column))


def statistics(drift: Drift) -> list[str]:
    """Names of all statistics that any column has."""
    return list(dict.fromkeys(name for feature in drift.features for name in feature.statistics))


def fate(feature: FeatureDrift) -> tuple[str, str, str]:
    """Style, sign and word of a column's verdict."""
    if feature.statistic is None:
        return "none", "·", "not compared"
    return ("failed", "✕", "drifted") if feature.drifted else ("passed", "✓", "steady")


def classes(parts: Sequence[Part]) -> list[tuple[str, list[tuple[str, int, float]]]]:
    """Per class, the largest first: its rows and share in each part. Beyond MOST_CLASSES the rest is one line."""
    totals: dict[str, int] = {}
    for part in parts:
        for name, rows in part.classes.items():
            totals[name] = totals.get(name, 0) + rows
    names = sorted(totals, key=lambda name: (-totals[name], name))
    shown, rest = names[:MOST_CLASSES], names[MOST_CLASSES:]
    lines = [(name, [_cell(part, [name]) for part in parts]) for name in shown]
    if rest:
        lines.append((f"{len(rest)} more", [_cell(part, rest) for part in parts]))
    return lines


def _cell(part: Part, names: Sequence[str]) -> tuple[str, int, float]:
    rows = sum(part.classes.get(name, 0) for name in names)
    total = sum(part.classes.values())
    return part.name, rows, rows / total if total else 0.0


def shares(parts: Sequence[Part]) -> list[tuple[str, float]]:
    total = sum(part.rows for part in parts) or 1
    return [(part.name, part.rows / total) for part in parts]


def median(column: Column) -> list[float]:
    return [value for share, value in column.quantiles if share == 0.5]


def top(column: Column) -> list[tuple[str, int, float]]:
    """The most frequent values, their rows, and those as a part of all rows."""
    return [(value, rows, rows / column.rows if column.rows else 0.0) for value, rows in column.top[:TOP_VALUES]]


def facts(column: Column) -> list[tuple[str, float, Unit]]:
    """Numbers below a picture, few enough to be read."""
    known = [("median", value, column.unit) for value in median(column)]
    if column.mean is not None and column.unit == Unit.NUMBER:
        known.append(("mean", column.mean, column.unit))
    if column.std is not None and column.unit == Unit.NUMBER:
        known.append(("σ", column.std, Unit.NUMBER))
    return known


def headline(report: Report) -> str:
    """One sentence on whether this version can be used."""
    said = []
    if report.expectations is not None and report.expectations.failures:
        said.append(_many(len(report.expectations.failures), "expectation failed", "expectations failed"))
    elif report.expectations is not None and report.expectations.warnings:
        said.append(_many(len(report.expectations.warnings), "expectation warns", "expectations warn"))
    elif report.expectations is not None and report.expectations.results:
        said.append("all expectations hold")
    if report.drift is not None:
        moved = sum(feature.drifted for feature in report.drift.features)
        columns = _many(moved, "column has drifted", "columns have drifted")
        said.append(f"the data has drifted from {report.drift.reference}" if report.drift.drifted else columns)
    text = ", and ".join(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _many(number: int, one: str, more: str) -> str:
    return f"{number or 'no'} {one if number == 1 else more}"
