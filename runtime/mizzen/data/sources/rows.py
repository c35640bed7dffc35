"""What every source gives: typed chunks of rows, a digest of what was read, and the rows that were set aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

CHUNK_ROWS = 262_144
# Rows that carry images are large: a chunk ends here, too.
CHUNK_BYTES = 256 * 1024 * 1024
KEPT_BAD_ROWS = 100


@dataclass(frozen=True)
class BadRow:
    """A row that was set aside. `row` is the line in a text file, else the row's number; both count from 1."""

    uri: str
    row: int
    column: str
    reason: str

    def __str__(self) -> str:
        column = f"column {self.column!r}: " if self.column else ""
        return f"{self.uri}:{self.row}: {column}{self.reason}"


@dataclass(frozen=True)
class Origin:
    """One file, folder or query as it was read: rows without the bad ones, and the sha256 of its bytes (or rows)."""

    uri: str
    rows: int
    digest: str


@dataclass
class BadRows:
    """The budget: as many bad rows as `limit` are set aside, and one more ends the read."""

    limit: int = 0
    count: int = 0
    first: list[BadRow] = field(default_factory=list)

    def add(self, uri: str, row: int, column: str, reason: str, rows: int = 1) -> None:
        """Set a row aside, or `rows` that a quote made one. UserError SourceMalformed when the budget is spent."""
        bad = BadRow(uri, row, column, reason)
        self.count += rows
        if len(self.first) < KEPT_BAD_ROWS:
            self.first.append(bad)
        if self.count > self.limit:
            spent = f"; that is bad row {self.count}, and maxBadRows is {self.limit}" if self.limit else ""
            mend = "" if self.limit else "; mend the row, or set maxBadRows to leave some out"
            raise UserError(Reason.SOURCE_MALFORMED, f"{bad}{spent}{mend}")

    def clear(self) -> None:
        self.count = 0
        self.first.clear()


class RowSource(Protocol):
    """Rows of one or more sources, in an order and in chunks that depend on their content alone."""

    @property
    def uris(self) -> tuple[str, ...]:
        """Files and queries, in the order in which they are read. Never with credentials."""

    def size(self) -> int | None:
        """Bytes of all files as they are stored; None where there is a query, or a server that does not say."""

    def origins(self) -> tuple[Origin, ...]:
        """What was read, file by file, as of the last whole pass over chunks(); before one, nothing."""

    def identity(self) -> str:
        """Sizes and times of change or ETags: equal strings mean unchanged sources. "" when that cannot be known."""

    def digest(self) -> str:
        """sha256 over the sources' bytes, or a query's rows, as of the last whole pass over chunks().

        Without one, the bytes are read for it.
        """

    def schema(self) -> dict[str, pl.DataType]:
        """Names and types of the columns, in order."""

    def chunks(self) -> Iterator[pl.DataFrame]:
        """Typed frames of at most CHUNK_ROWS rows. Each call reads from the start and empties `bad_rows`.

        UserError: SourceUnreadable, SourceEmpty, SourceMalformed (with file, line and column), ColumnMissing.
        SystemError_: the network or a database failed; another try may do.
        """

    @property
    def bad_rows(self) -> list[BadRow]:
        """The first hundred rows that were set aside."""

    @property
    def bad_row_count(self) -> int: ...

    @property
    def undecodable(self) -> int:
        """Lines that were not UTF-8 and were read as Latin-1."""


def rechunk(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Cut at every CHUNK_ROWS rows, and before CHUNK_BYTES where rows are large, wherever the reader's blocks ended."""
    import polars as pl

    waiting: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        for piece in _of_bounded_size(frame):
            waiting.append(piece)
            rows += piece.height
            while rows >= CHUNK_ROWS:
                whole = pl.concat(waiting) if len(waiting) > 1 else waiting[0]
                yield whole[:CHUNK_ROWS]
                rest = whole[CHUNK_ROWS:]
                waiting, rows = ([rest] if rest.height else []), rest.height
            if _has_blobs(piece) and sum(part.estimated_size() for part in waiting) >= CHUNK_BYTES:
                yield pl.concat(waiting)
                waiting, rows = [], 0
    if rows:
        yield pl.concat(waiting)


def _has_blobs(frame: pl.DataFrame) -> bool:
    import polars as pl

    return pl.Binary in frame.dtypes


def _of_bounded_size(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Where a column holds files, pieces whose number of rows follows from their sizes."""
    import polars as pl

    if not _has_blobs(frame) or frame.estimated_size() < CHUNK_BYTES:
        yield frame
        return
    sizes = frame.select(pl.sum_horizontal(pl.col(pl.Binary).bin.size().fill_null(0)).cum_sum() // CHUNK_BYTES)
    for _, piece in frame.with_columns(sizes.to_series().alias("__piece")).group_by("__piece", maintain_order=True):
        yield piece.drop("__piece")
