"""Queries: real PostgreSQL and MariaDB servers on loopback, and SQLite."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from mizzen.data.command import read_secrets
from mizzen.data.sources import RowSource, open_sources
from mizzen.errors import SystemError_, UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset import DatasetSpec
from mizzen_api.dataset_sources import Source

PASSWORD = "p@ss/w:rd%"  # every character that a URL has a use for
TABLES_OF_MARIADB = ("mysql_system_tables.sql", "mysql_system_tables_data.sql", "mysql_performance_tables.sql")
ENCODED = "p%40ss%2Fw%3Ard%25"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A database server that this file started."""

    kind: str
    port: int

    @property
    def url(self) -> str:
        return f"{self.kind}://mizzen:{ENCODED}@127.0.0.1:{self.port}/shop"


def wait_for(what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, f"{what} ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"{what} does not answer:\n{log.read_text()}"
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    process.wait(timeout=30)


def postgres_binary(name: str) -> str | None:
    """Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


@contextmanager
def home_of(user: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for a server that refuses to run as root; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="mizzen-") as name:
        folder = Path(name)
        if os.geteuid() != 0:
            yield folder, {}
            return
        shutil.chown(folder, user)
        yield folder, {"user": user}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    initdb, server = postgres_binary("initdb"), postgres_binary("postgres")
    if initdb is None or server is None:
        pytest.fail("PostgreSQL is missing: apt-get install postgresql")
    port = free_port()
    with home_of("postgres") as (folder, who):
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data, log = folder / "data", folder / "log"
        create = [
            initdb,
            "-D",
            data,
            "-U",
            "mizzen",
            "-A",
            "scram-sha-256",
            "--pwfile",
            secret,
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run(create, check=True, capture_output=True, cwd=folder, **who)  # type: ignore[call-overload]
        options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB"]
        run = [server, "-D", data, "-p", str(port), "-k", folder, *options]
        with log.open("wb") as out:
            process = subprocess.Popen(run, stdout=out, stderr=out, cwd=folder, **who)  # type: ignore[call-overload]
        try:
            wait_for("PostgreSQL", lambda: b"ready to accept" in log.read_bytes(), process, log)
            execute_postgres(Server("postgresql", port), "create database shop", database="postgres")
            yield Server("postgresql", port)
        finally:
            stop(process, signal.SIGQUIT)


def execute_postgres(server: Server, *statements: str, database: str = "shop") -> None:
    from adbc_driver_postgresql import dbapi

    url = server.url.replace("/shop", f"/{database}")
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
    if not Path(server).exists():
        pytest.fail("MariaDB is missing: apt-get install mariadb-server-core")
    folder = tmp_path_factory.mktemp("mariadb")
    data, port, log = folder / "data", free_port(), folder / "log"
    first = folder / "first.sql"
    statements = ["create database shop;"]
    for host in ("localhost", "127.0.0.1"):
        statements += [
            f"create user mizzen@'{host}' identified by '{PASSWORD}';",
            f"grant all on shop.* to mizzen@'{host}';",
        ]
    first.write_text("flush privileges;\n" + "\n".join(statements) + "\n")
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    common = ["--no-defaults", f"--datadir={data}", *as_root]
    data.mkdir()
    # mariadb-install-db needs a client package; this is what it does.
    tables = [Path("/usr/share/mysql", name).read_bytes() for name in TABLES_OF_MARIADB]
    subprocess.run([server, *common, "--bootstrap", "--skip-grant-tables"], check=True, capture_output=True,
                   input=b"create database mysql;\nuse mysql;\n" + b"\n".join(tables))  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            [server, *common, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 's'}",
             f"--init-file={first}", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"],
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_for("MariaDB", lambda: b"ready for connections" in log.read_bytes(), process, log)
        yield Server("mysql", port)
    finally:
        stop(process, signal.SIGTERM)


def execute_mariadb(server: Server, *statements: str) -> None:
    import pymysql

    with pymysql.connect(
        host="127.0.0.1", port=server.port, user="mizzen", password=PASSWORD, database="shop", autocommit=True
    ) as connection:
        for statement in statements:
            connection.cursor().execute(statement)


def query(url: str, text: str, parameters: dict[str, object] | None = None, **options: object) -> RowSource:
    source = Source.model_validate(
        {"sql": {"query": text, "parameters": parameters or {}, "secretRef": {"name": "warehouse"}}}
    )
    return open_sources([source], secrets={"warehouse": url}, **options)  # type: ignore[arg-type]


def rows(source: RowSource) -> list[tuple[object, ...]]:
    return pl.concat(source.chunks()).rows()


@pytest.mark.cluster
def test_postgres_types_parameters_and_streaming(postgres: Server) -> None:
    execute_postgres(
        postgres,
        "create table items as select i as id, i * 1.5::float8 as price, (i / 4.0)::numeric(10, 2) as tax, "
        "'name ' || i as name, timestamptz '2026-01-01 12:00+02' as at, date '2026-01-01' as day, i % 2 = 0 as even, "
        "null::int as nothing, '{\"a\": 1}'::jsonb as more, "
        "'7f000001-0000-4000-8000-000000000001'::uuid as key, interval '1 day' as span "
        "from generate_series(1, 300000) i",
    )
    source = query(
        postgres.url,
        "select *, 'at :noon' as quoted, '5'::int as five from items where id > :low and name <> :name order by id;",
        {"low": 2, "name": "name 3"},
    )
    chunks = list(source.chunks())
    assert [chunk.height for chunk in chunks] == [262_144, 299_997 - 262_144]
    first = chunks[0].row(0, named=True)
    assert first == {
        "id": 4, "price": 6.0, "tax": 1.0, "name": "name 4", "at": datetime(2026, 1, 1, 10), "day": date(2026, 1, 1),
        "even": True, "nothing": None, "more": '{"a": 1}', "key": "7f000001-0000-4000-8000-000000000001",
        "span": first["span"], "quoted": "at :noon", "five": 5,
    }  # fmt: skip
    assert source.schema()["nothing"] == pl.Int64  # the database knows, without a single value
    assert source.uris == ("sql:warehouse",)
    assert source.identity() == ""


@pytest.mark.cluster
def test_a_query_s_digest_is_that_of_its_rows(postgres: Server) -> None:
    execute_postgres(postgres, "create table digests as select i, 'x' || i as s from generate_series(1, 1000) i")
    text = "select * from digests order by i"
    one, two = query(postgres.url, text), query(postgres.url, text)
    rows(one)
    assert one.digest() == two.digest()  # with and without a pass over the rows
    execute_postgres(postgres, "update digests set s = '' where i = 500")
    changed = query(postgres.url, text).digest()
    execute_postgres(postgres, "update digests set s = null where i = 500")
    assert len({one.digest(), changed, query(postgres.url, text).digest()}) == 3


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("change", "again", "said"),
    [
        ({"password": "wrong"}, False, "password authentication failed"),
        ({"database": "nowhere"}, False, "does not exist"),
        ({"port": "1"}, True, "Connection refused"),
        ({"query": "select nothing from nowhere"}, False, "does not exist"),
        ({"query": "selec 1"}, False, "syntax error"),
        ({"query": "delete from pg_class returning 1"}, False, "syntax error"),
        ({"query": "select 1 / (i - 5) from generate_series(1, 10) i"}, False, "division by zero"),
        ({"query": "select pg_terminate_backend(pg_backend_pid())"}, True, "cannot read sql:warehouse"),
    ],
)
def test_what_postgres_refuses_is_told_without_the_password(
    postgres: Server, change: dict[str, str], again: bool, said: str
) -> None:
    url = postgres.url.replace(ENCODED, change.get("password", ENCODED)).replace(
        "/shop", f"/{change.get('database', 'shop')}"
    )
    url = url.replace(f":{postgres.port}/", f":{change.get('port', postgres.port)}/")
    with pytest.raises(SystemError_ if again else UserError) as error:
        rows(query(url, change.get("query", "select 1 as one")))
    assert said in error.value.message
    assert error.value.reason == Reason.SOURCE_UNREADABLE
    assert change.get("password", PASSWORD) not in error.value.message
    assert error.value.__cause__ is None, "the driver's error may quote the URL"


@pytest.mark.cluster
def test_postgres_cannot_be_written_to(postgres: Server) -> None:
    execute_postgres(
        postgres,
        "create table kept as select 1 as one",
        "create function sneaky() returns int language sql as 'delete from kept returning 1'",
    )
    with pytest.raises(UserError, match="read-only"):
        rows(query(postgres.url, "select sneaky() as gone"))
    assert rows(query(postgres.url, "select one from kept")) == [(1,)]


@pytest.mark.cluster
def test_mariadb_types_parameters_and_streaming(mariadb: Server) -> None:
    execute_mariadb(
        mariadb,
        "create table items (id int primary key, price double, tax decimal(10, 2), name varchar(20), at datetime, "
        "day date, nothing int, picture blob, note text)",
        "insert into items select seq, seq * 1.5, seq / 4, concat('name ', seq), '2026-01-01 10:00:00', '2026-01-01', "
        "null, x'00ff', '100%' from seq_1_to_12000",
    )
    source = query(
        mariadb.url,
        "select *, ':noon' as quoted from items where id > :low and name <> :name and note like '100%' order by id",
        {"low": 2, "name": "x' or '1'='1"},
    )
    (chunk,) = source.chunks()
    assert chunk.height == 11_998
    assert chunk.row(0) == (
        3, 4.5, 0.75, "name 3", datetime(2026, 1, 1, 10), date(2026, 1, 1), None, b"\x00\xff", "100%", ":noon"
    )  # fmt: skip
    assert source.schema()["nothing"] == pl.Int64
    assert (
        source.digest()
        == query(mariadb.url, "select *, ':noon' as quoted from items where id > 2 order by id").digest()
    )


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("change", "again", "said"),
    [
        ({"password": "wrong"}, False, "Access denied"),
        ({"database": "nowhere"}, False, "nowhere"),
        ({"port": "1"}, True, "refused"),
        ({"query": "select nothing from nowhere"}, False, "doesn't exist"),
        ({"query": "selec 1"}, False, "syntax"),
        ({"query": "create table made (i int)"}, False, "READ ONLY"),
    ],
)
def test_what_mariadb_refuses_is_told_without_the_password(
    mariadb: Server, change: dict[str, str], again: bool, said: str
) -> None:
    url = mariadb.url.replace(ENCODED, change.get("password", ENCODED)).replace(
        "/shop", f"/{change.get('database', 'shop')}"
    )
    url = url.replace(f":{mariadb.port}/", f":{change.get('port', mariadb.port)}/")
    with pytest.raises(SystemError_ if again else UserError) as error:
        rows(query(url, change.get("query", "select 1 as one")))
    assert said in error.value.message
    assert change.get("password", PASSWORD) not in error.value.message


def sqlite(path: Path, *statements: str) -> str:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return f"sqlite:///{path}"


def test_sqlite_reads_typed_rows_and_names_those_that_are_not(tmp_path: Path) -> None:
    url = sqlite(
        tmp_path / "shop.db",
        "create table t (id integer, price, day text, name text)",
        "insert into t values (1, 2, '2026-01-01', 'a'), (2, 2.5, null, null), (3, 'dear', '2026-01-03', '7')",
    )
    text = "select * from t where id <> :id order by id"
    assert rows(query(url, text, {"id": 3})) == [(1, 2.0, date(2026, 1, 1), "a"), (2, 2.5, None, None)]
    with pytest.raises(UserError, match=r"sql:warehouse:3: column 'price': 'dear' is not a number"):
        rows(query(url, text, {"id": 9}, schema={"price": "float"}))
    source = query(url, text, {"id": 9}, schema={"price": "float"}, max_bad_rows=1)
    assert len(rows(source)) == 2
    assert (source.bad_row_count, source.bad_rows[0].row, source.bad_rows[0].column) == (1, 3, "price")


@pytest.mark.parametrize(
    ("text", "parameters", "said"),
    [
        ("select :a as a", {}, ":a has no value in sql.parameters"),
        ("select 1 as a", {"b": 1}, ":b is in sql.parameters, but not in the query"),
        ("select :a as a", {"a": [1]}, ":a must be a string, a number, a boolean or null"),
    ],
)
def test_parameters_and_places_belong_together(text: str, parameters: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match="sql:warehouse") as error:
        query("sqlite:///x.db", text, parameters)
    assert error.value.reason == Reason.INVALID_PARAMETERS
    assert said in error.value.message


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:se/cret@host/db", "postgresql://me:secret@host:port/db", "secret", "oracle://me:secret@host/db"],
)
def test_a_url_that_is_none_is_not_quoted(url: str) -> None:
    with pytest.raises(UserError) as error:
        query(url, "select 1 as one")
    assert "secret" not in error.value.message
    assert "se/cret" not in error.value.message
    assert error.value.__cause__ is None


def test_sqlite_is_never_written_to_and_never_made(tmp_path: Path) -> None:
    url = sqlite(tmp_path / "shop.db", "create table t (id integer)", "insert into t values (1)")
    with pytest.raises(UserError, match="readonly"):
        rows(query(url, "delete from t returning id"))
    with pytest.raises(UserError, match="unable to open"):
        rows(query(f"sqlite:///{tmp_path / 'other.db'}", "select 1 as one"))
    assert not (tmp_path / "other.db").exists()
    with pytest.raises(UserError, match="there is no Secret 'warehouse'"):
        open_sources([Source.model_validate({"sql": {"query": "select 1", "secretRef": {"name": "warehouse"}}})])


def test_two_keys_of_one_secret_are_two_databases(tmp_path: Path) -> None:
    """As the pod finds them: a file for each key."""
    folder = tmp_path / "secrets" / "shops"
    folder.mkdir(parents=True)
    sources = []
    for number, city in enumerate(("kiel", "ulm")):
        with closing(sqlite3.connect(tmp_path / f"{city}.db")) as database, database:
            database.execute("CREATE TABLE t (n INTEGER)")
            database.execute("INSERT INTO t VALUES (?)", (number,))
        (folder / city).write_text(f"sqlite:///{tmp_path}/{city}.db\n")
        sources.append({"sql": {"query": "SELECT n FROM t", "secretRef": {"name": "shops", "key": city}}})
    spec = DatasetSpec.model_validate({"sources": sources, "target": "n"})
    found = open_sources(spec.sources, secrets=read_secrets(spec, folder.parent))
    assert pl.concat(found.chunks())["n"].to_list() == [0, 1]
    (folder / "ulm").unlink()
    with pytest.raises(SystemError_, match="'ulm' of Secret 'shops' is not mounted"):
        read_secrets(spec, folder.parent)
