"""PostgreSQL through ADBC: Arrow batches from a cursor of the server, with bound parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlunsplit

from mizzen.data.sources import types
from mizzen.data.sources.sql import BATCH_ROWS, TIMEOUT_S, Statement

if TYPE_CHECKING:
    import polars as pl

# libpq has no codes for failed connections; these are the ones that another try does not cure.
_LASTING = re.compile(r"password|authentication|does not exist|no pg_hba|permission denied|invalid|not well formed")
_AGAIN = ("08", "40", "53", "55", "57", "58", "XX")  # classes of SQLSTATE: connection, resources, operators, system


class PostgreSql:
    placeholder = "${number}"

    def __init__(self, parts: SplitResult) -> None:
        query = parts.query if "connect_timeout" in parts.query else f"{parts.query}&connect_timeout={TIMEOUT_S}"
        self._url = urlunsplit(parts._replace(query=query.lstrip("&")))

    def infer(self, statement: Statement) -> dict[str, str | None]:
        with self._cursor(statement) as cursor:
            empty = types.normalise(types.from_arrow(_fetch(cursor, 0)))
        return {name: types.name_of(empty[name].dtype) for name in empty.columns}

    def frames(self, statement: Statement, schema: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        texts = {name for name, kind in schema.items() if kind == "string"}
        with self._cursor(statement) as cursor:
            while (table := _fetch(cursor, BATCH_ROWS)).num_rows:
                yield types.normalise(types.from_arrow(table), texts)

    def failure(self, error: Exception) -> tuple[bool, str] | None:
        import adbc_driver_manager as adbc

        if not isinstance(error, adbc.Error):
            return None
        state = error.sqlstate
        again = state.startswith(_AGAIN) if state else not _LASTING.search(str(error))
        return again, str(error)

    @contextmanager
    def _cursor(self, statement: Statement) -> Iterator[Any]:
        """A cursor of the server over the query, in a transaction that cannot write and sees one state."""
        from adbc_driver_postgresql import dbapi

        with ExitStack() as stack:
            connection = stack.enter_context(closing(dbapi.connect(self._url)))
            cursor = stack.enter_context(closing(connection.cursor()))
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            cursor.execute("set transaction isolation level repeatable read, read only")
            values = [statement.values[name] for name in statement.names]
            cursor.execute(f"declare mizzen no scroll cursor for {statement.text}", values or None)
            yield cursor
            connection.rollback()


def _fetch(cursor: Any, rows: int) -> Any:
    cursor.execute(f"fetch forward {rows} from mizzen")
    return cursor.fetch_arrow_table()
