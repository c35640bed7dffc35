"""Categories to numbers: one-hot, ordinal, by the target's mean, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from mizzen.data.steps.base import Feature, Fitted, Step, Target
from mizzen.data.steps.counts import Counts, as_text
from mizzen_api.dataset_transforms import Encode

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Codes(Fitted):
    """The number of the category; unknown and missing ones are -1 (missing ones stay missing where ordinal)."""

    KIND: ClassVar[str] = "codes"

    categories: tuple[tuple[str, ...], ...] = ()
    onehot: bool = True
    strict: bool = False

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        made = []
        for name, categories in zip(self.columns, self.categories, strict=True):
            text = as_text(frame[name])
            codes = text.cast(pl.Enum(categories), strict=False).to_physical().cast(pl.Int32).fill_null(-1)
            if not self.onehot:
                codes = codes.zip_with(text.is_not_null(), pl.Series([None], dtype=pl.Int32))
            made.append(codes.alias(name))
        return frame.with_columns(made)

    def features(self) -> tuple[Feature, ...]:
        if not self.onehot:
            return ()
        pairs = zip(self.columns, self.categories, strict=True)
        return tuple(Feature(name, "onehot", len(found), labels=found) for name, found in pairs)

    def check(self, frame: pl.DataFrame) -> str | None:
        if not self.strict:
            return None
        for name, categories in zip(self.columns, self.categories, strict=True):
            text = as_text(frame[name])
            wrong = (text.is_not_null() & ~text.is_in(categories)).arg_true()
            if len(wrong):
                some = ", ".join(categories[:10]) + (", …" if len(categories) > 10 else "")
                return f"row {wrong[0]}: column {name!r} has the unknown category {text[wrong[0]]!r}; known are {some}"
        return None

    def push_counts(self, name: str, counts: Counts) -> Counts | None:  # noqa: ARG002
        return None


@dataclass(frozen=True)
class TargetMeans(Fitted):
    """The target's smoothed mean over the category's rows: one column for a number or two classes, else one a class."""

    KIND: ClassVar[str] = "targetMeans"

    categories: tuple[tuple[str, ...], ...] = ()
    means: tuple[tuple[tuple[float, ...], ...], ...] = ()  # column → output → category
    overall: tuple[float, ...] = ()  # output
    labels: tuple[str, ...] = ()  # of the outputs; empty where there is one

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        made = []
        for name, categories, outputs in zip(self.columns, self.categories, self.means, strict=True):
            text = as_text(frame[name])
            for number, means in enumerate(outputs):
                other = self.overall[number]
                known = pl.DataFrame({"key": categories, "mean": means}, schema={"key": pl.String, "mean": pl.Float64})
                joined = pl.DataFrame({"key": text}).join(known, on="key", how="left", maintain_order="left")
                out = f"{name}_{self.labels[number]}" if self.labels else name
                made.append(joined["mean"].fill_null(other).cast(pl.Float32).alias(out))
        result = frame.with_columns(made)
        return result.drop(self.columns) if self.labels else result


class TargetFit:
    """Rows and sums of the target's outputs for each category of each column."""

    def __init__(self, columns: tuple[str, ...], target: Target, smoothing: float, most: int) -> None:
        self.columns, self.target, self.smoothing, self.most = columns, target, smoothing, most
        two = len(target.classes) <= 2
        self.classes = target.classes[-1:] if two else target.classes
        self.labels = () if two else target.classes
        self.rows = 0
        self.totals = [0.0] * max(1, len(self.classes))
        self.tables: dict[str, pl.DataFrame] = {}

    def _outputs(self, frame: pl.DataFrame) -> list[pl.Series]:
        import polars as pl

        series = frame[self.target.name]
        if not self.target.is_class:
            return [series.cast(pl.Float64).alias("o0")]
        text = as_text(series)
        return [(text == name).cast(pl.Float64).alias(f"o{number}") for number, name in enumerate(self.classes)]

    def update(self, frame: pl.DataFrame) -> None:
        import polars as pl

        outputs = self._outputs(frame)
        self.rows += frame.height
        self.totals = [known + float(series.sum()) for known, series in zip(self.totals, outputs, strict=True)]
        for name in self.columns:
            table = pl.DataFrame({"value": as_text(frame[name]), **{s.name: s for s in outputs}}).drop_nulls("value")
            sums = table.group_by("value", maintain_order=True).agg(
                pl.len().cast(pl.Float64).alias("rows"), *(pl.col(s.name).sum() for s in outputs)
            )
            self.tables[name] = self._joined(self.tables.get(name), sums)

    def merge(self, other: Self) -> None:
        self.rows += other.rows
        self.totals = [a + b for a, b in zip(self.totals, other.totals, strict=True)]
        for name, table in other.tables.items():
            self.tables[name] = self._joined(self.tables.get(name), table)

    def _joined(self, known: pl.DataFrame | None, more: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        both = more if known is None else pl.concat([known, more])
        return both.group_by("value", maintain_order=True).agg(pl.exclude("value").sum()).sort("value")

    def finish(self) -> TargetMeans:
        overall = tuple(total / self.rows if self.rows else 0.0 for total in self.totals)
        categories, means = [], []
        for name in self.columns:
            table = self.tables[name].sort(["rows", "value"], descending=[True, False]).head(self.most).sort("value")
            categories.append(tuple(str(value) for value in table["value"]))
            means.append(
                tuple(
                    tuple(((table[f"o{number}"] + self.smoothing * mean) / (table["rows"] + self.smoothing)).to_list())
                    for number, mean in enumerate(overall)
                )
            )
        return TargetMeans(self.columns, tuple(categories), tuple(means), overall, self.labels)


@dataclass(frozen=True)
class Hashed(Fitted):
    """One of `buckets`, by a hash that is the same everywhere and always."""

    KIND: ClassVar[str] = "hashed"

    buckets: int = 64

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        made = []
        for name in self.columns:
            text = as_text(frame[name])
            known = text.drop_nulls().unique(maintain_order=True)
            codes = pl.DataFrame({"key": known, "code": pl.Series([self._bucket(v) for v in known], dtype=pl.Int32)})
            joined = pl.DataFrame({"key": text}).join(codes, on="key", how="left", maintain_order="left")
            made.append(joined["code"].fill_null(-1).alias(name))
        return frame.with_columns(made)

    def _bucket(self, value: str) -> int:
        return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big") % self.buckets

    def features(self) -> tuple[Feature, ...]:
        return tuple(Feature(name, "onehot", self.buckets) for name in self.columns)


class EncodeStep(Step):
    """`encode`: see its settings for the methods."""

    def __init__(self, settings: Encode, columns: tuple[str, ...], target: Target) -> None:
        self.settings, self.columns, self.target = settings, columns, target

    def makes(self) -> tuple[str, ...]:
        if self.settings.method != "target" or len(self.target.classes) <= 2:
            return ()
        return tuple(f"{name}_{label}" for name in self.columns for label in self.target.classes)

    def ready(self) -> Fitted | None:
        return Hashed(self.columns, self.settings.buckets) if self.settings.method == "hashing" else None

    def begin(self, frame: pl.DataFrame) -> TargetFit:  # noqa: ARG002
        """By the target only; the other methods learn from counts."""
        return TargetFit(self.columns, self.target, self.settings.smoothing, self.settings.max_categories)

    def learn(self, counts: Mapping[str, Counts]) -> Codes:
        most = self.settings.max_categories
        categories = tuple(tuple(sorted(counts[name].ranked(most))) for name in self.columns)
        strict = self.settings.handle_unknown == "error"
        return Codes(self.columns, categories, self.settings.method == "onehot", strict)
