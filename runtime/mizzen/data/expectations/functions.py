"""The functions and methods of expressions, each with the kinds that it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mizzen.data.expectations.terms import NUMBERS, Kind, Term, TermError, instant, need, wide
from mizzen_api.dataset_expectations import duration

if TYPE_CHECKING:
    import polars as pl

# RFC 3339 first; what has no zone is UTC, and a date is its first moment.
_FORMS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")


def function(name: str, at: int, arguments: list[Term]) -> Term:
    return _call("function", FUNCTIONS, name, at, arguments)


def method(name: str, at: int, subject: Term, arguments: list[Term]) -> Term:
    return _call("method", METHODS, name, at, [subject, *arguments])


def _call(what: str, known: dict[str, tuple[int, _Builder]], name: str, at: int, arguments: list[Term]) -> Term:
    if name not in known:
        raise TermError(at, f"there is no {what} {name!r}; there are {', '.join(known)}")
    wanted, build = known[name]
    if len(arguments) != wanted:
        own = 1 if what == "method" else 0  # what stands before the dot
        count = wanted - own
        raise TermError(at, f"{name} takes {count} argument{'' if count == 1 else 's'}, not {len(arguments) - own}")
    return build(name, at, arguments)


_Builder = Callable[[str, int, list[Term]], Term]


def _has(_: str, at: int, arguments: list[Term]) -> Term:
    return Term(Kind.BOOL, arguments[0].expr.is_not_null(), at)


def _abs(_: str, at: int, arguments: list[Term]) -> Term:
    (term,) = arguments
    if term.kind not in NUMBERS:
        raise TermError(term.at, f"this is {term.kind}: abs needs a number")
    return Term(term.kind, wide(term).abs(), at)


def _size(name: str, at: int, arguments: list[Term]) -> Term:
    need(arguments[0], Kind.TEXT, f"{name} counts the characters of text")
    return Term(Kind.INTEGER, arguments[0].expr.str.len_chars(), at)


def _time(name: str, at: int, arguments: list[Term]) -> Term:
    (term,) = arguments
    need(term, Kind.TEXT, f"{name} reads text, for example {name}('2026-01-31')")
    if isinstance(term.literal, str):
        return instant(Term(term.kind, term.expr, term.at, term.literal), only_date=name == "date")
    return Term(Kind.TIME, parse_time(term.expr), at)


def parse_time(text: pl.Expr) -> pl.Expr:
    """Text as UTC microseconds; missing where it is no date or time. The forms are fixed: none is guessed by chunk."""
    import polars as pl

    date = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    local = [text.str.to_datetime(form, time_unit="us", strict=False) for form in _FORMS]
    zoned = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    return pl.coalesce(zoned, *(form.dt.replace_time_zone("UTC") for form in (*local, date)))


def _duration(name: str, at: int, arguments: list[Term]) -> Term:
    import polars as pl

    (term,) = arguments
    need(term, Kind.TEXT, "duration reads text, for example duration('7d')")
    if not isinstance(term.literal, str):
        raise TermError(term.at, f"{name} takes a text that is written out, for example duration('7d')")
    try:
        value = duration(term.literal)
    except (ValueError, OverflowError) as error:
        raise TermError(term.at, str(error)) from None
    return Term(Kind.SPAN, pl.lit(value, pl.Duration("us")), at, value)


def _text_condition(name: str, at: int, arguments: list[Term]) -> Term:
    subject, other = arguments
    need(subject, Kind.TEXT, f"{name} is a method of text")
    need(other, Kind.TEXT, f"{name} takes text")
    if name == "matches":
        if not isinstance(other.literal, str):
            raise TermError(other.at, "matches takes a pattern that is written out")
        if why := bad_pattern(other.literal):
            raise TermError(other.at, why)
        return Term(Kind.BOOL, subject.expr.str.contains(other.literal), at)
    text = subject.expr.str
    results = {
        "startsWith": text.starts_with(other.expr),
        "endsWith": text.ends_with(other.expr),
        "contains": text.contains(other.expr, literal=True),
    }
    return Term(Kind.BOOL, results[name], at)


def bad_pattern(pattern: str) -> str | None:
    """Why a regular expression is none, in one line."""
    import polars as pl

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.PolarsError as error:
        # The regex crate draws the pattern over several lines, and names the error in the last of them.
        said = [line.strip()[len("error: ") :] for line in str(error).splitlines() if line.startswith("error: ")]
        return f"{pattern!r} is not a regular expression: {said[0] if said else 'it cannot be compiled'}"
    return None


FUNCTIONS: dict[str, tuple[int, _Builder]] = {
    "has": (1, _has),
    "size": (1, _size),
    "abs": (1, _abs),
    "date": (1, _time),
    "timestamp": (1, _time),
    "duration": (1, _duration),
}
METHODS: dict[str, tuple[int, _Builder]] = {
    "startsWith": (2, _text_condition),
    "endsWith": (2, _text_condition),
    "contains": (2, _text_condition),
    "matches": (2, _text_condition),
    "size": (1, _size),
}
