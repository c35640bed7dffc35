"""CSV: polars reads blocks of whole records at full speed, and where one is odd, the odd rows are found and named."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

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
            found = shape.records(self.uri, block.data, block.line, self.dialect).frame.head(CHUNK_ROWS)
            nulls = self._options.null_values
            return {name: known.get(name) or types.infer(found[name], nulls) for name in found.columns}
        return {name: known.get(name) for name in self.dialect.columns}

    def frames(self, contract: Contract, bad_rows: BadRows, on_digest: OnDigest) -> Iterator[pl.DataFrame]:
        schema = contract.schema
        self.undecodable = 0
        self._slow = {name for name, kind in schema.items() if kind in {"date", "datetime", "binary"}}
        for block in streams.ahead(self._blocks(on_digest)):
            contract.check_names(self.uri, self.dialect.columns)
            frame = self._fast(block.data, schema)
            yield self._careful(block, schema, bad_rows) if frame is None else frame
        if self.undecodable:
            log.warning("%s: %d lines are not UTF-8 and were read as Latin-1", self.uri, self.undecodable)

    def _blocks(self, on_digest: OnDigest) -> Iterator[streams.Block]:
        """Blocks of rows, without the header."""
        quote = self._options.quote.encode()

        def cut(data: bytes, at_end: bool) -> int:
            return shape.records_end(data, at_end, quote)

        blocks = streams.blocks(self.file, cut, on_digest, self._options.encoding)
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
        quoted_nothing = bool(dialect.quote) and dialect.quote.encode() * 2 in data
        columns = []
        for name, kind in schema.items():
            column = frame[name]
            if column.dtype == pl.String() and (kind != "string" or quoted_nothing or all_texts):
                converted = self._convert(column, kind)
                if converted.wrong.any():
                    return None
                column = converted.values
            elif column.dtype == pl.Float64():
                if column.is_infinite().any():
                    return None
                column = column.fill_nan(None)
            columns.append(column)
        return pl.DataFrame(columns)

    def _may_be_short(self, data: bytes, frame: pl.DataFrame) -> bool:
        """Polars fills short rows and blank lines up with nulls. It refuses longer rows, so that the sum tells."""
        if not frame.height or not frame.to_series(frame.width - 1).null_count():
            return False
        if frame.width == 1:
            return True
        dialect = self.dialect
        if not dialect.quote or dialect.quote.encode() not in data:
            return data.count(dialect.delimiter.encode()) != frame.height * (frame.width - 1)
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
