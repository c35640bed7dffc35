"""The shape of delimited text: its dialect, where records end, and which of them have too few or too many fields."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_sources import Csv

if TYPE_CHECKING:
    import polars as pl

DELIMITERS = ",;\t|"
SNIFFED_RECORDS = 20
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Dialect:
    """How one file is written."""

    delimiter: str
    quote: str
    columns: tuple[str, ...]
    skipped: int  # bytes before the first row


class Ragged(NamedTuple):
    """A record with another number of fields than the header, or a quote that swallowed `lines` lines."""

    line: int
    reason: str
    lines: int = 1


class Records(NamedTuple):
    """The well-shaped records of a block as text, the line of each, and those that are not."""

    frame: pl.DataFrame
    lines: Indices
    ragged: list[Ragged]


@dataclass(frozen=True)
class Shape:
    """Records of a block: bytes from `starts` to `ends` (the line end excluded), with so many delimiters each."""

    starts: Indices
    ends: Indices
    delimiters: Indices
    newlines: Indices  # all of them, inside quotes, too
    open: bool  # a quote is open at the end

    @classmethod
    def of(cls, data: bytes, dialect: Dialect) -> Shape:
        """By the parity of quotes before each byte, as polars does it: right unless quotes stand in plain fields."""
        array = np.frombuffer(data, np.uint8)
        newlines = np.flatnonzero(array == 10)
        ends = newlines
        delimiters = np.flatnonzero(array == ord(dialect.delimiter))
        is_open = False
        if dialect.quote and (quotes := np.flatnonzero(array == ord(dialect.quote))).size:
            ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
            delimiters = delimiters[np.searchsorted(quotes, delimiters) % 2 == 0]
            is_open = quotes.size % 2 == 1
        if not ends.size or ends[-1] != len(data) - 1:
            ends = np.append(ends, len(data))
        starts = np.concatenate([[0], ends[:-1] + 1])
        counts = np.diff(np.searchsorted(delimiters, ends), prepend=0)
        return cls(starts, ends, counts, newlines, is_open)

    def blank(self, data: bytes) -> Mask:
        lengths = self.ends - self.starts
        blank: Mask = lengths == 0
        alone = np.flatnonzero(lengths == 1)
        blank[alone[np.frombuffer(data, np.uint8)[self.starts[alone]] == 13]] = True
        return blank


def records_end(data: bytes, at_end: bool, quote: bytes) -> int:
    """Where the last whole record ends: after a newline that is outside quotes; 0 when there is none."""
    if at_end:
        return len(data)
    end = data.rfind(b"\n") + 1
    if not quote or data.find(quote, 0, end) < 0 or data.count(quote, 0, end) % 2 == 0:
        return end
    array = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(array == 10)
    outside = newlines[np.searchsorted(np.flatnonzero(array == quote[0]), newlines) % 2 == 0]
    return int(outside[-1]) + 1 if outside.size else 0


def has_codes(data: bytes, dialect: Dialect) -> bool:
    """Whether a field may begin with a zero before other digits, as codes do and numbers do not."""
    array = np.frombuffer(data, np.uint8)
    zeros = np.flatnonzero((array[:-1] == ord("0")) & (array[1:] >= ord("0")) & (array[1:] <= ord("9")))
    begins = np.zeros(256, dtype=bool)
    begins[list(f"{dialect.delimiter}{dialect.quote}\r\n \t".encode())] = True
    before = array[zeros - 1]
    signed = zeros[(before == ord("+")) | (before == ord("-"))]
    return bool(begins[before].any() or begins[array[signed - 2]].any() or (zeros[:1] < 2).any())


def sniff(uri: str, data: bytes, options: Csv) -> Dialect:
    """The delimiter that the header and most of the first records agree on; column names that are there and unique."""
    start = len(data) - len(data.lstrip(b"\r\n"))
    head = data[start : start + (1 << 20)].decode(errors="replace")
    candidates = options.delimiter or DELIMITERS
    found = {delimiter: _records(head, delimiter, options.quote) for delimiter in candidates}

    def fitness(delimiter: str) -> tuple[int, int]:
        records = found[delimiter]
        width = len(records[0])
        return (sum(len(record) == width for record in records) if width > 1 else 0, width)

    delimiter = max(candidates, key=fitness)
    first = found[delimiter][0]
    if not options.header:
        return Dialect(delimiter, options.quote, tuple(f"column_{n}" for n in range(1, len(first) + 1)), start)
    columns = [name.strip() or f"column_{number}" for number, name in enumerate(first, start=1)]
    line = data.count(b"\n", 0, start) + 1
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UserError(Reason.SOURCE_MALFORMED, f"{uri}:{line}: column {twice[0]!r} appears twice")
    provisional = Dialect(delimiter, options.quote, tuple(columns), start)
    end = int(Shape.of(data[start : start + (1 << 20)], provisional).ends[0])
    return Dialect(delimiter, options.quote, tuple(columns), min(len(data), start + end + 1))


def _records(text: str, delimiter: str, quote: str) -> list[list[str]]:
    reader = _reader(text, delimiter, quote)
    records = []
    for record in reader:
        if record:
            records.append(record)
        if len(records) > SNIFFED_RECORDS:
            break
    return records or [[""]]


def _reader(text: str, delimiter: str, quote: str, *, strict: bool = False) -> Any:
    lines = io.StringIO(text, newline="")
    if not quote:
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=strict)


def read_texts(data: bytes, dialect: Dialect) -> pl.DataFrame:
    """All columns as text, by polars; its errors are the caller's."""
    import polars as pl

    return pl.read_csv(
        io.BytesIO(data),
        has_header=False,
        schema=dict.fromkeys(dialect.columns, pl.String()),
        separator=dialect.delimiter,
        quote_char=dialect.quote or None,
    )


def records(uri: str, data: bytes, line: int, dialect: Dialect) -> Records:
    """Every record of a block, however odd: none is padded, cut or silently left out, but blank lines.

    UserError when a quote is never closed.
    """
    import polars as pl

    shape = Shape.of(data, dialect)
    width = len(dialect.columns)
    blank = shape.blank(data)
    odd = (shape.delimiters != width - 1) & ~blank
    quoted = bool(dialect.quote) and dialect.quote.encode() in data
    if quoted and (shape.open or odd.any()):
        return _one_by_one(uri, data, line, dialect)
    kept = ~(odd | blank)
    lines = line + np.searchsorted(shape.newlines, shape.starts)
    try:
        frame = read_texts(_only(data, shape, kept), dialect) if kept.any() else _empty(dialect)
    except pl.exceptions.PolarsError:
        return _one_by_one(uri, data, line, dialect)
    if frame.height != int(kept.sum()):
        return _one_by_one(uri, data, line, dialect)
    ragged = [Ragged(int(lines[i]), _says(int(shape.delimiters[i]) + 1, dialect)) for i in np.flatnonzero(odd)]
    return Records(frame, lines[kept], ragged)


def _empty(dialect: Dialect) -> pl.DataFrame:
    import polars as pl

    return pl.DataFrame(schema=dict.fromkeys(dialect.columns, pl.String()))


def _only(data: bytes, shape: Shape, kept: Mask) -> bytes:
    """The kept records' bytes, in runs."""
    if kept.all():
        return data
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    return b"".join(data[shape.starts[a] : shape.ends[b - 1] + 1] for a, b in edges.reshape(-1, 2))


def _one_by_one(uri: str, data: bytes, line: int, dialect: Dialect) -> Records:
    """By the csv module, which knows that a quote inside a plain field is just a quote."""
    import polars as pl

    width = len(dialect.columns)
    limit = csv.field_size_limit(sys.maxsize)
    rows: list[list[str]] = []
    lines: list[int] = []
    ragged: list[Ragged] = []
    reader = _reader(data.decode(), dialect.delimiter, dialect.quote)
    start = 0
    try:
        for row in reader:
            first, start = line + start, reader.line_num
            if len(row) == width:
                rows.append(row)
                lines.append(first)
            elif row:
                ragged.append(Ragged(first, _says(len(row), dialect), line + start - first))
    finally:
        csv.field_size_limit(limit)
    _check_closed(uri, data, max([0, *lines, *(r.line for r in ragged)]), line, dialect)
    columns = zip(*rows, strict=True) if rows else [()] * width
    frame = pl.DataFrame(
        [pl.Series(name, values, pl.String) for name, values in zip(dialect.columns, columns, strict=True)]
    )
    return Records(frame, np.array(lines, dtype=np.int64), ragged)


def _check_closed(uri: str, data: bytes, last: int, line: int, dialect: Dialect) -> None:
    """The last record ends because its quotes do, not because the file does."""
    if not last:
        return
    tail = b"\n".join(data.split(b"\n")[last - line :]).decode()
    try:
        for _ in _reader(tail, dialect.delimiter, dialect.quote, strict=True):
            pass
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"{uri}:{last}: a quote is opened here and never closed; close it, "
                "or set csv.quote to '' where quotes are plain text",
            ) from error


def _says(fields: int, dialect: Dialect) -> str:
    names = ", ".join(dialect.columns[:20]) + (", …" if len(dialect.columns) > 20 else "")
    return (
        f"the row has {fields} fields, the header has {len(dialect.columns)} ({names}); "
        f"quote fields that contain {dialect.delimiter!r}"
    )
