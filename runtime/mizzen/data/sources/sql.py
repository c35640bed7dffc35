"""The rows of a query, streamed from PostgreSQL, MySQL or MariaDB, or SQLite, with parameters bound by the driver."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from mizzen.data.sources.parts import Contract, OnDigest
from mizzen.data.sources.rows import BadRows
from mizzen.errors import MizzenError, SystemError_, UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_sources import Sql

if TYPE_CHECKING:
    import polars as pl

SAMPLED_ROWS = 10_000
BATCH_ROWS = 65_536
TIMEOUT_S = 10
# What a colon may be part of, besides the name of a parameter: quoted text, comments, PostgreSQL's casts.
_TOKENS = re.compile(
    r"""'(?:[^'\\]|\\.|'')*'|"[^"]*"|`[^`]*`|--[^\n]*|/\*.*?\*/|\$\$.*?\$\$|::|(?<![\w:]):(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL,
)


class Statement(NamedTuple):
    """A query in a driver's own style, with the names of its parameters in the order in which they first occur."""

    text: str
    names: tuple[str, ...]
    values: Mapping[str, object]


class Database(Protocol):
    """One of the databases, and how its driver wants a query."""

    placeholder: str  # made of {name} and {number}

    def infer(self, statement: Statement) -> dict[str, str | None]:
        """Types of the result's columns; None where neither the database nor the first rows tell."""

    def frames(self, statement: Statement, schema: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        """Batches of rows. A column that is not of the schema's type throughout a batch comes as text."""

    def failure(self, error: Exception) -> tuple[bool, str] | None:
        """Whether another try may do, and what the driver says; None when it is not the driver's error."""


def statement(source: str, sql: Sql, placeholder: str) -> Statement:
    """Put the driver's placeholder where each :name is. UserError when a value is missing, unused or no scalar."""
    names: list[str] = []

    def place(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0]
        if name not in names:
            names.append(name)
        return placeholder.format(name=name, number=names.index(name) + 1)

    values = sql.parameters
    text = sql.query.strip().rstrip(";")
    if placeholder.startswith("%") and values:
        text = text.replace("%", "%%")  # else the driver takes them for its own
    text = _TOKENS.sub(place, text)
    for wrong, says in (
        ([name for name in names if name not in values], "has no value in sql.parameters"),
        ([name for name in values if name not in names], "is in sql.parameters, but not in the query"),
        (
            [name for name, value in values.items() if not isinstance(value, str | int | float | None)],
            "must be a string, a number, a boolean or null",
        ),
    ):
        if wrong:
            raise UserError(Reason.INVALID_PARAMETERS, f"{source}: the query's parameter :{wrong[0]} {says}")
    return Statement(text, tuple(names), dict(values))


class Query:
    """One query. Its name in messages is that of the Secret: nothing of the URL is ever shown."""

    def __init__(self, sql: Sql, url: str) -> None:
        self.uri = f"sql:{sql.secret_ref.name}"
        parts = _checked(self.uri, url)
        self._secrets = [secret for secret in (parts.password, unquote(parts.password or "")) if secret]
        self._database = _database(self.uri, parts)
        self._statement = statement(self.uri, sql, self._database.placeholder)

    def size(self) -> int | None:
        return None

    def identity(self) -> str:
        return ""

    def digest(self, known: Mapping[str, str]) -> bytes:
        schema = {name: kind or "string" for name, kind in self.infer(known).items()}
        found: list[bytes] = []
        for _ in self.frames(Contract(schema, self.uri, frozenset(known)), BadRows(2**62), found.append):
            pass
        return found[0]

    def infer(self, known: Mapping[str, str]) -> dict[str, str | None]:
        try:
            kinds = self._database.infer(self._statement)
        except Exception as error:
            raise self._translated(error) from None
        if not kinds:
            raise UserError(Reason.INVALID_PARAMETERS, f"{self.uri}: the query gives no rows; it must be a SELECT")
        return {name: known.get(name) or kind or "string" for name, kind in kinds.items()}

    def frames(self, contract: Contract, bad_rows: BadRows, on_digest: OnDigest) -> Iterator[pl.DataFrame]:
        digest = hashlib.sha256()
        first = 1
        try:
            for frame in self._database.frames(self._statement, contract.schema):
                rows = contract.conform(self.uri, frame, first.__add__, bad_rows, from_text=True)
                digest.update(_as_bytes(rows))
                first += frame.height
                yield rows
        except Exception as error:
            raise self._translated(error) from None
        on_digest(digest.digest())

    def _translated(self, error: Exception) -> Exception:
        """The driver's error as ours, without the password, should the driver quote it."""
        if isinstance(error, MizzenError):
            return error
        failure = self._database.failure(error)
        if failure is None:
            return error
        again, says = failure
        for secret in self._secrets:
            says = says.replace(secret, "…")
        message = f"cannot read {self.uri}: {' '.join(says.split())[:500]}"
        return (
            SystemError_(message, Reason.SOURCE_UNREADABLE) if again else UserError(Reason.SOURCE_UNREADABLE, message)
        )


def _checked(source: str, url: str) -> SplitResult:
    """UserError that quotes nothing: a password with a bare @ or / would show up as another part."""
    try:
        parts = urlsplit(url.strip())
        whole = bool(parts.scheme) and "@" not in parts.path and (parts.port is None or parts.port > 0)
    except ValueError:
        whole = False
    if not whole:
        raise UserError(
            Reason.SOURCE_UNREADABLE,
            f"cannot read {source}: the Secret's value is not a URL as postgresql://USER:PASSWORD@HOST:PORT/DATABASE; "
            "write special characters of the password as %XX",
        )
    return parts


def _database(source: str, parts: SplitResult) -> Database:
    from mizzen.data.sources import sql_postgres, sql_rows

    kind = parts.scheme.partition("+")[0]
    if kind in {"postgres", "postgresql"}:
        return sql_postgres.PostgreSql(parts._replace(scheme="postgresql"))
    if kind in {"mysql", "mariadb"}:
        return sql_rows.MySql(parts)
    if kind == "sqlite":
        return sql_rows.Sqlite(unquote(parts.path.removeprefix("/")))
    raise UserError(
        Reason.SOURCE_UNREADABLE, f"cannot read {source}: {kind!r} is none of postgresql, mysql, mariadb and sqlite"
    )


def _as_bytes(frame: pl.DataFrame) -> bytes:
    """Rows as text that no version of a library writes otherwise, and however the rows were batched."""
    import polars as pl
    import polars.selectors as cs

    text = frame.with_columns(
        cs.binary().bin.encode("hex"),
        cs.list().list.eval(pl.element().cast(pl.String)).list.join(",", ignore_nulls=False),
    ).write_csv(include_header=False, quote_style="non_numeric")
    return text.encode()
