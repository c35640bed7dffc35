"""The typed pieces that an expression is made of: each is a polars expression, its kind, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


class Kind(StrEnum):
    """What a term is, in the words of messages."""

    INTEGER = "a whole number"
    NUMBER = "a number"
    TEXT = "text"
    BOOL = "true or false"
    TIME = "a date or time"
    SPAN = "a duration"
    NULL = "null"


NUMBERS = (Kind.INTEGER, Kind.NUMBER)


@dataclass(frozen=True)
class Term:
    kind: Kind
    expr: pl.Expr
    at: int
    literal: Any = None  # the value, where it is one that was written out


class TermError(ValueError):
    """What is wrong, and at which character."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


def need(term: Term, kind: Kind, why: str) -> None:
    if term.kind != kind:
        raise TermError(term.at, f"this is {term.kind}: {why}")


def number(text: str, at: int) -> Term:
    import polars as pl

    if text.isdigit():
        value = int(text)
        if value >= 1 << 63:
            raise TermError(at, f"{text} is too large")
        return Term(Kind.INTEGER, pl.lit(value, pl.Int64), at, value)
    return Term(Kind.NUMBER, pl.lit(float(text), pl.Float64), at, float(text))


def text(value: str, at: int) -> Term:
    import polars as pl

    return Term(Kind.TEXT, pl.lit(value, pl.String), at, value)


def constant(name: str, at: int) -> Term:
    import polars as pl

    value = CONSTANTS[name]
    return Term(Kind.NULL if value is None else Kind.BOOL, pl.lit(value, pl.Boolean), at, value)


def column(name: str, dtype: pl.DataType, at: int) -> Term:
    """A column as one of few kinds: all times become UTC, NaN becomes missing."""
    import polars as pl

    found = pl.col(name)
    if dtype.is_integer():
        term = Term(Kind.INTEGER, found, at)
    elif dtype.is_float():
        term = Term(Kind.NUMBER, found.fill_nan(None), at)
    elif dtype.is_decimal():
        term = Term(Kind.NUMBER, found.cast(pl.Float64), at)
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        term = Term(Kind.TEXT, found.cast(pl.String), at)
    elif dtype == pl.Boolean:
        term = Term(Kind.BOOL, found, at)
    elif dtype in (pl.Date, pl.Datetime):
        term = Term(Kind.TIME, utc(found, dtype), at)
    elif dtype == pl.Duration:
        term = Term(Kind.SPAN, found.cast(pl.Duration("us")), at)
    else:
        raise TermError(at, f"the column {name!r} is {dtype}, which expressions cannot use")
    return term


def utc(found: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A date or time as microseconds in UTC; one without a zone is taken to be UTC already."""
    import polars as pl

    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return found.cast(pl.Datetime("us", dtype.time_zone)).dt.convert_time_zone("UTC")
    return found.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def both(found: Sequence[Term]) -> Term:
    import polars as pl

    return Term(Kind.BOOL, pl.all_horizontal(_booleans("&&", found)), found[0].at)


def either(found: Sequence[Term]) -> Term:
    import polars as pl

    return Term(Kind.BOOL, pl.any_horizontal(_booleans("||", found)), found[0].at)


def _booleans(operator: str, found: Sequence[Term]) -> list[pl.Expr]:
    for term in found:
        need(term, Kind.BOOL, f"{operator} joins conditions")
    return [term.expr for term in found]


def negate(operator: str, at: int, term: Term) -> Term:
    import polars as pl

    if operator == "!":
        need(term, Kind.BOOL, "! turns a condition round")
        return Term(Kind.BOOL, ~term.expr, at)
    if term.kind not in NUMBERS:
        raise TermError(term.at, f"this is {term.kind}: - needs a number")
    if isinstance(term.literal, int | float):
        return Term(term.kind, pl.lit(-term.literal), at, -term.literal)
    return Term(term.kind, pl.lit(0) - wide(term), at)


def compare(operator: str, at: int, left: Term, right: Term) -> Term:
    if Kind.NULL in {left.kind, right.kind}:
        return _compare_null(operator, at, left, right)
    if left.kind == Kind.TIME and right.kind == Kind.TEXT and right.literal is not None:
        right = instant(right)
    elif right.kind == Kind.TIME and left.kind == Kind.TEXT and left.literal is not None:
        left = instant(left)
    if left.kind != right.kind and not (left.kind in NUMBERS and right.kind in NUMBERS):
        raise TermError(
            at, f"{operator} compares {left.kind} with {right.kind}; give the column the type you mean in columnTypes"
        )
    if left.kind == Kind.BOOL and operator not in {"==", "!="}:
        raise TermError(at, f"{operator} needs an order; true and false have none")
    a, b = left.expr, right.expr
    results = {"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}
    return Term(Kind.BOOL, results[operator], left.at)


def _compare_null(operator: str, at: int, left: Term, right: Term) -> Term:
    if operator not in {"==", "!="}:
        raise TermError(at, f"{operator} with null is never true; write == null or != null")
    term = right if left.kind == Kind.NULL else left
    return Term(Kind.BOOL, term.expr.is_null() if operator == "==" else term.expr.is_not_null(), left.at)


def arithmetic(operator: str, at: int, left: Term, right: Term) -> Term:
    import polars as pl

    a, b = left, right
    if a.kind in NUMBERS and b.kind in NUMBERS:
        if operator == "/":  # 0/0 is unknown, as every NaN
            quotient = a.expr.cast(pl.Float64) / b.expr.cast(pl.Float64)
            return Term(Kind.NUMBER, quotient.fill_nan(None), a.at)
        kind = Kind.INTEGER if {a.kind, b.kind} == {Kind.INTEGER} else Kind.NUMBER
        x, y = (wide(a), wide(b)) if kind == Kind.INTEGER else (a.expr.cast(pl.Float64), b.expr.cast(pl.Float64))
        result = {"+": x + y, "-": x - y, "*": x * y}[operator]
        return Term(kind, result if kind == Kind.INTEGER else result.fill_nan(None), a.at)
    if operator == "+" and a.kind == b.kind == Kind.TEXT:
        return Term(Kind.TEXT, a.expr + b.expr, a.at)
    if operator == "-" and a.kind == b.kind == Kind.TIME:
        return Term(Kind.SPAN, a.expr - b.expr, a.at)
    if operator in {"+", "-"} and a.kind in {Kind.TIME, Kind.SPAN} and b.kind == Kind.SPAN:
        return Term(a.kind, a.expr + b.expr if operator == "+" else a.expr - b.expr, a.at)
    raise TermError(at, f"{operator} does not take {a.kind} and {b.kind}")


def wide(term: Term) -> pl.Expr:
    """Whole numbers are added in 128 bits: in 8, 16 or 64 they would wrap around silently."""
    import polars as pl

    return term.expr.cast(pl.Int128) if term.kind == Kind.INTEGER else term.expr


def instant(term: Term, *, only_date: bool = False) -> Term:
    """Text that was written out as a date or time. CEL's form is RFC 3339; a date alone is its first moment in UTC."""
    import polars as pl

    try:
        if only_date:
            value = datetime.combine(date.fromisoformat(term.literal), datetime.min.time())
        else:
            value = datetime.fromisoformat(term.literal)
    except ValueError:
        form = "2026-01-31" if only_date else "2026-01-31 or 2026-01-31T12:00:00Z"
        raise TermError(term.at, f"{term.literal!r} is not a date: write it as {form}") from None
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return Term(Kind.TIME, pl.lit(value, pl.Datetime("us", "UTC")), term.at, value)
