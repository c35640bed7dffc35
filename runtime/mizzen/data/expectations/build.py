"""From the expectations of a spec to checks: columns are there, types fit, and nothing is asked that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mizzen.data.expectations.checks import Check, RowCheck, Subject
from mizzen.data.expectations.expression import compile_expression
from mizzen.data.expectations.functions import bad_pattern, parse_time
from mizzen.data.expectations.results import plain
from mizzen.data.expectations.terms import utc
from mizzen.data.expectations.unique import Unique
from mizzen.data.expectations.whole import Freshness, Mean, Quantile, RowCount
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_expectations import OF_ONE_COLUMN, ROW_LEVEL, WHOLE, Bounds, Expectation, duration

if TYPE_CHECKING:
    import polars as pl

Schema = Mapping[str, "pl.DataType"]


def build(expectations: Sequence[Expectation], schema: Schema, scratch: Path | None = None) -> list[Check]:
    """One check for each constraint, in the order of the spec. UserError names the expectation and the mend."""
    return [check for place, asked in enumerate(expectations) for check in _Builder(place, asked, schema, scratch)]


def refusals(asked: Expectation) -> Iterator[str]:
    """What the rules of the CRD refuse, for callers that have no API server between them and us."""
    wire = asked.to_wire()
    unset = (None, False)
    given = {name for name in (*ROW_LEVEL, *WHOLE, "maxNullFraction") if not any(wire.get(name) is no for no in unset)}
    if not given:
        yield "it constrains nothing: set min, max, maxNullFraction, values, pattern, unique, minRows, expression, …"
    if asked.column is None and given & set(OF_ONE_COLUMN):
        yield f"set column: {_names(given & set(OF_ONE_COLUMN))} is about one column"
    if asked.unique and asked.column is None and not asked.columns:
        yield "unique needs column, or columns for a compound key"
    if asked.columns and (not asked.unique or asked.column is not None):
        yield "columns is the compound key of unique: set unique to true and leave column out"
    for low, high in ((asked.min, asked.max), (asked.min_rows, asked.max_rows)):
        if low is not None and high is not None and low > high:
            yield f"its lower end {plain(low)} is above its upper end {plain(high)}"
    if asked.on_violation == "Drop" and given & set(WHOLE):
        yield f"no single row breaks {_names(given & set(WHOLE))}, so that none can be dropped: use Fail or Warn"
    if asked.on_violation == "Drop" and (asked.max_null_fraction or 0) > 0:
        yield "Drop drops every row without a value: set maxNullFraction to 0, or use Fail or Warn"
    if asked.tolerance is not None and not given & set(ROW_LEVEL):
        yield "tolerance is about min, max, values, pattern and expression: set one of them"
    for bounds in (asked.mean, *(asked.quantiles or ())):
        if bounds is not None:
            yield from _bad_bounds(bounds)


def _bad_bounds(bounds: Bounds) -> Iterator[str]:
    if bounds.min is None and bounds.max is None:
        yield "bounds of mean and quantiles have min, max or both"
    elif bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
        yield f"its lower end {plain(bounds.min)} is above its upper end {plain(bounds.max)}"


def _names(found: set[str]) -> str:
    return ", ".join(sorted(found))


class _Builder:
    """The checks of one expectation."""

    def __init__(self, place: int, asked: Expectation, schema: Schema, scratch: Path | None) -> None:
        self.place = place
        self.asked = asked
        self.schema = schema
        self.scratch = scratch
        self.where = f"spec.expectations[{place}]"
        for why in refusals(asked):
            raise self.wrong(why)
        for name in filter(None, (asked.column, *(asked.columns or ()))):
            if name not in schema:
                there = ", ".join(schema)
                raise UserError(
                    Reason.COLUMN_MISSING,
                    f"{self.where}: the sources have no column {name!r}; their columns are {there}",
                )

    def wrong(self, why: str) -> UserError:
        return UserError(Reason.INVALID_PARAMETERS, f"{self.where}: {why}")

    def __iter__(self) -> Iterator[Check]:
        asked = self.asked
        steps: tuple[tuple[bool, Callable[[], Iterator[Check]]], ...] = (
            (asked.max_null_fraction is not None, self.nulls),
            (asked.min is not None or asked.max is not None, self.range),
            (asked.values is not None, self.values),
            (asked.pattern is not None, self.pattern),
            (asked.expression is not None, self.expression),
            (asked.unique, self.unique),
            (asked.min_rows is not None or asked.max_rows is not None, self.row_count),
            (asked.max_age is not None, self.freshness),
            (asked.mean is not None, self.mean),
            (asked.quantiles is not None, self.quantiles),
        )
        for wanted, make in steps:
            if wanted:
                yield from make()

    def subject(self, kind: str, statement: str, columns: Sequence[str] | None = None) -> Subject:
        return Subject(
            self.place, kind, tuple([self.column] if columns is None else columns), statement, self.asked.on_violation
        )

    @property
    def column(self) -> str:
        assert self.asked.column is not None, "refusals() asks for it"
        return self.asked.column

    @property
    def dtype(self) -> pl.DataType:
        return self.schema[self.column]

    @property
    def value(self) -> pl.Expr:
        """The column, with NaN as missing."""
        import polars as pl

        found = pl.col(self.column)
        return found.fill_nan(None) if self.dtype.is_float() else found

    @property
    def allowed(self) -> float:
        if self.asked.tolerance is not None:
            return self.asked.tolerance
        return 1.0 if self.asked.on_violation == "Drop" else 0.0

    def number(self, field: str) -> pl.Expr:
        import polars as pl

        if not self.dtype.is_numeric():
            hint = "give it a number type in columnTypes"
            if self.dtype.is_temporal():
                hint = f"for dates write expression: {self.column} >= date('2026-01-31')"
            raise self.wrong(f"{field} needs numbers, and {self.column!r} is {self.dtype}; {hint}")
        return self.value.cast(pl.Float64) if self.dtype.is_decimal() else self.value

    def nulls(self) -> Iterator[Check]:
        import polars as pl

        limit = self.asked.max_null_fraction or 0.0
        statement = f"{self.column} is there" + (f" in at least {100 * (1 - limit):g} %" if limit else "")
        advice = "impute it, mend the source, or allow more by maxNullFraction"
        allowed = 1.0 if self.asked.on_violation == "Drop" else limit
        every = pl.col(self.column).is_null().is_not_null()  # true in all rows
        yield RowCheck(self.subject("nulls", statement), self.value.is_null(), every, allowed, advice)

    def range(self) -> Iterator[Check]:
        import polars as pl

        value = self.number("a range")
        low, high = self.asked.min, self.asked.max
        broken = pl.lit(False)
        if low is not None:
            broken = broken | (value < _exact(low))
        if high is not None:
            broken = broken | (value > _exact(high))
        left = f"{plain(low)} ≤ " if low is not None else ""
        right = f" ≤ {plain(high)}" if high is not None else ""
        advice = "mend the source, widen min and max, or keep such rows aside by onViolation: Drop"
        yield self.rows("range", f"{left}{self.column}{right}", broken, advice)

    def rows(self, kind: str, statement: str, broken: pl.Expr, advice: str) -> RowCheck:
        return RowCheck(self.subject(kind, statement), broken, self.value.is_not_null(), self.allowed, advice)

    def values(self) -> Iterator[Check]:
        import polars as pl

        values = self.asked.values or []
        wanted = pl.Series(values, dtype=pl.String)
        value = self.value
        if self.dtype in (pl.String, pl.Categorical, pl.Enum):
            value = value.cast(pl.String)
        else:
            wanted = self._typed(wanted)
        shown = ", ".join(values[:5]) + (f", … ({len(values)})" if len(values) > 5 else "")
        broken = ~value.is_in(wanted.implode())
        advice = "add the value to values, mend the source, or keep such rows aside by onViolation: Drop"
        yield self.rows("set", f"{self.column} in {{{shown}}}", broken, advice)

    def _typed(self, texts: pl.Series) -> pl.Series:
        import polars as pl

        if self.dtype == pl.Boolean:
            typed = texts.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
        elif self.dtype.is_temporal() or self.dtype.is_nested() or self.dtype == pl.Binary:
            raise self.wrong(f"values needs text or numbers, and {self.column!r} is {self.dtype}; use expression")
        else:
            typed = texts.cast(self.dtype, strict=False)
        if typed.null_count():
            bad = texts.filter(typed.is_null())[0]
            raise self.wrong(f"values holds {bad!r}, which is no {self.dtype} as {self.column!r} is")
        return typed

    def pattern(self) -> Iterator[Check]:
        import polars as pl

        pattern = self.asked.pattern or ""
        if why := bad_pattern(pattern):
            raise self.wrong(f"pattern {why}")
        if self.dtype.is_nested() or self.dtype == pl.Binary:
            raise self.wrong(f"pattern needs text, and {self.column!r} is {self.dtype}")
        broken = ~self.value.cast(pl.String).str.contains(f"^(?:{pattern})$")
        advice = "mend the source or the pattern, or keep such rows aside by onViolation: Drop"
        yield self.rows("pattern", f"{self.column} matches {pattern}", broken, advice)

    def expression(self) -> Iterator[Check]:
        text = self.asked.expression or ""
        compiled = compile_expression(text, self.schema, f"{self.where}.expression")
        advice = "mend the source or the expression, or keep such rows aside by onViolation: Drop"
        yield RowCheck(
            self.subject("expression", " ".join(text.split()), compiled.columns),
            ~compiled.condition,
            compiled.condition.is_not_null(),
            self.allowed,
            advice,
        )

    def unique(self) -> Iterator[Check]:
        import polars as pl

        columns = self.asked.columns or [self.column]
        for name in columns:
            if self.schema[name].is_nested() or self.schema[name] == pl.Object:
                raise self.wrong(f"unique needs plain values, and {name!r} is {self.schema[name]}")
        statement = f"{' + '.join(columns)} is unique"
        yield Unique(self.subject("unique", statement, columns), self.scratch)

    def row_count(self) -> Iterator[Check]:
        low, high = self.asked.min_rows, self.asked.max_rows
        said = f"{low or 0:,} ≤ rows" if high is None else f"rows ≤ {high:,}"
        if low is not None and high is not None:
            said = f"{low:,} ≤ rows ≤ {high:,}"
        yield RowCount(self.subject("rows", said, ()), low, high)

    def freshness(self) -> Iterator[Check]:
        import polars as pl

        text = self.asked.max_age or ""
        try:
            limit = duration(text)
        except (ValueError, OverflowError) as error:
            raise self.wrong(f"maxAge: {error}") from None
        if self.dtype in (pl.Date, pl.Datetime):
            time = utc(pl.col(self.column), self.dtype)
        elif self.dtype == pl.String:
            time = parse_time(pl.col(self.column))
        else:
            raise self.wrong(f"maxAge needs dates or times, and {self.column!r} is {self.dtype}")
        yield Freshness(self.subject("freshness", f"{self.column} is at most {text} old"), time, limit)

    def mean(self) -> Iterator[Check]:
        import polars as pl

        bounds = self.asked.mean
        assert bounds is not None
        value = self.number("mean").cast(pl.Float64)
        yield Mean(self.subject("mean", _between(f"mean of {self.column}", bounds)), value, bounds)

    def quantiles(self) -> Iterator[Check]:
        make = partial(self.number, "quantiles")
        for bounds in self.asked.quantiles or ():
            what = "median" if bounds.quantile == 0.5 else f"quantile {bounds.quantile:g}"
            yield Quantile(self.subject("quantile", _between(f"{what} of {self.column}", bounds)), make(), bounds)


def _between(what: str, bounds: Bounds) -> str:
    left = f"{plain(bounds.min)} ≤ " if bounds.min is not None else ""
    right = f" ≤ {plain(bounds.max)}" if bounds.max is not None else ""
    return f"{left}{what}{right}"


def _exact(bound: float) -> float | int:
    """Whole bounds as whole numbers: large integers would lose digits as floats."""
    return int(bound) if bound.is_integer() and abs(bound) < 1 << 62 else bound
