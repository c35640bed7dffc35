"""Seven column types: inferred from text, made of what files and databases have, and kept as a contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

# What people write for "nothing" in columns of numbers, dates and booleans. Text stays as it is: NA is Namibia.
MISSING = ("NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "null", "NULL", "None", "<NA>")
# Formats that can be read in one way only: 01/02/2026 is left to the user, as text.
DATES = ("%Y-%m-%d",)
DATETIMES = tuple(
    f"%Y-%m-%d{between}{time}{zone}"
    for time in ("%H:%M:%S", "%H:%M:%S%.f", "%H:%M")
    for zone in ("", "Z", "%#z")  # a plain Z is read ten times as fast
    for between in "T "
)
ARTICLES = {"integer": "an integer", "float": "a number", "boolean": "true or false", "date": "a date as 2026-12-31",
            "datetime": "a time as 2026-12-31T23:59:59"}  # fmt: skip
INFINITE = "the number is infinite, and nothing can be scaled or averaged with it"


class Converted(NamedTuple):
    """Text as a typed column. `wrong` marks values of another type; `plain`: polars' own CSV parser gets the same."""

    values: pl.Series
    wrong: pl.Series
    plain: bool


def dtype(name: str) -> pl.DataType:
    """The polars type of one of mizzen_api's ColumnType names."""
    import polars as pl

    if name.startswith("list<"):
        return pl.List(dtype(name[5:-1]))
    return {
        "string": pl.String(),
        "integer": pl.Int64(),
        "float": pl.Float64(),
        "boolean": pl.Boolean(),
        "date": pl.Date(),
        "datetime": pl.Datetime("us"),
        "binary": pl.Binary(),
    }[name]


def name_of(kind: pl.DataType) -> str:
    """The name of a type, as the contract keeps it; lists are `list<float>`."""
    import polars as pl

    if isinstance(kind, pl.List):
        return f"list<{name_of(kind.inner)}>"  # type: ignore[arg-type]
    names = ("string", "integer", "float", "boolean", "date", "datetime", "binary")
    return next((name for name in names if dtype(name) == kind), str(kind).lower())


def infer(texts: pl.Series, null_values: Collection[str] = ()) -> str:
    """The narrowest type that every text is of; "string" where there is none, or nothing at all.

    Codes stay text: numbers with leading zeros, and integers that 64 bits do not hold.
    """
    there = present(texts, null_values)
    if not len(there):
        return "string"
    head = there.head(1000)
    for name in ("boolean", "integer", "float", "date", "datetime"):
        if any(_parse(part, name).null_count() for part in (head, there)):
            continue
        if name in {"integer", "float"} and there.str.contains(r"^[+-]?(0\d|\d{19,}$)").any():
            return "string"
        return name
    return "string"


def convert(texts: pl.Series, name: str, null_values: Collection[str] = ()) -> Converted:
    """Read text as the named type. Empty fields and markers of missing values become null."""
    import polars as pl

    if name == "string":
        return Converted(_without(texts, {"", *null_values}), pl.repeat(False, len(texts), eager=True), plain=True)
    if name in {"date", "datetime"} and not null_values:
        values = _parse(texts, name)
        if values.null_count() == texts.null_count():
            return Converted(values, pl.repeat(False, len(texts), eager=True), plain=False)
    stripped = texts.str.strip_chars()
    present = _without(stripped, {"", *MISSING, *null_values})
    values = _parse(present, name)
    wrong = present.is_not_null() & values.is_null()
    if name == "float":
        wrong |= values.is_infinite().fill_null(False)
    as_written = present.null_count() == texts.null_count() and bool((stripped == texts).all())
    return Converted(values, wrong, as_written and name not in {"date", "datetime"})


def quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def complaint(text: str, name: str) -> str:
    """What is wrong with a value, and the mend."""
    if name == "float" and text.strip().lower().lstrip("+-").startswith("inf"):
        return INFINITE
    return f"{quoted(text)} is not {ARTICLES[name]}; mend it, or declare the column a string in columnTypes"


def present(texts: pl.Series, null_values: Collection[str] = ()) -> pl.Series:
    """Those that are not missing."""
    return _without(texts.str.strip_chars(), {"", *MISSING, *null_values}).drop_nulls()


def _without(texts: pl.Series, markers: set[str]) -> pl.Series:
    import polars as pl

    some = pl.Series(sorted(markers), dtype=pl.String)
    found = texts == "" if markers == {""} else texts.is_in(some.implode())
    return texts.set(found.fill_null(False), None) if found.any() else texts


def _parse(texts: pl.Series, name: str) -> pl.Series:
    """Null where a text is not of the type."""
    import polars as pl

    if name == "integer":
        return texts.cast(pl.Int64, strict=False)
    if name == "float":
        return texts.cast(pl.Float64, strict=False)
    if name == "boolean":
        lower = texts.str.to_lowercase()
        return (lower == "true").set(~lower.is_in(["true", "false"]).fill_null(True), None)
    if name == "date":
        return _first_that_fits(texts, DATES, pl.Date())
    if name == "datetime":
        return _first_that_fits(texts, DATETIMES, pl.Datetime("us"))
    raise ValueError(f"text cannot be read as {name}")


def _first_that_fits(texts: pl.Series, formats: tuple[str, ...], kind: pl.Date | pl.Datetime) -> pl.Series:
    """Each text by a format that fits it: all by that of the first texts as a rule."""

    head = texts.drop_nulls().head(16)
    likely = next((form for form in formats if not _strptime(head, form, kind).null_count()), formats[0])
    values = _strptime(texts, likely, kind)
    for form in formats:
        missing = values.is_null() & texts.is_not_null()
        if not missing.any():
            break
        values = values.zip_with(~missing, _strptime(texts.set(~missing, None), form, kind))
    return values


def _strptime(texts: pl.Series, form: str, kind: pl.Date | pl.Datetime) -> pl.Series:
    import polars as pl

    again = len(texts) > 1000 and texts.head(1000).n_unique() < 500  # what comes again and again is looked up
    if not form.endswith("z"):
        return texts.str.strptime(kind, form, strict=False, cache=again)
    return texts.str.strptime(pl.Datetime("us", "UTC"), form, strict=False).dt.replace_time_zone(None)  # UTC from here


def from_arrow(table: Any) -> pl.DataFrame:
    """A table or batch of Arrow in polars; what polars does not know becomes text."""
    import polars as pl
    import pyarrow as pa

    columns = []
    for name, column in zip(table.schema.names, table.columns, strict=True):
        plain = column
        if isinstance(column.type, pa.UuidType):
            columns.append(_uuids(name, column))
            continue
        if isinstance(column.type, pa.BaseExtensionType):
            plain = column.cast(column.type.storage_type)
            if getattr(column.type, "type_name", "") == "numeric":  # PostgreSQL's, of any precision
                plain = plain.cast(pa.float64())
        elif pa.types.is_interval(column.type):
            plain = pa.array([value if value is None else str(value) for value in column.to_pylist()], pa.string())
        columns.append(pl.Series(name, pl.from_arrow(plain)))
    return pl.DataFrame(columns)


def _uuids(name: str, column: Any) -> pl.Series:
    """As people write them: 8-4-4-4-12 digits."""
    import polars as pl

    digits = pl.col(name).bin.encode("hex")
    parts = [digits.str.slice(at, length) for at, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    stored = pl.Series(name, pl.from_arrow(column.cast(column.type.storage_type)))
    return stored.cast(pl.Binary).to_frame().select(pl.concat_str(parts, separator="-").alias(name)).to_series()


def normalise(frame: pl.DataFrame, text_columns: Collection[str] = ()) -> pl.DataFrame:
    """The columns of a typed file or database in our types: small ones widened, times in UTC, structures as JSON."""
    import polars as pl

    columns = [_normal(frame[name].dtype, pl.col(name), name in text_columns).alias(name) for name in frame.columns]
    try:
        return frame.select(columns)
    except pl.exceptions.InvalidOperationError as error:  # an unsigned integer above 2⁶³
        raise UserError(Reason.SOURCE_MALFORMED, str(error).splitlines()[0]) from error


def _normal(kind: pl.DataType, column: pl.Expr, as_text: bool) -> pl.Expr:  # noqa: PLR0911 (a table)
    import polars as pl

    if isinstance(kind, pl.Struct):
        return pl.when(column.is_not_null()).then(column.struct.json_encode())
    if isinstance(kind, pl.List | pl.Array) and not as_text:
        as_list = column.arr.to_list() if isinstance(kind, pl.Array) else column
        inner = kind.inner
        if inner.is_integer():
            return as_list.cast(pl.List(pl.Int64))
        if inner.is_numeric():
            return as_list.cast(pl.List(pl.Float64))
        return as_list
    if as_text or isinstance(kind, pl.Categorical | pl.Enum | pl.Null | pl.Time):
        return column.cast(pl.String)
    if kind.is_integer():
        return column.cast(pl.Int64)
    if kind.is_float() or kind.is_decimal():
        return column.cast(pl.Float64)
    if isinstance(kind, pl.Datetime):
        naive = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if kind.time_zone else column
        return naive.cast(pl.Datetime("us"))
    if isinstance(kind, pl.Duration):
        return column.dt.total_microseconds().cast(pl.Float64) / 1e6
    return column


def check_contract(previous: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """What breaks those who rely on the previous schema: columns that vanished or changed their type."""
    breaks = []
    for column, was in previous.items():
        if column not in current:
            breaks.append(f"column {column!r} ({was}) has vanished; there are {', '.join(current) or 'none'}")
        elif current[column] != was:
            breaks.append(f"column {column!r} was {was} and is {current[column]} now")
    return breaks
