"""CSV: polars reads blocks of whole records at full speed, and where one is odd, the odd rows are found and named."""

from __future__ import annotations

import io
import itertools
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mizzen.data.ahead import ahead, spread
from mizzen.data.sources import shape, streams, types
from mizzen.data.sources.files import File
from mizzen.data.sources.parts import Contract, FilePart, OnDigest
from mizzen.data.sources.rows import CHUNK_ROWS, BadRows
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_sources import Csv

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

HEAD_BYTES = 256 * 1024  # of the first block: types are guessed from it


class CsvFile(FilePart):
    """One CSV file. Types of columns come from its first block's rows, unless somebody knows them."""

    def __init__(self, file: File, options: Csv, text_columns: Collection[str] = ()) -> None:
        super().__init__(file)
        self.undecodable = 0
        self._options = options
        self._text_columns = text_columns
        self._dialect: shape.Dialect | None = None
        self._slow: set[str] = set()  # columns whose values polars' own parser does not take as they are

    @property
    def dialect(self) -> shape.Dialect:
        assert self._dialect is not None, "_blocks sets it"
        return self._dialect

    def infer(self, known: Mapping[str, str]) -> dict[str, str | None]:
        """Columns with their types: the known one, or the narrowest that all sampled values have. None: no rows."""
        for block in self._blocks(lambda _: None):
            found = self._guessed(block)
            if found is None:
                texts = shape.records(self.uri, block.data, block.line, self.dialect).frame
                found = self._types(texts.head(CHUNK_ROWS))
            return {name: known.get(name) or kind for name, kind in found.items()}
        return {name: known.get(name) for name in self.dialect.columns}

    def _types(self, frame: pl.DataFrame) -> dict[str, str]:
        return {column.name: types.infer(column, self._options.null_values) for column in frame}

    def _guessed(self, block: streams.Block) -> dict[str, str] | None:
        """The types that the first rows have, where all others are of them, too; None where only texts can tell."""
        ends = shape.records_end(block.data[:HEAD_BYTES], False, self._options.quote.encode())
        if not ends or self._options.null_values:
            return None
        texts = shape.records(self.uri, block.data[:ends], block.line, self.dialect).frame
        found = self._types(texts)
        if not all(types.present(column).len() for column in texts):
            return None
        self._slow = _read_as_text(found)
        frame = self._fast(block.data, found)
        if frame is None or shape.has_codes(block.data, self.dialect) or any(map(_is_long, frame)):
            return None
        return found

    def frames(self, contract: Contract, bad_rows: BadRows, on_digest: OnDigest) -> Iterator[pl.DataFrame]:
        schema = contract.schema
        self.undecodable = 0
        self._slow = _read_as_text(schema)

        def read(block: streams.Block) -> tuple[streams.Block, pl.DataFrame | None]:
            contract.check_names(self.uri, self.dialect.columns)
            return block, self._fast(block.data, schema)

        for block, frame in spread(ahead(self._blocks(on_digest, streams.BLOCK_BYTES // 4)), read):
            yield self._careful(block, schema, bad_rows) if frame is None else frame
        if self.undecodable:
            log.warning("%s: %d lines are not UTF-8 and were read as Latin-1", self.uri, self.undecodable)

    def _blocks(self, on_digest: OnDigest, size: int | None = None) -> Iterator[streams.Block]:
        """Blocks of rows, without the header."""
        quote = self._options.quote.encode()

        def cut(data: bytes, at_end: bool) -> int:
            return shape.records_end(data, at_end, quote)

        blocks = streams.blocks(self.file, cut, on_digest, self._options.encoding, size)
        first = next(blocks, None)
        if first is None or not first.data.strip():
            raise UserError(Reason.SOURCE_EMPTY, f"{self.uri} is empty: it needs a header line and at least one row")
        for number, block in enumerate(itertools.chain([first], blocks)):
            data, line = block
            if b"\r" in data and b"\n" not in data:
                data = data.replace(b"\r", b"\n")  # line ends of old Macs
            data, undecodable = streams.as_utf8(data)
            self.undecodable += undecodable
            if number == 0:
                self._dialect = shape.sniff(self.uri, data, self._options)
                line += data.count(b"\n", 0, self._dialect.skipped)
                data = data[self._dialect.skipped :]
            if data:
                yield streams.Block(data, line)

    def _fast(self, data: bytes, schema: Mapping[str, str]) -> pl.DataFrame | None:
        """What polars makes of a block; None when some row may be odd."""
        import polars as pl

        dialect = self.dialect
        all_texts = bool(self._options.null_values)
        direct = {
            name: pl.String() if all_texts or name in self._slow else types.dtype(schema[name])
            for name in dialect.columns
        }
        try:
            frame = pl.read_csv(
                io.BytesIO(data),
                has_header=False,
                schema=direct,
                separator=dialect.delimiter,
                quote_char=dialect.quote or None,
            )
        except pl.exceptions.PolarsError:
            return None
        if self._may_be_short(data, frame):
            return None
        quote = dialect.quote.encode()
        quoted_nothing = bool(quote) and quote in data and quote * 2 in data
        changed = []
        for name, kind in schema.items():
            column = frame[name]
            if column.dtype == pl.String() and (kind != "string" or quoted_nothing or all_texts):
                converted = self._convert(column, kind)
                if converted.wrong.any():
                    return None
                changed.append(converted.values)
        return _finite(frame.select(*schema).with_columns(changed))

    def _may_be_short(self, data: bytes, frame: pl.DataFrame) -> bool:
        """Polars fills short rows and blank lines up with nulls. It refuses longer rows, so that the sum tells."""
        if not frame.height or not frame.to_series(frame.width - 1).null_count():
            return False
        if frame.width == 1:
            return True
        dialect = self.dialect
        if not dialect.quote or dialect.quote.encode() not in data:
            return streams.count(data, dialect.delimiter.encode()) != frame.height * (frame.width - 1)
        found = shape.Shape.of(data, dialect)
        return len(found.starts) != frame.height or bool((found.delimiters != frame.width - 1).any())

    def _convert(self, texts: pl.Series, kind: str) -> types.Converted:
        return types.convert(texts, kind, () if texts.name in self._text_columns else self._options.null_values)

    def _careful(self, block: streams.Block, schema: Mapping[str, str], bad_rows: BadRows) -> pl.DataFrame:
        """The same block by way of text: what is not of its column's type is set aside, with line and column."""
        import polars as pl

        found = shape.records(self.uri, block.data, block.line, self.dialect)
        odd = [(ragged.line, "", ragged.reason, ragged.lines) for ragged in found.ragged]
        wrong = np.zeros(found.frame.height, dtype=bool)
        columns = []
        for name, kind in schema.items():
            texts = found.frame[name]
            converted = self._convert(texts, kind)
            if not converted.plain:
                self._slow.add(name)
            for row in np.flatnonzero(converted.wrong.to_numpy() & ~wrong):
                odd.append((int(found.lines[row]), name, types.complaint(texts[int(row)], kind), 1))
                wrong[row] = True
            columns.append(converted.values)
        for line, column, reason, rows in sorted(odd):
            bad_rows.add(self.uri, line, column, reason, rows)
        return pl.DataFrame(columns).filter(pl.Series(~wrong)) if wrong.any() else pl.DataFrame(columns)


def _finite(frame: pl.DataFrame) -> pl.DataFrame | None:
    """The frame with NaN as missing; None where a number is infinite. A sum tells whether there is either."""
    import polars as pl

    floats = [name for name, kind in frame.schema.items() if kind == pl.Float64()]
    odd = [column.name for column in frame.select(pl.col(floats).sum()) if not math.isfinite(column[0])]
    if any(frame[name].is_infinite().any() for name in odd):
        return None
    return frame.with_columns(pl.col(odd).fill_nan(None)) if odd else frame


def _read_as_text(schema: Mapping[str, str]) -> set[str]:
    """Columns whose values polars' own parser does not take as they are."""
    return {name for name, kind in schema.items() if kind in {"date", "datetime", "binary"}}


def _is_long(column: pl.Series) -> bool:
    """Whether a number may have more digits than those that types.infer takes for numbers."""
    low, high = (column.min(), column.max()) if column.dtype.is_numeric() else (None, None)
    return isinstance(low, int | float) and isinstance(high, int | float) and max(-low, high) >= 10**18
