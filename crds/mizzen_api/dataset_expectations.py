"""What a Dataset's rows must be like, and what happens to the version, or to the rows, where they are not."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from mizzen_api.meta import ApiModel, rules

OnViolation = Literal["Fail", "Warn", "Drop"]
ColumnName = Annotated[str, Field(min_length=1, max_length=256)]

DURATION = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"


def duration(text: str) -> timedelta:
    """1d12h, 90m or 30s as a time span. ValueError where it is none."""
    found = re.match(DURATION, text)
    if not text or found is None:
        raise ValueError(f"{text!r} is not a duration: write it as 1d12h, 90m or 30s")
    days, hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


class Bounds(ApiModel):
    """A lower end, an upper end, or both."""

    model_config = rules(
        ("has(self.min) || has(self.max)", "set min, max or both"),
        ("!(has(self.min) && has(self.max)) || self.min <= self.max", "min must not be above max"),
    )

    min: float | None = Field(None, description="Lowest value that is allowed.")
    max: float | None = Field(None, description="Highest value that is allowed.")


class QuantileBounds(Bounds):
    """Where one quantile of a column must lie."""

    quantile: float = Field(
        description="Which one: 0.5 is the median. It is the smallest value that at least this part of the values "
        "does not exceed.",
        gt=0,
        lt=1,
    )


# Constraints that one row alone can break, with one column or with many; only these can drop rows.
ROW_LEVEL = ("min", "max", "values", "pattern", "expression")
# Constraints that speak about all rows together.
WHOLE = ("unique", "minRows", "maxRows", "maxAge", "mean", "quantiles")
OF_ONE_COLUMN = ("min", "max", "maxNullFraction", "values", "pattern", "maxAge", "mean", "quantiles")


def _any(*fields: str) -> str:
    return " || ".join("self.unique" if field == "unique" else f"has(self.{field})" for field in fields)


class Expectation(ApiModel):
    """One or several constraints on the rows, which share what happens where they are broken."""

    model_config = rules(
        (
            _any(*ROW_LEVEL, "maxNullFraction", *WHOLE),
            "an expectation constrains something: set min, max, maxNullFraction, values, pattern, unique, minRows, "
            "maxRows, maxAge, expression, mean or quantiles",
        ),
        (
            f"has(self.column) || !({_any(*OF_ONE_COLUMN)})",
            "set column: min, max, maxNullFraction, values, pattern, maxAge, mean and quantiles are about one column",
        ),
        ("!self.unique || has(self.column) || has(self.columns)", "unique needs column, or columns for a compound key"),
        (
            "!has(self.columns) || (self.unique && !has(self.column))",
            "columns is the compound key of unique: set unique to true and leave column out",
        ),
        ("!(has(self.min) && has(self.max)) || self.min <= self.max", "min must not be above max"),
        ("!(has(self.minRows) && has(self.maxRows)) || self.minRows <= self.maxRows", "minRows is above maxRows"),
        (
            f"self.onViolation != 'Drop' || !({_any(*WHOLE)})",
            "onViolation Drop is for what single rows can break (min, max, values, pattern, expression, and "
            "maxNullFraction 0): set Fail or Warn, or move the other constraints into an expectation of their own",
        ),
        (
            "self.onViolation != 'Drop' || !has(self.maxNullFraction) || self.maxNullFraction <= 0.0",
            "onViolation Drop drops every row without a value: set maxNullFraction to 0, or use Fail or Warn",
        ),
        (
            f"!has(self.tolerance) || {_any(*ROW_LEVEL)}",
            "tolerance is the part of the rows that may break min, max, values, pattern or expression: set one of them",
        ),
    )

    column: ColumnName | None = Field(None, description="Column that the constraints are about.")
    columns: list[ColumnName] | None = Field(
        None, description="Columns of a compound key, for unique.", min_length=1, max_length=16
    )
    min: float | None = Field(None, description="Lowest value that is allowed. Missing values and NaN pass.")
    max: float | None = Field(None, description="Highest value that is allowed. Missing values and NaN pass.")
    max_null_fraction: float | None = Field(
        None, description="Part of the rows that may have no value; NaN counts as none.", ge=0, le=1
    )
    values: list[Annotated[str, Field(max_length=1024)]] | None = Field(
        None,
        description="The values that are allowed, written as text and read as the column's type. Missing values pass.",
        min_length=1,
        max_length=4096,
    )
    pattern: str | None = Field(
        None,
        description="Regular expression (RE2 syntax) that the whole value must match. Missing values pass.",
        min_length=1,
        max_length=1024,
    )
    unique: bool = Field(
        False,
        description="No two rows have the same value of column, or of columns together. A key with a missing value "
        "passes, as in SQL.",
    )
    min_rows: int | None = Field(None, description="Rows that there must be at least.", ge=0, le=10**15)
    max_rows: int | None = Field(None, description="Rows that there may be at most.", ge=0, le=10**15)
    max_age: str | None = Field(
        None,
        description="How old the column's newest date or time may be, as 1d12h or 90m. A time without a zone is UTC, "
        "and a date is its first moment.",
        min_length=2,
        max_length=32,
        pattern=DURATION,
    )
    expression: str | None = Field(
        None,
        description="What must hold in each row, in a subset of CEL over the columns, for example "
        "`ended >= started && (country != 'US' || zip.matches('[0-9]{5}'))`. Where a missing value leaves the answer "
        "open, the row passes.",
        min_length=1,
        max_length=4096,
    )
    mean: Bounds | None = Field(None, description="Where the mean of the column's values must lie.")
    quantiles: list[QuantileBounds] | None = Field(
        None, description="Where quantiles of the column's values must lie.", min_length=1, max_length=16
    )
    tolerance: float | None = Field(
        None,
        description="Part of the rows that may break min, max, values, pattern or expression. 0 by default; with Drop, "
        "which keeps those rows aside, 1: then more than this part fails the version.",
        ge=0,
        le=1,
    )
    on_violation: OnViolation = Field(
        "Fail",
        description="Fail: no version is published. Warn: it is, and the report and the status say so. Drop: rows "
        "that break it are kept aside with their reasons, and the version has the others.",
    )
