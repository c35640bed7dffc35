"""One file or query of a source, and the rows of several, one below the other, under one contract."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mizzen.data.sources import streams, types
from mizzen.data.sources.files import File
from mizzen.data.sources.rows import BadRow, BadRows, Origin, rechunk
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

OnDigest = Callable[[bytes], None]
RowNumber = Callable[[int], int]  # from a row's place in a frame to its line in the file, or its number in the source


@dataclass(frozen=True)
class Contract:
    """Names and types of the columns that every part must give, and the part that set them."""

    schema: Mapping[str, str]
    origin: str
    declared: frozenset[str] = frozenset()

    def dtypes(self) -> dict[str, pl.DataType]:
        return {name: types.dtype(kind) for name, kind in self.schema.items()}

    def check_names(self, uri: str, columns: Collection[str]) -> None:
        """UserError unless the columns are the same; their order is free."""
        lacking = [name for name in self.schema if name not in columns]
        extra = [name for name in columns if name not in self.schema]
        if not lacking and not extra:
            return
        differs = [f"it lacks {', '.join(map(repr, lacking))}"] if lacking else []
        differs += [f"it has {', '.join(map(repr, extra))} besides"] if extra else []
        raise UserError(
            Reason.COLUMN_MISSING if lacking else Reason.SOURCE_MALFORMED,
            f"{uri} differs from {self.origin}: {' and '.join(differs)}; "
            "sources one below the other need the same columns, others a join",
        )

    def conform(
        self, uri: str, frame: pl.DataFrame, number: RowNumber, bad_rows: BadRows, *, from_text: bool = False
    ) -> pl.DataFrame:
        """A typed frame with the contract's columns. Infinite numbers make bad rows, and NaN counts as missing.

        So does text that is not of its column's type where schema declares that, or dates are text (`from_text`).
        """
        self.check_names(uri, frame.columns)
        complaints: dict[int, tuple[str, str]] = {}  # the first one of each bad row
        columns = []
        for name, want in self.schema.items():
            column = frame[name]
            have = types.name_of(column.dtype)
            if have == "string" and want in types.ARTICLES and (from_text or name in self.declared):
                converted = types.convert(column, want)
                for row in converted.wrong.arg_true():
                    complaints.setdefault(row, (name, types.complaint(column[row], want)))
                column = converted.values
            else:
                column = self._typed(uri, column, have, want)
                if want == "float":
                    for row in column.is_infinite().arg_true():
                        complaints.setdefault(row, (name, types.INFINITE))
                    column = column.fill_nan(None)
            columns.append(column)
        return _without(uri, columns, complaints, number, bad_rows)

    def _typed(self, uri: str, column: pl.Series, have: str, want: str) -> pl.Series:
        import polars as pl

        nothing = column.null_count() == len(column)
        if have == want:
            return column
        if not (nothing or (have, want) == ("integer", "float") or column.name in self.declared):
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"{uri} differs from {self.origin}: column {column.name!r} is {have}, there it is {want}; "
                f"make them equal, or declare the type of {column.name!r} in columnTypes",
            )
        try:
            return column.cast(types.dtype(want))
        except pl.exceptions.PolarsError as error:
            raise UserError(
                Reason.SOURCE_MALFORMED,
                f"{uri}: column {column.name!r} cannot be read as {want}, as columnTypes says: "
                f"{str(error).splitlines()[0]}",
            ) from error


def _without(
    uri: str,
    columns: list[pl.Series],
    complaints: Mapping[int, tuple[str, str]],
    number: RowNumber,
    bad_rows: BadRows,
) -> pl.DataFrame:
    """The frame without its bad rows, which go to the budget in their order."""
    import polars as pl

    frame = pl.DataFrame(columns)
    if not complaints:
        return frame
    bad = sorted(complaints)
    for row in bad:
        bad_rows.add(uri, number(row), *complaints[row])
    return frame.with_row_index("\0row").filter(~pl.col("\0row").is_in(bad)).drop("\0row")


class Part(Protocol):
    """One file, folder or query."""

    uri: str

    def size(self) -> int | None: ...

    def identity(self) -> str: ...

    def digest(self, known: Mapping[str, str]) -> bytes:
        """sha256 of the bytes, without parsing them; of the rows where these are not in a file."""

    def infer(self, known: Mapping[str, str]) -> dict[str, str | None]:
        """Names and types of the columns; a known type stands, and None is the type where there are no rows to tell."""

    def frames(self, contract: Contract, bad_rows: BadRows, on_digest: OnDigest) -> Iterator[pl.DataFrame]:
        """Frames as the contract wants them, of any size. The digest is told at their end."""


class FilePart:
    """What all parts that are one file share."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.uri = file.uri

    def size(self) -> int | None:
        return self.file.size

    def identity(self) -> str:
        return self.file.identity

    def digest(self, known: Mapping[str, str]) -> bytes:  # noqa: ARG002 (bytes are what they are)
        return streams.digest(self.file)


def total(sizes: Iterable[int | None]) -> int | None:
    """Their sum; None where one is not known."""
    found = list(sizes)
    return None if None in found else sum(size for size in found if size is not None)


class Concatenation:
    """A RowSource of parts, one below the other. The first part with rows sets the contract."""

    def __init__(
        self, parts: Sequence[Part], text_columns: Collection[str], schema: Mapping[str, str], bad_rows: BadRows
    ) -> None:
        assert parts, "a source has at least one part"
        self._parts = parts
        self._declared = frozenset(schema)
        self._known = {**dict.fromkeys(text_columns, "string"), **schema}
        self._bad_rows = bad_rows
        self._digests: list[bytes] = []
        self._rows: list[int] = []  # of each part, as of the last whole pass
        self._contract: Contract | None = None

    @property
    def uris(self) -> tuple[str, ...]:
        return tuple(part.uri for part in self._parts)

    @property
    def bad_rows(self) -> list[BadRow]:
        return self._bad_rows.first

    @property
    def bad_row_count(self) -> int:
        return self._bad_rows.count

    @property
    def undecodable(self) -> int:
        return sum(getattr(part, "undecodable", 0) for part in self._parts)

    def size(self) -> int | None:
        return total(part.size() for part in self._parts)

    def origins(self) -> tuple[Origin, ...]:
        told = zip(self._parts, self._rows, self._digests, strict=False)  # before a whole pass there is nothing to tell
        return tuple(Origin(part.uri, rows, f"sha256:{digest.hex()}") for part, rows, digest in told)

    def identity(self) -> str:
        each = [part.identity() for part in self._parts]
        return "\n".join(each) if all(each) else ""

    def digest(self) -> str:
        if len(self._digests) != len(self._parts):
            self._digests = [part.digest(self._known) for part in self._parts]
        return hashlib.sha256(b"".join(self._digests)).hexdigest()

    def schema(self) -> dict[str, pl.DataType]:
        self.check_declared(self.contract().schema)
        return self.contract().dtypes()

    def check_declared(self, columns: Collection[str]) -> None:
        """UserError when schema names a column that there is not."""
        vanished = sorted(self._declared - set(columns))
        if vanished:
            raise UserError(
                Reason.COLUMN_MISSING,
                f"{self.uris[0]} has no column {vanished[0]!r}, which columnTypes names; "
                f"there are {', '.join(columns)}",
            )

    def contract(self) -> Contract:
        if self._contract is None:
            self._contract = self._infer()
        return self._contract

    def _infer(self) -> Contract:
        for part in self._parts:
            found = part.infer(self._known)
            if None not in found.values():
                schema = {name: str(kind) for name, kind in found.items()}
                return Contract(schema, part.uri, self._declared)
        others = f" and {len(self._parts) - 1} more" if len(self._parts) > 1 else ""
        raise UserError(Reason.SOURCE_EMPTY, f"{self._parts[0].uri}{others}: there are columns, but no rows")

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows in frames of any size."""
        contract = self.contract()
        digests: list[bytes] = []
        rows = []
        for part in self._parts:
            rows.append(0)
            for frame in part.frames(contract, self._bad_rows, digests.append):
                rows[-1] += frame.height
                yield frame
        if not sum(rows):
            bad = f"; every row is bad, the first one: {self.bad_rows[0]}" if self.bad_rows else ""
            raise UserError(Reason.SOURCE_EMPTY, f"{self._parts[0].uri}: there are columns, but no rows{bad}")
        self._digests, self._rows = digests, rows

    def chunks(self) -> Iterator[pl.DataFrame]:
        self._bad_rows.clear()
        self.check_declared(self.contract().schema)
        yield from rechunk(self.frames())
