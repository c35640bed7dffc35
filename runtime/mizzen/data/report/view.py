"""What a report shows, as plain values: adapters fill it, the page draws it, and its JSON is the same content."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic.alias_generators import to_camel

from mizzen.data.expectations.results import Outcome


class Unit(StrEnum):
    """How the numbers of a column are written."""

    NUMBER = "number"
    DATE = "date"  # days since 1970
    TIME = "time"  # seconds since 1970, UTC
    SPAN = "span"  # seconds


@dataclass(frozen=True)
class Bins:
    """A histogram: one more edge than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """One raw column. What is not known, or has no meaning for the type, is None or empty."""

    name: str
    dtype: str
    rows: int
    missing: int = 0
    distinct: int | None = None
    unit: Unit = Unit.NUMBER
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[tuple[float, float], ...] = ()  # (0.5, the median), ...
    bins: Bins | None = None
    lengths: Bins | None = None  # characters of texts, items of lists
    top: tuple[tuple[str, int], ...] = ()  # the most frequent values
    is_target: bool = False

    @property
    def missing_fraction(self) -> float:
        return self.missing / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Part:
    """One split; its rows by class where the target has classes."""

    name: str
    rows: int
    classes: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class FeatureDrift:
    """One column against the reference. `statistic` is that of the `method` that decides; None where there was none."""

    column: str
    drifted: bool
    method: str = ""
    statistic: float | None = None
    threshold: float | None = None
    statistics: dict[str, float] = dataclasses.field(default_factory=dict)
    unseen: tuple[str, ...] = ()  # categories that the reference does not have
    note: str = ""


@dataclass(frozen=True)
class Drift:
    """The version against the reference; `auc` is how well a classifier tells the rows of the two apart."""

    reference: str
    drifted: bool
    message: str
    features: tuple[FeatureDrift, ...]
    auc: float | None = None
    auc_threshold: float | None = None

    @property
    def compared(self) -> int:
        """Columns with a statistic; the others are listed with why they have none."""
        return sum(feature.statistic is not None or feature.drifted for feature in self.features)


@dataclass(frozen=True)
class Source:
    uri: str
    rows: int | None = None
    digest: str = ""


@dataclass(frozen=True)
class Step:
    """A transform: what it is, what it reads, and what was learned or set, in short."""

    kind: str
    columns: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Everything about one version of a dataset that is worth looking at."""

    name: str
    fingerprint: str
    target: str
    parts: tuple[Part, ...]
    columns: tuple[Column, ...]
    sources: tuple[Source, ...] = ()
    steps: tuple[Step, ...] = ()
    features: tuple[str, ...] = ()
    expectations: Outcome | None = None
    drift: Drift | None = None
    bad_rows: int = 0
    code_version: str = ""

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def to_json(self) -> str:
        return json.dumps(_wire(self), indent=1, ensure_ascii=False, allow_nan=False)


def _wire(value: Any) -> Any:
    """Fields in camel case; keys of dictionaries are data and stay as they are; what is not finite is null."""
    if isinstance(value, Outcome):
        return json.loads(value.to_json())
    if dataclasses.is_dataclass(value):
        return {to_camel(field.name): _wire(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _wire(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_wire(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
