"""What every step is made of: a plan that names its columns, a fit that chunks feed, and a fitted step that is JSON.

    Step.begin(frame)  → Fit     update(chunk) and merge(other), in chunk order
    Fit.finish()       → Fitted  apply(frame): the same polars expressions in training and in serving

A step that has nothing to learn gives its Fitted at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

FeatureKind = Literal["number", "onehot", "tokens", "sparse", "image"]


@dataclass(frozen=True)
class Feature:
    """One column of a dataset version that a model reads.

    number: float32. onehot: a code that stands for `width` columns, -1 for none of them. tokens: `width` token ids and
    a length. sparse: lists of positions below `width` and of weights. image: height × width × channels in `shape`.
    """

    name: str
    kind: FeatureKind = "number"
    width: int = 1
    labels: tuple[str, ...] = ()  # what the columns stand for, where they have names
    shape: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()  # of an image's channels, for the standard form; empty means 0..1
    deviation: tuple[float, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        return {key: value for key, value in dataclasses.asdict(self).items() if value not in ((), None)}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in wire.items()}
        return cls(**values)


@dataclass(frozen=True)
class Fitted:
    """A step with all that it learned; its fields are JSON values."""

    KIND: ClassVar[str] = ""

    columns: tuple[str, ...]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with this step's columns replaced or added; rows stay as they are."""
        raise NotImplementedError

    def features(self) -> tuple[Feature, ...]:
        """What it makes that is not a plain number."""
        return ()

    def check(self, frame: pl.DataFrame) -> str | None:  # noqa: ARG002
        """Why the frame's first bad row cannot be served, or None."""
        return None

    def to_wire(self) -> dict[str, Any]:
        return {"kind": self.KIND, **dataclasses.asdict(self)}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: _frozen(value) for key, value in wire.items() if key in known})


def _frozen(value: Any) -> Any:
    """JSON has lists; dataclasses that are compared and hashed have tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


class Fit(Protocol):
    """What a step gathers from the train rows of one chunk after another."""

    def update(self, frame: pl.DataFrame) -> None:
        """Take the train rows of the next chunk."""

    def merge(self, other: Self) -> None:
        """Take what was gathered from later chunks."""

    def finish(self) -> Fitted:
        """What was learned."""


@dataclass(frozen=True)
class Target:
    """The column to predict: `classes` in the order of their ids, or none where it is a number."""

    name: str
    classes: tuple[str, ...] = ()

    @property
    def is_class(self) -> bool:
        return bool(self.classes)


class Step:
    """A step before it has seen data. Those that learn from shared statistics have `learn` instead of `begin`."""

    columns: tuple[str, ...] = ()

    def makes(self) -> tuple[str, ...]:
        """Names of columns that it adds; its own `columns` it replaces or drops."""
        return ()

    def ready(self) -> Fitted | None:
        """The fitted step, where there is nothing to learn."""
        return None

    def begin(self, frame: pl.DataFrame) -> Fit:
        """Start to learn; `frame` has the columns as this step will see them, and no rows need be in it."""
        raise NotImplementedError


def numbers_of(frame: pl.DataFrame, except_for: Sequence[str] = ()) -> tuple[str, ...]:
    """Columns of numbers, in the frame's order."""
    return tuple(name for name, dtype in frame.schema.items() if dtype.is_numeric() and name not in except_for)


def texts_of(frame: pl.DataFrame, except_for: Sequence[str] = ()) -> tuple[str, ...]:
    """Columns of text, in the frame's order."""
    import polars as pl

    kinds = (pl.String, pl.Categorical, pl.Enum)
    return tuple(name for name, dtype in frame.schema.items() if dtype in kinds and name not in except_for)


def need(
    frame: pl.DataFrame, columns: Sequence[str], step: str, kind: Literal["any", "number", "text"] = "any"
) -> None:
    """UserError ColumnMissing or SourceMalformed where the frame lacks a column, or has it of another kind."""
    import polars as pl

    for name in columns:
        if name not in frame.columns:
            there = ", ".join(frame.columns)
            raise UserError(
                Reason.COLUMN_MISSING, f"{step} reads the column {name!r}, which is not there; there are {there}"
            )
        dtype = frame.schema[name]
        if kind == "number" and not (dtype.is_numeric() or dtype == pl.Boolean):
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"{step} needs numbers, and the column {name!r} holds {dtype}: encode it, or set columnTypes to "
                f"{{{name}: float}}, which tells the rows that have none",
            )
        if kind == "text" and dtype not in (pl.String, pl.Categorical, pl.Enum):
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"{step} needs text, and the column {name!r} holds {dtype}: set its type in spec.columnTypes",
            )
