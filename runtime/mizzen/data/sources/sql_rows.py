"""MySQL, MariaDB and SQLite: drivers that give rows as Python values, which become typed columns batch by batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, unquote

from mizzen.data.sources import types
from mizzen.data.sources.sql import BATCH_ROWS, SAMPLED_ROWS, TIMEOUT_S, Statement

if TYPE_CHECKING:
    import polars as pl

_CLASSES = {"bool": "boolean", "int": "integer", "float": "float", "str": "string", "bytes": "binary",
            "date": "date", "datetime": "datetime", "Decimal": "float", "timedelta": "string"}  # fmt: skip


class RowDatabase:
    """What databases share whose drivers give rows."""

    def infer(self, statement: Statement) -> dict[str, str | None]:
        with self._run(statement) as cursor:
            names = [column[0] for column in cursor.description or ()]
            rows = cursor.fetchmany(SAMPLED_ROWS)
            kinds = self._declared(cursor.description or ())
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return {name: kind or _inferred(values) for name, kind, values in zip(names, kinds, columns, strict=True)}

    def frames(self, statement: Statement, schema: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        import polars as pl

        with self._run(statement) as cursor:
            names = [column[0] for column in cursor.description or ()]
            while rows := cursor.fetchmany(BATCH_ROWS):
                columns = zip(names, zip(*rows, strict=True), strict=True)
                yield pl.DataFrame([_series(name, values, schema.get(name, "string")) for name, values in columns])

    def _run(self, statement: Statement) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def _declared(self, description: Sequence[Any]) -> Sequence[str | None]:
        """Types that the database tells, without a look at values."""
        return [None] * len(description)


class Sqlite(RowDatabase):
    placeholder = ":{name}"

    def __init__(self, path: str) -> None:
        self._path = path

    @contextmanager
    def _run(self, statement: Statement) -> Iterator[Any]:
        with ExitStack() as stack:
            uri = f"{Path(self._path).absolute().as_uri()}?mode=ro"
            connection = stack.enter_context(closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S)))
            yield connection.execute(statement.text, dict(statement.values))

    def failure(self, error: Exception) -> tuple[bool, str] | None:
        if not isinstance(error, sqlite3.Error | sqlite3.Warning):
            return None
        return "locked" in str(error) or "disk I/O" in str(error), f"{error} ({self._path})"


class MySql(RowDatabase):
    placeholder = "%({name})s"

    def __init__(self, parts: SplitResult) -> None:
        self._options: dict[str, Any] = {
            "host": parts.hostname or "127.0.0.1",
            "port": parts.port or 3306,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "database": parts.path.lstrip("/") or None,
        }
        for name in ("ssl_ca", "ssl_cert", "ssl_key"):
            if value := parse_qs(parts.query).get(name):
                self._options[name] = value[0]

    @contextmanager
    def _run(self, statement: Statement) -> Iterator[Any]:
        import pymysql
        from pymysql.cursors import SSCursor

        with ExitStack() as stack:
            connection = pymysql.connect(**self._options, charset="utf8mb4", connect_timeout=TIMEOUT_S)
            cursor = connection.cursor(SSCursor)
            stack.callback(_forget, connection, cursor)
            cursor.execute("set session transaction isolation level repeatable read, read only")
            cursor.execute(statement.text, dict(statement.values) or None)
            yield cursor

    def failure(self, error: Exception) -> tuple[bool, str] | None:
        import pymysql

        if not isinstance(error, pymysql.MySQLError):
            return None
        code = error.args[0] if error.args else 0
        # 1040 too many connections, 1053 shutdown, 1205 and 1213 locks, 2xxx the connection
        again = code in {1040, 1053, 1205, 1213} or (isinstance(code, int) and 2000 <= code < 3000)
        return again, str(error.args[1] if len(error.args) > 1 else error)

    def _declared(self, description: Sequence[Any]) -> Sequence[str | None]:
        from pymysql.constants import FIELD_TYPE as T

        kinds = {
            **dict.fromkeys((T.TINY, T.SHORT, T.LONG, T.LONGLONG, T.INT24, T.YEAR), "integer"),
            **dict.fromkeys((T.FLOAT, T.DOUBLE, T.DECIMAL, T.NEWDECIMAL), "float"),
            **dict.fromkeys((T.TIME, T.ENUM, T.SET, T.JSON), "string"),
            **dict.fromkeys((T.DATE, T.NEWDATE), "date"),
            **dict.fromkeys((T.DATETIME, T.TIMESTAMP), "datetime"),
        }
        return [kinds.get(column[1]) for column in description]


def _forget(connection: Any, cursor: Any) -> None:
    """Hang up without a polite end, which would first read what is left of the result, however much it is."""
    if cursor._result is not None:
        cursor._result.unbuffered_active = False
    connection._force_close()


def _inferred(values: Sequence[Any]) -> str | None:
    """The type that all values have; text where they differ, and where text is no date."""
    import polars as pl

    kinds = {_CLASSES.get(kind.__name__, "string") for kind in set(map(type, values)) - {type(None)}}
    if kinds == {"integer", "float"}:
        return "float"
    if kinds != {"string"}:
        return next(iter(kinds)) if len(kinds) == 1 else "string" if kinds else None
    found = types.infer(pl.Series([None if value is None else str(value) for value in values], dtype=pl.String))
    return found if found in {"date", "datetime"} else "string"


def _series(name: str, values: Sequence[Any], kind: str) -> pl.Series:
    """A column of the type, or of text when some value is of another: the contract then names the row."""
    import polars as pl

    if kind == "float":
        values = [float(value) if type(value).__name__ == "Decimal" else value for value in values]
    try:
        if not any(isinstance(value, str) for value in values) or kind == "string":
            return pl.Series(name, values, types.dtype(kind), strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        pass
    return pl.Series(name, [_text(value) for value in values], pl.String)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
