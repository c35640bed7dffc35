"""Missing values filled: by the mean, the median, the most frequent value or a constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mizzen.data.steps.base import Fitted, Step
from mizzen.data.steps.counts import Counts
from mizzen.data.steps.numbers import NumberStats
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_transforms import Impute

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Filled(Fitted):
    """Each missing value (and NaN) is the column's own value; `indicator` adds a column that tells where."""

    KIND: ClassVar[str] = "fill"

    values: tuple[float | str | None, ...] = ()
    indicator: bool = False

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        made = []
        for name, value in zip(self.columns, self.values, strict=True):
            dtype = frame.schema[name]
            column = pl.col(name).fill_nan(None) if dtype.is_float() else pl.col(name)
            if self.indicator:
                made.append(column.is_null().cast(pl.UInt8).alias(f"{name}_missing"))
            if isinstance(value, float) and dtype.is_integer() and not value.is_integer():
                column = column.cast(pl.Float64)
            fill = value if value is None or isinstance(value, str) else pl.lit(value)
            made.append(column if fill is None else column.fill_null(fill))
        return frame.with_columns(made)

    def push(self, name: str, stats: NumberStats) -> NumberStats | None:
        value = self.values[self.columns.index(name)]
        return stats.filled(float(value)) if value is not None else stats

    def push_counts(self, name: str, counts: Counts) -> Counts | None:
        value = self.values[self.columns.index(name)]
        return counts.filled(value if isinstance(value, str) else f"{value:g}") if value is not None else counts


class ImputeStep(Step):
    """`impute`. Numbers are filled by the method; text by the constant or its most frequent value."""

    def __init__(self, settings: Impute, columns: tuple[str, ...]) -> None:
        self.settings, self.columns = settings, columns

    def makes(self) -> tuple[str, ...]:
        return tuple(f"{name}_missing" for name in self.columns) if self.settings.indicator else ()

    @property
    def ranks(self) -> bool:
        """Whether it needs quantiles."""
        return self.settings.method == "median"

    def wants(self, frame: pl.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(columns whose statistics, columns whose counts it learns from)."""
        numbers = tuple(name for name in self.columns if frame.schema[name].is_numeric())
        texts = tuple(name for name in self.columns if name not in numbers)
        if self.settings.method == "mostFrequent":
            return numbers, self.columns
        return numbers, texts

    def learn(self, stats: Mapping[str, NumberStats], counts: Mapping[str, Counts]) -> Filled:
        values = tuple(self._value(name, stats.get(name), counts.get(name)) for name in self.columns)
        return Filled(self.columns, values, self.settings.indicator)

    def _value(self, name: str, stats: NumberStats | None, counts: Counts | None) -> float | str | None:
        settings = self.settings
        if settings.method == "constant":
            if settings.value is None:
                raise UserError(Reason.INVALID_PARAMETERS, "impute by a constant needs `value`")
            return settings.value if stats is None else _number(name, settings.value)
        if stats is None:
            return counts.most_frequent() if counts is not None else None
        if settings.method == "mostFrequent":
            found = counts.most_frequent() if counts is not None else None
            return None if found is None else float(found)
        if not stats.count:
            return None
        return stats.mean if settings.method == "mean" else stats.quantile([0.5])[0]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(
            Reason.INVALID_PARAMETERS, f"impute fills the number column {name!r} with {text!r}, which is no number"
        ) from None
