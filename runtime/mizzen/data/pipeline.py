"""The transforms in their fitted state: fitted once on the train split, stored as JSON, replayed in serving."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mizzen.data.steps.base import Feature, Fitted, Target
from mizzen.data.steps.catalog import fitted_of
from mizzen.data.steps.text import PAD_ID, Tokens
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FORMAT", "IDS", "LENGTHS", "MATRIX", "PAD_ID", "Arrays", "Pipeline", "RowError"]

FORMAT = 2  # part of every fingerprint: a change of what a pipeline gives must count it up
IDS, LENGTHS, MATRIX = "ids", "lengths", "features"

Arrays = dict[str, np.ndarray[Any, Any]]


class RowError(ValueError):
    """A row that the pipeline cannot take; the message says which and why. A server answers it with 400."""


@dataclass(frozen=True)
class Pipeline:
    """Rows of raw columns to arrays of features. The same object serves training and serving.

    `inputs` are the raw columns that it reads, with their types as polars writes them; `steps` are applied in order.
    """

    inputs: Mapping[str, str]
    steps: tuple[Fitted, ...]
    target: Target
    features: tuple[Feature, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a row must have."""
        return tuple(self.inputs)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.target.classes

    @property
    def tokens(self) -> Tokens:
        """The one tokenize step of a text model; UserError where there is none, or more."""
        found = [step for step in self.steps if isinstance(step, Tokens)]
        if len(found) != 1:
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"a text model needs a Dataset with one tokenize step, and this one has {len(found)}; its features are "
                + (", ".join(feature.name for feature in self.features) or "none"),
            )
        return found[0]

    @property
    def max_length(self) -> int:
        return self.tokens.max_length

    @property
    def vocab_size(self) -> int:
        return self.tokens.vocab_size

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        return {name: dtype_of(text) for name, text in self.inputs.items()}

    def transform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with every step applied. Columns that no step knows stay as they are."""
        for step in self.steps:
            frame = step.apply(frame)
        return frame

    def transform_rows(self, rows: Sequence[Mapping[str, Any]]) -> Arrays:
        """Arrays of the rows' features, see `arrays`.

        A missing column, an unknown one, or a value of another type raises RowError; the target is allowed and ignored.
        """
        frame = self.frame_of(rows)
        for step in self.steps:
            why = step.check(frame)
            if why:
                raise RowError(why)
            try:
                frame = step.apply(frame)
            except UserError as error:
                raise RowError(error.message) from error
        return arrays(frame, self.features)

    def frame_of(self, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Rows as a frame of the raw columns, each value checked."""
        import polars as pl

        known = {*self.inputs, self.target.name}
        for number, row in enumerate(rows):
            if row.keys() <= known and len(row) >= len(self.inputs) and all(name in row for name in self.inputs):
                continue
            for name in self.inputs:
                if name not in row:
                    there = ", ".join(map(str, row)) or "none"
                    raise RowError(f"row {number} lacks the column {name!r}; it has {there}")
            unknown = next(name for name in row if name not in known)
            reads = ", ".join(map(repr, self.inputs))
            raise RowError(f"row {number} has an unknown column {unknown!r}; the model reads {reads}")
        made = [_column(name, dtype, [row[name] for row in rows]) for name, dtype in self.schema.items()]
        return pl.DataFrame(made)

    def to_json(self) -> str:
        return json.dumps(
            {
                "format": FORMAT,
                "inputs": dict(self.inputs),
                "target": self.target.name,
                "classes": list(self.target.classes),
                "features": [feature.to_wire() for feature in self.features],
                "steps": [step.to_wire() for step in self.steps],
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Pipeline:
        document = json.loads(text)
        if document.get("format") == 1:
            return _from_format_1(document)
        if document.get("format") != FORMAT:
            raise ValueError(f"pipeline format {document.get('format')!r}; this version of mizzen reads {FORMAT}")
        return cls(
            inputs=document["inputs"],
            steps=tuple(fitted_of(step) for step in document["steps"]),
            target=Target(document["target"], tuple(document["classes"])),
            features=tuple(Feature.from_wire(feature) for feature in document["features"]),
        )

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Read pipeline.json, from a dataset version or from a model folder."""
        return cls.from_json(Path(path).read_bytes())


def _from_format_1(document: Mapping[str, Any]) -> Pipeline:
    """One tokenised column was all there was: models that were registered then are served on."""
    (step,) = document["steps"]
    settings = step["tokenize"]
    tokenizer = json.dumps(step["tokenizer"], ensure_ascii=False)
    tokens = Tokens((settings["column"],), tokenizer, settings.get("maxLength", 64))
    target = Target(document["target"], tuple(document["classes"]))
    return Pipeline({settings["column"]: "String"}, (tokens,), target, tokens.features())


def features_of(steps: Sequence[Fitted], raw: pl.DataFrame, target: str) -> tuple[Feature, ...]:
    """What a model reads: what the steps say they make, and the numbers among the columns that they touched.

    Without steps all columns of numbers are features. The order is that of the columns.
    """
    import polars as pl

    frame = raw.clear()
    special: dict[str, Feature] = {}
    touched: set[str] = set() if steps else set(raw.columns)
    for step in steps:
        before = set(frame.columns)
        frame = step.apply(frame)
        touched |= set(step.columns) | (set(frame.columns) - before)
        for feature in step.features():
            special[feature.name] = feature
    hidden = {f"{name}{ending}" for name in special for ending in ("_length", "_at", "_weight")}
    names = list(dict.fromkeys([*frame.columns, *special]))
    found = []
    for name in names:
        if name in special:
            found.append(special[name])
        elif name in touched and name not in hidden and name != target:
            dtype = frame.schema[name]
            if dtype.is_numeric() or dtype == pl.Boolean:
                found.append(Feature(name))
    return tuple(found)


def arrays(frame: pl.DataFrame, features: Sequence[Feature]) -> Arrays:
    """Arrays of a transformed frame.

    `ids` (rows, max_length) int32 and `lengths` (rows,) int32 of tokens; `features` (rows, width) float32 of numbers
    and of one-hot columns, in the features' order, missing numbers as NaN; NAME (rows, channels, height, width)
    float32 of images; NAME_indptr, NAME_indices, NAME_values (a CSR matrix) of sparse features.
    """
    import polars as pl

    made: Arrays = {}
    dense: list[np.ndarray[Any, Any]] = []
    rows = frame.height
    for feature in features:
        name = feature.name
        if feature.kind == "tokens":
            made[IDS] = _fixed(frame[name], feature.width, np.int32)
            made[LENGTHS] = frame[f"{name}_length"].to_numpy().astype(np.int32)
        elif feature.kind == "number":
            dense.append(frame[name].cast(pl.Float32).to_numpy().reshape(rows, 1))
        elif feature.kind == "onehot":
            codes = frame[name].to_numpy()
            block = np.zeros((rows, feature.width), dtype=np.float32)
            there = np.flatnonzero(codes >= 0)
            block[there, codes[there]] = 1.0
            dense.append(block)
        elif feature.kind == "image":
            made[name] = _standard(_fixed(frame[name], feature.width, np.uint8), feature)
        else:
            lengths = frame[f"{name}_at"].list.len().to_numpy()
            made[f"{name}_indptr"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            made[f"{name}_indices"] = frame[f"{name}_at"].explode().drop_nulls().to_numpy().astype(np.int32)
            made[f"{name}_values"] = frame[f"{name}_weight"].explode().drop_nulls().to_numpy().astype(np.float32)
    if dense:
        made[MATRIX] = np.concatenate(dense, axis=1)
    return made


def matrix_names(features: Sequence[Feature]) -> list[str]:
    """Names of the columns of `features`: COLUMN, or COLUMN=CATEGORY."""
    names: list[str] = []
    for feature in features:
        if feature.kind == "number":
            names.append(feature.name)
        elif feature.kind == "onehot":
            labels = feature.labels or tuple(map(str, range(feature.width)))
            names += [f"{feature.name}={label}" for label in labels]
    return names


def _fixed(series: pl.Series, width: int, dtype: type) -> np.ndarray[Any, Any]:
    """(rows, width) of a column of fixed-size lists."""
    return np.array(series.explode().to_numpy(), dtype=dtype).reshape(-1, width)[: len(series)]


def _standard(flat: np.ndarray[Any, Any], feature: Feature) -> np.ndarray[Any, Any]:
    """Channels first, as torch wants them: 0..1, or with the train split's mean and deviation taken out."""
    pictures = flat.reshape(-1, *feature.shape).astype(np.float32) / 255
    if feature.mean:
        pictures = (pictures - np.array(feature.mean, np.float32)) / np.array(feature.deviation, np.float32)
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


def _column(name: str, dtype: pl.DataType, values: list[Any]) -> pl.Series:
    """One raw column; RowError names the first value that is not of its type."""
    import polars as pl

    wanted = _accepts(dtype)
    for row, value in enumerate(values):
        if value is None and dtype != pl.String:
            continue
        if not isinstance(value, wanted) or (isinstance(value, bool) and dtype != pl.Boolean):
            word = {pl.String: "a string", pl.Boolean: "true or false"}.get(dtype.base_type())
            what = word or ("a number" if dtype.is_numeric() else f"a value of type {dtype}")
            raise RowError(f"row {row}: column {name!r} must be {what}, not {type(value).__name__}")
        if dtype.is_integer() and isinstance(value, float) and not value.is_integer():
            raise RowError(f"row {row}: column {name!r} must be a whole number, not {value!r}")
    try:
        series = pl.Series(name, values, dtype=dtype, strict=False)
    except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
        raise RowError(f"column {name!r} has a value that is no {dtype}: {str(error).splitlines()[0]}") from error
    lost = [
        row for row, (value, kept) in enumerate(zip(values, series, strict=True)) if kept is None and value is not None
    ]
    if lost:
        raise RowError(f"row {lost[0]}: column {name!r} has the value {values[lost[0]]!r}, which is no {dtype}")
    return series


def _accepts(dtype: pl.DataType) -> tuple[type, ...]:
    import datetime

    import polars as pl

    if dtype == pl.String:
        return (str,)
    if dtype == pl.Boolean:
        return (bool,)
    if dtype.is_numeric():
        return (int, float)
    if dtype.is_temporal():
        return (str, datetime.date, datetime.datetime)
    return (object,)


def dtype_of(text: str) -> pl.DataType:
    """A polars type from its text: Int64, String, Datetime(us), List(UInt8), Array(UInt8, 784)."""
    import polars as pl

    head, _, rest = text.partition("(")
    inner = rest.rstrip(")")
    if head == "Datetime":
        unit, _, zone = inner.partition(",")
        return pl.Datetime(unit.strip() or "us", zone.strip() or None)  # type: ignore[arg-type]
    if head == "List":
        return pl.List(dtype_of(inner))
    if head == "Array":
        kind, _, width = inner.rpartition(",")
        return pl.Array(dtype_of(kind.strip()), int(width))
    found = getattr(pl, head, None)
    if found is None:
        raise ValueError(f"unknown column type {text!r}")
    return found()  # type: ignore[no-any-return]


def dtype_text(dtype: pl.DataType) -> str:
    """What `dtype_of` reads."""
    import polars as pl

    if isinstance(dtype, pl.Datetime):
        return f"Datetime({dtype.time_unit}{', ' + dtype.time_zone if dtype.time_zone else ''})"
    if isinstance(dtype, pl.List):
        return f"List({dtype_text(dtype.inner)})"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Array):
        return f"Array({dtype_text(dtype.inner)}, {dtype.size})"  # type: ignore[arg-type]
    return str(dtype.base_type())
