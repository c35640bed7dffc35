"""Steps that learn nothing: logarithm, parts of dates, crossed columns, normal forms of text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mizzen.data.steps.base import Fitted, Step
from mizzen.data.steps.counts import as_text
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

_URL = r"https?://\S+|www\.\S+"
_MENTION = r"@\w+"
_PERIODS = {"month": 12, "weekday": 7, "hour": 24, "minute": 60, "dayOfYear": 366, "week": 53, "day": 31}
_FIRST = {"month": 1, "weekday": 1, "dayOfYear": 1, "week": 1, "day": 1}


@dataclass(frozen=True)
class Logarithm(Fitted):
    """sign(x) × ln(1 + |x|)."""

    KIND: ClassVar[str] = "log"

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        def column(name: str) -> pl.Expr:
            value = pl.col(name).cast(pl.Float64).fill_nan(None)
            return value.sign() * value.abs().log1p()

        return frame.with_columns(column(name) for name in self.columns)


@dataclass(frozen=True)
class Dates(Fitted):
    """Numbers of dates; the dates themselves go."""

    KIND: ClassVar[str] = "dateParts"

    parts: tuple[str, ...] = ()
    cyclic: bool = False

    def names(self) -> tuple[str, ...]:
        made: list[str] = []
        for column in self.columns:
            for part in self.parts:
                if self.cyclic and part in _PERIODS:
                    made += [f"{column}_{part}_sin", f"{column}_{part}_cos"]
                else:
                    made.append(f"{column}_{part}")
        return tuple(made)

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        made = []
        for name in self.columns:
            when = _as_time(frame[name])
            for part in self.parts:
                made += self._part(name, part, when)
        return frame.with_columns(made).drop(self.columns)

    def _part(self, name: str, part: str, when: pl.Series) -> list[pl.Series]:
        import polars as pl

        if part == "epoch":
            return [(when.dt.epoch("ms").cast(pl.Float64) / 1000).alias(f"{name}_epoch")]
        if part == "weekend":
            return [(when.dt.weekday() >= 6).cast(pl.UInt8).alias(f"{name}_weekend")]
        method = {"dayOfYear": "ordinal_day"}.get(part, part)
        value: pl.Series = getattr(when.dt, method)()
        if not (self.cyclic and part in _PERIODS):
            return [value.cast(pl.Int32).alias(f"{name}_{part}")]
        turn = (value.cast(pl.Float64) - _FIRST.get(part, 0)) * (2 * math.pi / _PERIODS[part])
        found = pl.DataFrame({"turn": turn})
        return [
            found.select(pl.col("turn").sin().cast(pl.Float32).alias(f"{name}_{part}_sin")).to_series(),
            found.select(pl.col("turn").cos().cast(pl.Float32).alias(f"{name}_{part}_cos")).to_series(),
        ]

    def check(self, frame: pl.DataFrame) -> str | None:
        for name in self.columns:
            wrong = (frame[name].is_not_null() & _as_time(frame[name], strict=False).is_null()).arg_true()
            if len(wrong):
                value = frame[name][wrong[0]]
                return f"row {wrong[0]}: column {name!r} holds {value!r}, which is no ISO 8601 date or time"
        return None


def _as_time(series: pl.Series, *, strict: bool = True) -> pl.Series:
    """A time without zone, in UTC."""
    import polars as pl

    if isinstance(series.dtype, pl.Datetime):
        return series.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if series.dtype.time_zone else series
    if series.dtype == pl.Date:
        return series.cast(pl.Datetime("us"))
    if series.dtype != pl.String:
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"dateParts needs dates or text, and the column {series.name!r} holds {series.dtype}",
        )
    text = series.str.strip_chars()
    forms = ("%+", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
    found = pl.Series(series.name, [None] * len(series), dtype=pl.Datetime("us"))
    for form in forms:
        if found.null_count() == text.null_count():
            break
        parsed = text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC" if form == "%+" else None)
        if form == "%+":
            parsed = parsed.dt.replace_time_zone(None)
        found = found.zip_with(found.is_not_null(), parsed)
    if found.null_count() > text.null_count():
        days = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
        found = found.zip_with(found.is_not_null(), days)
    if strict and found.null_count() > text.null_count():
        wrong = series.filter(found.is_null() & series.is_not_null())[0]
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"the column {series.name!r} holds {wrong!r}, which is no ISO 8601 date or time; write 2026-01-31T12:00Z",
        )
    return found


@dataclass(frozen=True)
class Crossed(Fitted):
    """The product of numbers, or the texts joined by ×; missing where one of them is."""

    KIND: ClassVar[str] = "cross"

    name: str = ""

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        if all(frame.schema[name].is_numeric() for name in self.columns):
            product = pl.lit(1.0)
            for name in self.columns:
                product = product * pl.col(name).cast(pl.Float64).fill_nan(None)
            return frame.with_columns(product.alias(self.name))
        texts = pl.DataFrame({f"c{number}": as_text(frame[name]) for number, name in enumerate(self.columns)})
        joined = texts.select(pl.concat_str(pl.all(), separator="×").alias(self.name)).to_series()
        return frame.with_columns(joined)


@dataclass(frozen=True)
class NormalForm(Fitted):
    """Texts in one form. URLs and mentions go first, so that folding case does not hide them."""

    KIND: ClassVar[str] = "normalizeText"

    lowercase: bool = True
    unicode: str = "NFKC"
    strip_accents: bool = False
    replace_urls: bool = False
    replace_mentions: bool = False
    collapse_whitespace: bool = True

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        return frame.with_columns(self._form(pl.col(name)) for name in self.columns)

    def _form(self, text: pl.Expr) -> pl.Expr:
        if self.unicode != "none":
            text = text.str.normalize(self.unicode)  # type: ignore[arg-type]
        if self.replace_urls:
            text = text.str.replace_all(_URL, "<url>")
        if self.replace_mentions:
            text = text.str.replace_all(_MENTION, "<user>")
        if self.strip_accents:
            text = text.str.normalize("NFD").str.replace_all(r"\p{Mn}", "").str.normalize("NFC")
        if self.lowercase:
            text = text.str.to_lowercase()
        if self.collapse_whitespace:
            text = text.str.replace_all(r"\s+", " ").str.strip_chars()
        return text


class ReadyStep(Step):
    """A step whose fitted form its settings give."""

    def __init__(self, fitted: Fitted, makes: tuple[str, ...] = ()) -> None:
        self._fitted, self._makes, self.columns = fitted, makes, fitted.columns

    def makes(self) -> tuple[str, ...]:
        return self._makes

    def ready(self) -> Fitted | None:
        return self._fitted
