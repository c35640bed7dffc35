"""Constraints on all rows together whose state is a handful of numbers: count, freshness, mean, quantile."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mizzen.data.expectations.checks import Check, Rows, Subject
from mizzen.data.expectations.results import Result, count, percent, plain
from mizzen_api.dataset_expectations import Bounds, QuantileBounds

if TYPE_CHECKING:
    import polars as pl


class RowCount(Check):
    """minRows, maxRows: of the rows that are left when others were dropped."""

    def __init__(self, subject: Subject, low: int | None, high: int | None) -> None:
        super().__init__(subject)
        self.low = low
        self.high = high
        self.rows = 0

    def update(self, frame: pl.DataFrame, rows: Rows) -> None:  # noqa: ARG002
        self.rows += frame.height

    def merge(self, other: Self, offset: int) -> None:  # noqa: ARG002
        self.rows += other.rows

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def restore(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]

    def finish(self, now: datetime) -> Result:  # noqa: ARG002
        few = self.low is not None and self.rows < self.low
        many = self.high is not None and self.rows > self.high
        message = f"there {'is' if self.rows == 1 else 'are'} {count(self.rows)}"
        if few:
            message += "; is a source or a part of it missing, does a query select too little, or were rows dropped?"
        if many:
            message += "; is a source read twice, or does a join multiply rows?"
        return self.result(
            passed=not few and not many,
            rows=self.rows,
            violations=int(few or many),
            message=message,
            observed={"rows": self.rows},
        )


class Freshness(Check):
    """maxAge: the newest value of a column of dates or times, against an injected now."""

    def __init__(self, subject: Subject, time: pl.Expr, limit: timedelta) -> None:
        super().__init__(subject)
        self.time = time  # microseconds, UTC
        self.limit = limit
        self.rows = 0
        self.newest: datetime | None = None

    def update(self, frame: pl.DataFrame, rows: Rows) -> None:  # noqa: ARG002
        found = frame.select(self.time.max().alias("newest"), self.time.count().alias("rows")).row(0, named=True)
        self._see(found["newest"], found["rows"])

    def _see(self, newest: datetime | None, rows: int) -> None:
        self.rows += rows
        if newest is not None and (self.newest is None or newest > self.newest):
            self.newest = newest

    def merge(self, other: Self, offset: int) -> None:  # noqa: ARG002
        self._see(other.newest, other.rows)

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "newest": self.newest.isoformat() if self.newest else None}

    def restore(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]
        self.newest = datetime.fromisoformat(state["newest"]) if state["newest"] else None

    def finish(self, now: datetime) -> Result:
        assert now.tzinfo is not None, "now must have a time zone"
        if self.newest is None:
            return self.result(
                passed=False, rows=0, violations=1, message="no row has a date or time; is this the right column?"
            )
        newest = self.newest.astimezone(UTC)
        age = now - newest
        message = f"the newest is {newest:%Y-%m-%d %H:%M:%S} UTC, {span(age)} old"
        if age < timedelta(0):
            message = f"the newest is {newest:%Y-%m-%d %H:%M:%S} UTC, {span(-age)} ahead of now: is it a mistake?"
        fresh = age <= self.limit
        if not fresh:
            message += "; does what writes the source still run? Or allow a larger maxAge"
        return self.result(
            passed=fresh,
            rows=self.rows,
            violations=int(not fresh),
            message=message,
            observed={"newest": newest.isoformat(), "ageSeconds": int(age.total_seconds())},
        )


class Mean(Check):
    """Where the mean lies. The sum is exact, a whole number of 2**-SCALE, so that any partition gives the same bits."""

    def __init__(self, subject: Subject, value: pl.Expr, bounds: Bounds) -> None:
        super().__init__(subject)
        self.value = value  # Float64, null where missing
        self.bounds = bounds
        self.rows = 0
        self.infinite = 0
        self.total = 0

    def update(self, frame: pl.DataFrame, rows: Rows) -> None:  # noqa: ARG002
        values = frame.select(self.value.alias("value"))["value"].drop_nulls().to_numpy()
        finite = values[np.isfinite(values)]
        self.rows += len(values)
        self.infinite += len(values) - len(finite)
        self.total += exact_sum(finite)

    def merge(self, other: Self, offset: int) -> None:  # noqa: ARG002
        self.rows += other.rows
        self.infinite += other.infinite
        self.total += other.total

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "infinite": self.infinite, "total": hex(self.total)}

    def restore(self, state: dict[str, Any]) -> None:
        self.rows, self.infinite, self.total = state["rows"], state["infinite"], int(state["total"], 16)

    def finish(self, now: datetime) -> Result:  # noqa: ARG002
        if self.infinite or not self.rows:
            why = f"{count(self.infinite)} with infinity" if self.infinite else "no row has a value"
            return self.result(passed=False, rows=self.rows, violations=1, message=f"there is no mean: {why}")
        mean = self.total / (self.rows << SCALE)
        low, high = self.bounds.min, self.bounds.max
        passed = (low is None or mean >= low) and (high is None or mean <= high)
        message = f"the mean of {count(self.rows, 'value')} is {mean:.6g}"
        if not passed:
            message += "; has a unit changed, or the population? Otherwise widen mean's min and max"
        return self.result(
            passed=passed, rows=self.rows, violations=int(not passed), message=message, observed={"mean": mean}
        )


SCALE = 1126  # every finite double is a whole number of 2**-1126, and below 2**1024


def exact_sum(values: np.ndarray[Any, np.dtype[np.float64]]) -> int:
    """The sum as a whole number of 2**-SCALE: 53-bit mantissas are added in two halves for each exponent, which float64
    does exactly for up to 2**26 values, and the rest is whole numbers."""
    assert len(values) < 1 << 26, "chunks are smaller"
    mantissas, exponents = np.frexp(values)
    whole = mantissas * 2.0**53
    high = np.trunc(whole * 2.0**-27)
    low = whole - high * 2.0**27
    places = exponents + 1073
    upper, lower = (np.bincount(places, weights=half) for half in (high, low))
    taken = np.flatnonzero((upper != 0) | (lower != 0))
    return sum(((int(upper[place]) << 27) + int(lower[place])) << int(place) for place in taken)


class Quantile(Check):
    """Where a quantile lies, exactly, by two counts: it is at least `min` where fewer than the part `quantile` of the
    values are below min, and at most `max` where at least this part is not above max."""

    def __init__(self, subject: Subject, value: pl.Expr, bounds: QuantileBounds) -> None:
        super().__init__(subject)
        self.value = value
        self.bounds = bounds
        self.rows = 0
        self.below = 0
        self.above = 0

    def update(self, frame: pl.DataFrame, rows: Rows) -> None:  # noqa: ARG002
        import polars as pl

        low, high = self.bounds.min, self.bounds.max
        rows_, below, above = frame.select(
            self.value.count().alias("rows"),
            (self.value < low).sum().alias("below") if low is not None else pl.lit(0).alias("below"),
            (self.value > high).sum().alias("above") if high is not None else pl.lit(0).alias("above"),
        ).row(0)
        self.rows, self.below, self.above = self.rows + rows_, self.below + below, self.above + above

    def merge(self, other: Self, offset: int) -> None:  # noqa: ARG002
        self.rows, self.below, self.above = self.rows + other.rows, self.below + other.below, self.above + other.above

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "below": self.below, "above": self.above}

    def restore(self, state: dict[str, Any]) -> None:
        self.rows, self.below, self.above = state["rows"], state["below"], state["above"]

    def finish(self, now: datetime) -> Result:  # noqa: ARG002
        if not self.rows:
            return self.result(passed=False, rows=0, violations=1, message="no row has a value")
        # Rank of the quantile, from 1: the smallest value that at least this part of the values does not exceed.
        rank = max(1, math.ceil(self.bounds.quantile * self.rows - 1e-9))
        too_low = self.below >= rank
        too_high = self.rows - self.above < rank
        parts = []
        if self.bounds.min is not None:
            parts.append(f"{percent(self.below / self.rows)} of the values are below {plain(self.bounds.min)}")
        if self.bounds.max is not None:
            parts.append(f"{percent(self.above / self.rows)} of the values are above {plain(self.bounds.max)}")
        message = " and ".join(parts)
        if too_low or too_high:
            message += f", so that the quantile is {'below min' if too_low else 'above max'}"
            message += "; has a unit changed, or the population? Otherwise widen its min and max"
        return self.result(
            passed=not too_low and not too_high,
            rows=self.rows,
            violations=int(too_low or too_high),
            message=message,
            observed={"below": self.below, "above": self.above},
        )


def span(time: timedelta) -> str:
    """A time span as people say it: 3 d 4 h, 5 h 10 min, 12 min, 40 s."""
    seconds = int(time.total_seconds())
    parts = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s"))
    said = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(said[:2]) or "0 s"
