"""The three passes that make a version: ingest into a spool, fit on the train rows, transform into Parquet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mizzen.data import fitting
from mizzen.data.ahead import ahead, spread
from mizzen.data.expectations import Suite
from mizzen.data.pipeline import Pipeline, dtype_text, features_of
from mizzen.data.profiles import Profile
from mizzen.data.split import CLASS, HASH, Divider, classes_of, with_class, with_hash
from mizzen.data.spool import Spool
from mizzen.data.steps.base import Fitted, Step, Target
from mizzen.data.steps.catalog import contents_of, steps_of, texts_of_spec
from mizzen.data.steps.counts import Counts
from mizzen.data.steps.custom import CustomStep
from mizzen.data.store import LABEL, RAW
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.contract import SPLITS
from mizzen_api.dataset import DatasetSpec

if TYPE_CHECKING:
    import polars as pl

    from mizzen.data.sources import Origin

MOST_CLASSES = 10_000

OnRows = Callable[[int], None]


class RowSource(Protocol):
    """What sources give: see mizzen.data.sources."""

    @property
    def uris(self) -> tuple[str, ...]: ...

    @property
    def bad_row_count(self) -> int: ...

    @property
    def bad_rows(self) -> Sequence[object]: ...

    def size(self) -> int | None: ...

    def origins(self) -> Sequence[Origin]: ...

    def identity(self) -> str: ...

    def digest(self) -> str: ...

    def schema(self) -> dict[str, pl.DataType]: ...

    def chunks(self) -> Iterator[pl.DataFrame]: ...


class Runner(Protocol):
    """Where passes run: on this machine, or on a Ray cluster. The results are the same to the bit."""

    def fit(self, one: fitting.Pass, spool: Spool, divider: Divider) -> fitting.Pass: ...

    def transform(self, making: Making, write: Callable[[int, int, pl.DataFrame], None]) -> None: ...


@dataclass
class Making:
    """All that is known of a version on the way; its fields fill from pass to pass."""

    spec: DatasetSpec
    raw: pl.DataFrame  # no rows: the schema of the sources
    spool: Spool
    divider: Divider
    target: Target
    suite: Suite
    profile: Profile
    pipeline: Pipeline | None = None
    kept: tuple[str, ...] = ()  # raw columns that are stored beside the features
    rows: dict[str, int] = field(default_factory=dict)
    class_counts: dict[str, dict[str, int]] = field(default_factory=dict)  # part → class → rows


def ingest(
    spec: DatasetSpec,
    source: RowSource,
    spool: Spool,
    on_rows: OnRows = lambda _: None,
    rejected: Path | None = None,
) -> Making:
    """Read every row once; afterwards parts, classes, profile and the counts of expectations are known.

    Rows that an expectation drops go to the file `rejected`, with their reasons.
    """
    import polars as pl

    raw = pl.DataFrame(schema=source.schema())
    check_columns(spec, raw)
    is_class = _is_class(spec, raw)
    divider = Divider(spec.split, spec.target, by_class=is_class)
    read = _Reading(spec, divider, key_columns(spec, raw), columns_read(spec, raw), is_class)
    classes = Counts.empty()
    suite = Suite(spec.expectations, source.schema())
    profile = Profile.empty(raw.schema)
    aside = _Aside(rejected)

    def sifted() -> Iterator[tuple[int, pl.DataFrame]]:
        before = 0
        for frame in ahead(source.chunks()):
            found = suite.update(frame)
            aside.add(found.rejected)
            yield before, found.kept
            before += found.kept.height

    for one in spread(sifted(), read):
        profile.merge(one.profile)
        divider.add(one.places)
        classes = classes.merge(one.classes)
        spool.add(one.rows)
        on_rows(spool.rows)
    aside.close()
    if not spool.rows:
        why = f"all {suite.rows} rows were dropped by expectations" if suite.rows else "the sources have no rows"
        raise UserError(Reason.SOURCE_EMPTY, why)
    target = _target(spec, classes if is_class else None)
    divider.finish()
    divider.settle(spool.chunks([HASH, CLASS] if is_class else [HASH]))
    return Making(spec, raw, spool, divider, target, suite, profile)


@dataclass(frozen=True)
class _Read:
    """What one chunk tells, and its rows with all that later passes need of them."""

    rows: pl.DataFrame
    profile: Profile
    places: pl.DataFrame
    classes: Counts


@dataclass(frozen=True)
class _Reading:
    """Reads a chunk; depends on that alone, so that chunks are read side by side."""

    spec: DatasetSpec
    divider: Divider
    keys: list[str]
    columns: list[str]
    is_class: bool

    def __call__(self, numbered: tuple[int, pl.DataFrame]) -> _Read:
        before, frame = numbered[0], numbered[1].rechunk()  # sums do not depend on how a reader cut it
        rows = with_hash(frame, self.keys, self.spec.split)
        classes = Counts.empty()
        if self.is_class:
            rows = with_class(rows, self.spec.target)
            names, codes = classes_of(rows, self.spec.target)
            _check_target(frame[self.spec.target], before, names)
            classes = Counts.of_codes(names, codes)
        else:
            _check_target(frame[self.spec.target], before)
        places = self.divider.count(rows)
        return _Read(
            rows.select(name for name in rows.columns if name in self.columns),
            Profile.of(frame, threads=1),
            places,
            classes,
        )


def columns_read(spec: DatasetSpec, raw: pl.DataFrame) -> list[str]:
    """What later passes read: all columns, where there is no step, or one that may read what it likes."""
    steps = steps_of(spec.transforms, raw, Target(spec.target, ("",)))
    kept = {HASH, CLASS, spec.target, spec.split.time, *texts_of_spec(spec.transforms)}
    for step in steps:
        kept |= set(step.columns)
    whole = not steps or any(isinstance(step, CustomStep) for step in steps)
    return [name for name in (*raw.columns, HASH, CLASS) if whole or name in kept]


class _Aside:
    """The rows that expectations dropped."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._writer: Any = None

    def add(self, frame: pl.DataFrame) -> None:
        if self._file is None or not frame.height:
            return
        import pyarrow.parquet as pq

        table = frame.to_arrow()
        self._writer = self._writer or pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def check_columns(spec: DatasetSpec, raw: pl.DataFrame) -> None:
    """Every column that the spec names is there, or a transform makes it."""
    there = ", ".join(raw.columns) or "none"
    if spec.target not in raw.columns:
        message = f"the sources have no target column {spec.target!r}; their columns are {there}"
        raise UserError(Reason.COLUMN_MISSING, message)
    for name, what in ((spec.split.group, "split.group"), (spec.split.time, "split.time")):
        if name and name not in raw.columns:
            message = f"{what} names the column {name!r}, which is not there; there are {there}"
            raise UserError(Reason.COLUMN_MISSING, message)
    steps = steps_of(spec.transforms, raw, Target(spec.target, ("",)))
    made = set(raw.columns)
    for step in steps:
        missing = [name for name in step.columns if name not in made and not _may_be_made(steps, name)]
        if missing:
            message = f"a transform reads the column {missing[0]!r}, which is not there; there are {there}"
            raise UserError(Reason.COLUMN_MISSING, message)
        if spec.target in step.columns:
            message = f"a transform changes the target {spec.target!r}: leave it out of its columns"
            raise UserError(Reason.INVALID_PARAMETERS, message)


def _may_be_made(steps: Sequence[Step], name: str) -> bool:
    return any(name in step.makes() or isinstance(step, CustomStep) for step in steps)


def key_columns(spec: DatasetSpec, raw: pl.DataFrame) -> list[str]:
    """The columns by which rows count as the same: texts and images where there are any, else the whole row.

    The same text twice is the same example, whatever its number or its label. A table of few categories, though, has
    equal features in many rows that are not copies of each other.
    """
    contents = contents_of(spec.transforms)
    return [name for name in raw.columns if name in contents] or list(raw.columns)


def _is_class(spec: DatasetSpec, raw: pl.DataFrame) -> bool:
    if spec.target_type != "auto":
        return spec.target_type == "class"
    return not raw.schema[spec.target].is_float()


def _check_target(series: pl.Series, before: int, classes: Sequence[str] | None = None) -> None:
    """The target is there in every row; `classes` are its different texts."""
    import polars as pl

    blank = [name for name in classes or () if not name.strip()]
    if not blank and not series.null_count() and not (series.dtype.is_float() and series.is_nan().any()):
        return
    empty = series.is_null()
    if series.dtype == pl.String:
        empty = empty | (series.str.strip_chars() == "").fill_null(value=True)
    elif series.dtype.is_float():
        empty = empty | series.is_nan().fill_null(value=True)
    if empty.any():
        row = before + int(empty.arg_true()[0]) + 1
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"row {row}: the target column {series.name!r} is empty; fill it, or drop such rows with an expectation",
        )


def _target(spec: DatasetSpec, counts: Counts | None) -> Target:
    if counts is None:
        return Target(spec.target)
    classes = tuple(sorted(str(value) for value in counts.table["value"]))
    if len(classes) < 2:
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"the target column {spec.target!r} holds only the value {classes[0]!r}: classification needs two or more",
        )
    if len(classes) > MOST_CLASSES:
        raise UserError(
            Reason.SOURCE_MALFORMED,
            f"the target column {spec.target!r} holds {len(classes)} different values, too many for classes: "
            "set targetType: number, or choose another column",
        )
    return Target(spec.target, classes)


class LocalRunner:
    """Passes on this machine: some chunks at a time, and their states merged in the chunks' order, as on a cluster."""

    def fit(self, one: fitting.Pass, spool: Spool, divider: Divider) -> fitting.Pass:
        start = copy.deepcopy(one)

        def gather(number: int) -> fitting.Pass:
            state = copy.deepcopy(start)
            state.update(train_rows(spool.get(number), divider))
            return state

        for state in spread(range(spool.count), gather):
            one.merge(state)
        return one

    def transform(self, making: Making, write: Callable[[int, int, pl.DataFrame], None]) -> None:
        def make(number: int) -> list[tuple[int, pl.DataFrame]]:
            return list(transformed(making, making.spool.get(number), number))

        for number, parts in enumerate(spread(range(making.spool.count), make)):
            for part, made in parts:
                write(number, part, made)


def train_rows(frame: pl.DataFrame, divider: Divider) -> pl.DataFrame:
    return frame.filter(divider.parts(frame) == 0).drop(HASH, CLASS, strict=False)


def fit(making: Making, runner: Runner) -> Pipeline:
    """The pipeline, fitted on the train rows."""
    steps = steps_of(making.spec.transforms, making.raw, making.target)

    def run(one: fitting.Pass) -> fitting.Pass:
        return runner.fit(one, making.spool, making.divider)

    fitted = fitting.fit(steps, making.raw, run)
    texts = texts_of_spec(making.spec.transforms)
    making.kept = tuple(name for name in making.raw.columns if name in texts)
    making.pipeline = pipeline_of(fitted, making.raw, making.target)
    return making.pipeline


def pipeline_of(fitted: Sequence[Fitted], raw: pl.DataFrame, target: Target) -> Pipeline:
    read = {name for step in fitted for name in step.columns}
    whole = not fitted or any(step.KIND == "custom" and not step.columns for step in fitted)
    inputs = {
        name: dtype_text(dtype) for name, dtype in raw.schema.items() if name != target.name and (whole or name in read)
    }
    return Pipeline(inputs, tuple(fitted), target, features_of(fitted, raw, target.name))


def transformed(making: Making, frame: pl.DataFrame, number: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """(part, rows) of one chunk, in an order that a seed shuffles: what stands in time or class order is mixed."""
    parts = making.divider.parts(frame).to_numpy()
    made = stored(making, frame)
    for part in range(len(SPLITS)):
        places = np.flatnonzero(parts == part)
        if len(places):
            order = np.random.default_rng((making.spec.split.seed, number, part)).permutation(places)
            yield part, made[order]


def stored(making: Making, frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of a dataset version: features in compact form, the label, and the raw text beside them."""
    import polars as pl

    assert making.pipeline is not None
    done = making.pipeline.transform(frame.drop(HASH, CLASS, strict=False))
    columns: list[Any] = []
    for feature in making.pipeline.features:
        name = feature.name
        if feature.kind == "number":
            columns.append(done[name].cast(pl.Float32))
        elif feature.kind == "onehot":
            columns.append(done[name].cast(pl.Int16 if feature.width < 2**15 else pl.Int32))
        elif feature.kind == "sparse":
            columns += [done[f"{name}_at"], done[f"{name}_weight"]]
        else:
            columns.append(done[name])
            if feature.kind == "tokens":
                columns.append(done[f"{name}_length"])
    return pl.DataFrame(
        [*columns, _label(making.target, frame).alias(LABEL), *(frame[n].alias(RAW + n) for n in making.kept)]
    )


def _label(target: Target, frame: pl.DataFrame) -> pl.Series:
    import polars as pl

    if not target.is_class:
        return frame[target.name].cast(pl.Float64)
    names, codes = classes_of(frame, target.name)
    place = {name: number for number, name in enumerate(target.classes)}
    return pl.Series(np.array([place[name] for name in names], np.int32)[codes])


class PartWriters:
    """One Parquet file for each part, written row group by row group."""

    def __init__(self, folder: Path, classes: int = 0) -> None:
        self._folder, self._classes = folder, classes
        self._writers: dict[int, Any] = {}
        self.rows = dict.fromkeys(SPLITS, 0)
        self.labels = {name: np.zeros(classes, dtype=np.int64) for name in SPLITS}
        self._empty: pl.DataFrame | None = None

    def write(self, part: int, frame: pl.DataFrame) -> None:
        import pyarrow.parquet as pq

        table = frame.to_arrow(compat_level=None)
        if part not in self._writers:
            self._folder.mkdir(exist_ok=True)
            file = self._folder / f"{SPLITS[part]}.parquet"
            self._writers[part] = pq.ParquetWriter(
                file,
                table.schema,
                compression={name: "lz4" if kind.is_numeric() else "zstd" for name, kind in frame.schema.items()},
                compression_level={name: 1 for name, kind in frame.schema.items() if not kind.is_numeric()} or None,
                write_statistics=False,  # of rows in shuffled order they say nothing
            )
        self._writers[part].write_table(table)
        self.rows[SPLITS[part]] += frame.height
        if self._classes and frame.height:
            self.labels[SPLITS[part]] += np.bincount(frame[LABEL].to_numpy(), minlength=self._classes)
        self._empty = frame.clear()

    def close(self) -> None:
        """End the files; a part without rows gets one without rows."""
        if self._empty is not None:
            for part in set(range(len(SPLITS))) - self._writers.keys():
                self.write(part, self._empty)
        for writer in self._writers.values():
            writer.close()
