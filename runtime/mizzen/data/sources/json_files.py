"""JSON and JSON lines: documents are cut into records, and polars reads the records in blocks."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mizzen.data.ahead import ahead
from mizzen.data.sources import streams, types
from mizzen.data.sources.files import File
from mizzen.data.sources.parts import Contract, FilePart, OnDigest
from mizzen.data.sources.rows import BadRows
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

Array = np.ndarray[Any, np.dtype[Any]]
# The classes of Python that a JSON value of each type has; the others take any, as JSON text.
_CLASSES: dict[str, tuple[type, ...]] = {"integer": (int,), "float": (int, float), "boolean": (bool,)}
_BETWEEN = b" \t\r\n,[]"


class Records(NamedTuple):
    """Objects, one a line, and the line in the file of each."""

    data: bytes
    lines: Callable[[], Sequence[int]]


class JsonFile(FilePart):
    """A file of JSON objects: one a line (`lines`), or in an array, or simply one after the other."""

    def __init__(self, file: File, lines: bool, text_columns: Collection[str] = ()) -> None:
        super().__init__(file)
        self._lines = lines
        self._text_columns = text_columns

    def infer(self, known: Mapping[str, str]) -> dict[str, str | None]:
        import polars as pl

        for records in self._records(lambda _: None):
            try:
                frame = pl.read_ndjson(io.BytesIO(records.data), infer_schema_length=None)
                frame = types.normalise(frame, self._text_columns)
            except (
                pl.exceptions.PolarsError,
                UserError,
            ):  # broken lines, types that have nothing in common, huge numbers
                kinds = _infer_one_by_one(records.data)
            else:
                kinds = {name: _kind(frame[name]) for name in frame.columns}
            if kinds:
                return {name: known.get(name) or kind for name, kind in kinds.items()}
        raise UserError(Reason.SOURCE_EMPTY, f"{self.uri} holds no JSON object: it needs at least one row")

    def frames(self, contract: Contract, bad_rows: BadRows, on_digest: OnDigest) -> Iterator[pl.DataFrame]:
        import polars as pl

        if contract.origin != self.uri:
            contract.check_names(self.uri, self.infer({}))
        in_json = {
            name: pl.String() if kind in {"date", "datetime", "binary"} else types.dtype(kind)
            for name, kind in contract.schema.items()
        }
        unknown: set[str] = set()
        for records in self._records(on_digest):
            unknown |= _keys(records.data) - contract.schema.keys()
            try:
                frame = pl.read_ndjson(io.BytesIO(records.data), schema=in_json)
            except pl.exceptions.PolarsError:
                frame, kept = self._careful(records, contract.schema, in_json, bad_rows)
                yield contract.conform(self.uri, frame, kept.__getitem__, bad_rows, from_text=True)
            else:
                yield contract.conform(self.uri, frame, partial(_nth, records), bad_rows, from_text=True)
        if unknown:
            log.warning("%s: keys that its first rows lack are not read: %s", self.uri, ", ".join(sorted(unknown)))

    def _records(self, on_digest: OnDigest) -> Iterator[Records]:
        cut = streams.lines_end if self._lines else _objects_end
        for data, line in ahead(streams.blocks(self.file, cut, on_digest)):
            text, undecodable = streams.as_utf8(data)
            if undecodable:
                log.warning("%s: %d lines are not UTF-8 and were read as Latin-1", self.uri, undecodable)
            whole = Records(text, partial(_numbers, text, line))
            records = whole if self._lines else self._one_a_line(text, line)
            if records.data.strip():
                yield records

    def _one_a_line(self, data: bytes, line: int) -> Records:
        starts, ends = _objects(data)
        pieces = []
        last = 0
        for start, end in zip([*starts.tolist(), len(data)], [*ends.tolist(), len(data)], strict=True):
            if data[last:start].strip(_BETWEEN):
                at = line + data.count(b"\n", 0, start - len(data[last:start].lstrip(_BETWEEN)))
                says = data[last:start].strip(_BETWEEN)[:40].decode(errors="replace")
                raise UserError(
                    Reason.SOURCE_MALFORMED,
                    f"{self.uri}:{at}: JSON objects are expected, whole and in an array or one after the other; "
                    f"there is {says!r}",
                )
            pieces.append(data[start:end].replace(b"\n", b" ").replace(b"\r", b" "))
            last = end

        def lines() -> list[int]:
            newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
            return [line + int(before) for before in np.searchsorted(newlines, starts)]

        return Records(b"\n".join(pieces), lines)

    def _careful(
        self, records: Records, schema: Mapping[str, str], in_json: Mapping[str, pl.DataType], bad_rows: BadRows
    ) -> tuple[pl.DataFrame, list[int]]:
        """The same records one by one: what is not of its column's type is set aside. Returns their lines, too."""
        import polars as pl

        values: dict[str, list[Any]] = {name: [] for name in schema}
        kept = []
        for text, line in zip(_nonblank(records.data), records.lines(), strict=True):
            row, column, reason = _checked(text, schema)
            if reason:
                bad_rows.add(self.uri, line, column, reason)
                continue
            kept.append(line)
            for name, column_values in values.items():
                column_values.append(row.get(name))
        return pl.DataFrame([pl.Series(name, values[name], in_json[name]) for name in schema]), kept


def _nth(records: Records, row: int) -> int:
    return records.lines()[row]


def _checked(text: bytes, schema: Mapping[str, str]) -> tuple[dict[str, Any], str, str]:
    """The row of a line, or the column and the reason why it is none."""
    try:
        row = json.loads(text)
    except ValueError as error:
        return {}, "", f"not JSON: {error}"
    if not isinstance(row, dict):
        return {}, "", f"a JSON object is expected, not {types.quoted(text.decode())}"
    for name, value in row.items():
        kind = schema.get(name, "string")
        if value is None:
            continue
        if kind in _CLASSES:
            fits = isinstance(value, _CLASSES[kind]) and (kind == "boolean" or not isinstance(value, bool))
            if not fits or (kind == "integer" and not -(2**63) <= value < 2**63):
                return {}, name, types.complaint(json.dumps(value), kind)
            row[name] = float(value) if kind == "float" else value
        elif kind.startswith("list<"):
            if not isinstance(value, list):
                return {}, name, f"{types.quoted(json.dumps(value))} is not a list"
        elif not isinstance(value, str):
            row[name] = json.dumps(value)
    return row, "", ""


def _kind(column: pl.Series) -> str:
    """Strings may be dates; they are never numbers, for JSON has those."""
    kind = types.name_of(column.dtype)
    inferred = types.infer(column) if kind == "string" else kind
    return inferred if kind != "string" or inferred in {"date", "datetime"} else "string"


def _infer_one_by_one(data: bytes) -> dict[str, str]:
    """The type that all values of a key have; text where they differ."""
    seen: dict[str, set[type]] = {}
    for text in _nonblank(data):
        try:
            row = json.loads(text)
        except ValueError:
            continue
        for key, value in row.items() if isinstance(row, dict) else ():
            seen.setdefault(key, set()).update({type(value)} - {type(None)})
    names = {(bool,): "boolean", (int,): "integer", (float,): "float", (float, int): "float"}
    return {key: names.get(tuple(sorted(kinds, key=str)), "string") for key, kinds in seen.items()}


def _keys(data: bytes) -> set[str]:
    """Keys of the first and the last record: a sample, so that a new key does not go unnoticed for long."""
    ends = (data[: data.find(b"\n") + 1] or data, data[data.rstrip().rfind(b"\n") + 1 :])
    found: set[str] = set()
    for text in ends:
        try:
            found.update(json.loads(text))
        except (ValueError, TypeError):
            continue
    return found


def _nonblank(data: bytes) -> list[bytes]:
    return [text for text in data.split(b"\n") if text.strip()]


def _numbers(data: bytes, line: int) -> list[int]:
    return [line + number for number, text in enumerate(data.split(b"\n")) if text.strip()]


def _objects_end(data: bytes, at_end: bool) -> int:
    """Where the last whole object ends."""
    if at_end:
        return len(data)
    ends = _objects(data)[1]
    return int(ends[-1]) if ends.size else 0


def _objects(data: bytes) -> tuple[Array, Array]:
    """Starts and ends of the outermost {…}; braces inside strings do not count."""
    array = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(array == ord('"'))
    if b"\\" in data:
        behind = np.flatnonzero(array[np.maximum(quotes - 1, 0)] == ord("\\"))
        escaped = [index for index in behind.tolist() if _is_escaped(data, int(quotes[index]))]
        quotes = np.delete(quotes, escaped)
    braces = np.flatnonzero((array == ord("{")) | (array == ord("}")))
    braces = braces[np.searchsorted(quotes, braces) % 2 == 0]
    opening = array[braces] == ord("{")
    depth = np.cumsum(np.where(opening, 1, -1))
    starts, ends = braces[opening & (depth == 1)], braces[~opening & (depth == 0)] + 1
    return starts[: ends.size], ends[: starts.size]


def _is_escaped(data: bytes, position: int) -> bool:
    """An odd number of backslashes stands before it."""
    run = position
    while run and data[run - 1] == ord("\\"):
        run -= 1
    return (position - run) % 2 == 1
