"""CSV: what is guessed, what is refused, and that the fast and the careful way read the same."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import lzma
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mizzen.data.sources import CHUNK_ROWS, RowSource, check_contract, open_sources, streams, types
from mizzen.data.sources.files import File
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_sources import Source


def csv_source(path: Path, content: bytes, **options: Any) -> RowSource:
    path.write_bytes(content)
    dialect = options.pop("csv", {})
    return open_sources([Source.model_validate({"uri": str(path), "csv": dialect})], **options)


def read(path: Path, content: bytes, **options: Any) -> pl.DataFrame:
    return pl.concat(csv_source(path, content, **options).chunks())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in.csv"


def test_types_are_the_narrowest_that_all_values_have(path: Path) -> None:
    frame = read(
        path,
        b"\xef\xbb\xbfid,name,price,ok,day,at,zip,big\r\n"
        b'1,"a, ""b""\nc",1.5,true,2026-01-01,2026-01-01 10:00:00,00701,99999999999999999999\r\n'
        b"NA,NA,NaN,False,,2026-01-01T10:00:00.5+02:00,10115,1\r\n"
        b" 3 ,,1e3,TRUE,2026-12-31,2026-01-01T10:00,,\r\n",
    )
    assert dict(zip(frame.columns, map(types.name_of, frame.dtypes), strict=True)) == {
        "id": "integer", "name": "string", "price": "float", "ok": "boolean", "day": "date", "at": "datetime",
        "zip": "string", "big": "string",
    }  # fmt: skip
    assert frame.rows() == [
        (1, 'a, "b"\nc', 1.5, True, date(2026, 1, 1), datetime(2026, 1, 1, 10), "00701", "99999999999999999999"),
        (None, "NA", None, False, None, datetime(2026, 1, 1, 8, 0, 0, 500_000), "10115", "1"),
        (3, None, 1000.0, True, date(2026, 12, 31), datetime(2026, 1, 1, 10), None, None),
    ]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"a;b\n1,5;x\n2,5;y\n", [("1,5", "x"), ("2,5", "y")]),
        (b"a\tb\n1\tx y\n", [(1, "x y")]),
        (b"a|b\n1|x\n", [(1, "x")]),
        (b"a\n1\n\n3\n", [(1,), (3,)]),
        (b"a,b\r1,x\r2,y\r", [(1, "x"), (2, "y")]),
        (b"\n\na,b\n1,2", [(1, 2)]),
        (b"a,b\n1,\n2,\n", [(1, None), (2, None)]),
        (b'a,b\n1,5" pipe\n2,"x"\n', [(1, '5" pipe'), (2, "x")]),
        (b",b\n1,2\n", [(1, 2)]),
        ("a,b\n1,ä\n".encode("utf-16"), [(1, "ä")]),
    ],
)
def test_dialects_are_guessed(path: Path, content: bytes, rows: list[tuple[object, ...]]) -> None:
    assert read(path, content).rows() == rows


CELLS = {
    "integers": ("1", "-20", "300"),
    "floats": ("1.5", "-2e3", "0.25"),
    "codes": ("007", "+01", "-00", "0012"),
    "long": ("1000000000000000000", "-9223372036854775807"),
    "booleans": ("true", "False"),
    "dates": ("2026-01-02", "1999-12-31"),
    "times": ("2026-01-02T03:04:05Z", "2026-01-02 03:04", "2026-01-02T03:04:05+02:00"),
    "words": ("a", "1a", '"b,c"'),
    "nothing": ("", "NA", " "),
}


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_types_guessed_from_the_first_rows_are_those_that_all_texts_have(kinds: list[list[str]], data: Any) -> None:
    """Columns that change on the way: the guess must not survive what the whole block says otherwise."""
    from unittest import mock

    from mizzen.data.sources import delimited
    from mizzen_api.dataset_sources import Csv

    columns = [[data.draw(st.sampled_from(CELLS[kind])) for kind in some for _ in range(4)] for some in kinds]
    rows = [[column[row % len(column)] for column in columns] for row in range(max(map(len, columns)))]
    content = "\n".join(",".join([*row, "x"]) for row in [[f"c{n}" for n in range(len(columns))], *rows]) + "\n"
    file = File("memory", len(content), "", lambda: io.BytesIO(content.encode()))
    found = []
    for head in (0, 40, 1 << 18):  # texts alone, a guess that the rest may refute, a guess from all rows
        with mock.patch.object(delimited, "HEAD_BYTES", head):
            found.append(delimited.CsvFile(file, Csv()).infer({}))
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_dialects_can_be_said(path: Path) -> None:
    assert read(path, b"1:x\n2:-\n", csv={"delimiter": ":", "header": False, "nullValues": ["-"]}).to_dicts() == [
        {"column_1": 1, "column_2": "x"},
        {"column_1": 2, "column_2": None},
    ]
    assert read(path, b'a,b\n1,"x\n2,y\n', csv={"quote": ""}).rows() == [(1, '"x'), (2, "y")]
    assert read(path, "a,b\n1,ä\n".encode("cp1252"), csv={"encoding": "cp1252"}).rows() == [(1, "ä")]


def test_an_encoding_that_was_said_is_kept_to(path: Path) -> None:
    latin = "a,b\n1,ä\n".encode("latin-1")
    assert read(path, latin).rows() == [(1, "ä")]
    with pytest.raises(UserError, match="not in the encoding utf-8") as error:
        read(path, latin, csv={"encoding": "utf-8"})
    assert error.value.reason == Reason.SOURCE_MALFORMED
    assert read(path, b"\xef\xbb\xbf" + "a\nä\n".encode(), csv={"encoding": "utf-8"}).rows() == [("ä",)]
    with pytest.raises(UserError, match="'utf-99' is no encoding") as error:
        read(path, latin, csv={"encoding": "utf-99"})
    assert error.value.reason == Reason.INVALID_PARAMETERS


def test_text_columns_stay_as_written(path: Path) -> None:
    frame = read(path, b'text,n\n007,1\n 1.50 ,2\nNA,3\n"null",4\n', text_columns=["text"], csv={"nullValues": ["NA"]})
    assert frame["text"].to_list() == ["007", " 1.50 ", "NA", "null"]


def test_lines_that_are_not_utf8_are_latin1_and_counted(path: Path) -> None:
    source = csv_source(path, "a,b\n1,ä\n".encode() + b"2,caf\xe9\n")
    assert pl.concat(source.chunks())["b"].to_list() == ["ä", "café"]
    assert source.undecodable == 1


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (b"", Reason.SOURCE_EMPTY, "in.csv is empty"),
        (b"\n \n", Reason.SOURCE_EMPTY, "in.csv is empty"),
        (b"a,b\n", Reason.SOURCE_EMPTY, "no rows"),
        (b"a,a\n1,2\n", Reason.SOURCE_MALFORMED, "in.csv:1: column 'a' appears twice"),
        (b"a,b\n1,2\n3\n", Reason.SOURCE_MALFORMED, "in.csv:3: the row has 1 fields, the header has 2 (a, b)"),
        (b"a,b\n1,2,3\n", Reason.SOURCE_MALFORMED, "in.csv:2: the row has 3 fields"),
        (b'a,b\n1,"x\ny"\n3\n', Reason.SOURCE_MALFORMED, "in.csv:4: the row has 1 fields"),
        (b'a,b\n1,"x\n2,y\n3,z\n', Reason.SOURCE_MALFORMED, "in.csv:2: a quote is opened here and never closed"),
        (b"a,b\n1,2\n3,inf\n", Reason.SOURCE_MALFORMED, "in.csv:3: column 'b': the number is infinite"),
    ],
)
def test_a_bad_file_is_named_with_line_and_column(path: Path, content: bytes, reason: Reason, said: str) -> None:
    with pytest.raises(UserError) as error:
        read(path, content)
    assert error.value.reason == reason
    assert said in error.value.message


def test_a_value_against_the_inferred_type_is_named_however_late_it_comes(path: Path) -> None:
    lines = [f"{n},{n * 0.5}" for n in range(CHUNK_ROWS + 5000)]
    lines[CHUNK_ROWS + 3000] = f"{CHUNK_ROWS},dear"
    content = ("id,price\n" + "\n".join(lines)).encode()
    with pytest.raises(UserError, match=f"in.csv:{CHUNK_ROWS + 3002}: column 'price': 'dear' is not a number"):
        read(path, content)
    source = csv_source(path, content, max_bad_rows=1)
    assert [chunk.height for chunk in source.chunks()] == [CHUNK_ROWS, 4999]
    assert [(bad.row, bad.column) for bad in source.bad_rows] == [(CHUNK_ROWS + 3002, "price")]


def test_the_budget_is_for_bad_rows_of_all_sorts(path: Path) -> None:
    content = b"a,b\n1,2\nx,2\n3\n4,5,6\n\n7,inf\n8,9\n"
    source = csv_source(path, content, max_bad_rows=4, schema={"a": "integer", "b": "float"})
    assert pl.concat(source.chunks()).rows() == [(1, 2.0), (8, 9.0)]
    assert [(bad.row, bad.column) for bad in source.bad_rows] == [(3, "a"), (4, ""), (5, ""), (7, "b")]
    assert next(source.chunks()).height == 2, "a second pass counts anew"
    assert source.bad_row_count == 4
    spent = csv_source(path, content, max_bad_rows=3, schema={"a": "integer", "b": "float"})
    with pytest.raises(UserError, match=r"in.csv:7: .*; that is bad row 4, and maxBadRows is 3"):
        list(spent.chunks())


def test_rows_that_an_open_quote_swallows_all_count(path: Path) -> None:
    content = b'a,b\n1,2\n"3,4\n5,6\n7,8"\n9,10\n'
    with pytest.raises(UserError, match=r"in.csv:3: .*; that is bad row 3, and maxBadRows is 2"):
        read(path, content, max_bad_rows=2)


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.Codec("zstd").compress(data).to_pybytes(),
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_are_hashed_as_they_are_and_unpacked(tmp_path: Path, suffix: str) -> None:
    content = b"id,name\n" + b"".join(b"%d,name %d\n" % (n, n * 7919 % 10007) for n in range(50_000))
    packed = PACKERS[suffix](content)
    source = csv_source(tmp_path / f"in.csv.{suffix}", packed)
    frame = pl.concat(source.chunks())
    assert frame.height == 50_000
    assert frame.row(-1) == (49_999, f"name {49_999 * 7919 % 10007}")
    assert source.digest() == hashlib.sha256(hashlib.sha256(packed).digest()).hexdigest()
    with pytest.raises(UserError, match="cut short or damaged") as error:
        read(tmp_path / f"cut.csv.{suffix}", packed[: len(packed) // 2])
    assert error.value.reason == Reason.SOURCE_MALFORMED


def test_gzip_of_several_members_is_read_to_its_end(path: Path) -> None:
    assert read(path, gzip.compress(b"a\n1\n") + gzip.compress(b"2\n"))["a"].to_list() == [1, 2]


fields = st.one_of(
    st.text(st.sampled_from("ab ,;\"\n\r'x1é"), max_size=6), st.integers().map(str), st.floats().map(str), st.just("")
)


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(1, 4))
    return draw(st.lists(st.lists(fields, min_size=width, max_size=width), min_size=1, max_size=8))


@pytest.mark.slow
@settings(deadline=None)
@given(tables(), st.sampled_from(["\n", "\r\n"]), st.sampled_from(",;\t"), st.sampled_from([7, 16, 33, 64, 1 << 20]))
def test_what_python_writes_is_read_back_wherever_blocks_end(
    rows: list[list[str]], line_end: str, delimiter: str, size: int
) -> None:
    """Every field, quoted or not, in blocks that are far smaller than a record."""
    names = [f"c{n}" for n in range(len(rows[0]))]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    content = out.getvalue().encode()
    file = File("in.csv", len(content), "", lambda: io.BytesIO(content))
    options: dict[str, Any] = {"delimiter": delimiter}
    got = read_in_blocks(file, names, options, size)
    assert got == [tuple(field or None for field in row) for row in rows]


def read_in_blocks(file: File, names: list[str], options: dict[str, Any], size: int) -> list[tuple[object, ...]]:
    from mizzen.data.sources.delimited import CsvFile
    from mizzen.data.sources.parts import Concatenation
    from mizzen.data.sources.rows import BadRows
    from mizzen_api.dataset_sources import Csv

    part = CsvFile(file, Csv.model_validate(options), names)
    before, streams.BLOCK_BYTES = streams.BLOCK_BYTES, size
    try:
        return pl.concat(Concatenation([part], names, {}, BadRows()).chunks()).rows()
    finally:
        streams.BLOCK_BYTES = before


numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(width=64).map(repr),
    st.from_regex(r"[+-]?[0-9]{0,3}\.?[0-9]{0,3}(e[+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["", " 1", "1 ", "NA", "nan", "inf", "-inf", "0x1", "1_000", "true", "--1", "+", "1.", ".5"]),
)


@settings(deadline=None)
@given(numbers, st.sampled_from(["integer", "float", "boolean"]))
def test_polars_parser_and_ours_agree_on_every_value(text: str, kind: str) -> None:
    """A block with a bad row is read the careful way: the rows beside it must not change."""
    ours = types.convert(pl.Series("a", [text]), kind)
    try:
        theirs = pl.read_csv(
            io.BytesIO(f"{text},\n".encode()), has_header=False, schema={"a": types.dtype(kind), "b": pl.String()}
        )
    except pl.exceptions.PolarsError:
        return  # then the careful way decides alone
    value = theirs["a"].fill_nan(None)[0] if kind == "float" else theirs["a"][0]
    if ours.wrong[0]:
        assert value in {float("inf"), float("-inf")}, "which the fast way hands to the careful one"
    else:
        assert value == ours.values[0]


def test_a_contract_is_broken_by_vanished_and_changed_columns() -> None:
    was = {"a": "integer", "b": "string", "c": "float"}
    assert check_contract(was, {**was, "d": "date"}) == []
    assert check_contract(was, {"b": "string", "c": "integer"}) == [
        "column 'a' (integer) has vanished; there are b, c",
        "column 'c' was float and is integer now",
    ]
