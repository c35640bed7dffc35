"""Where rows come from: resolve a URI, read its bytes, and parse CSV with errors that name file, line and column."""

from __future__ import annotations

import csv
import importlib.util
import io
import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

PACKAGE_SCHEME = "package://"


@dataclass(frozen=True)
class RawFile:
    """One source as it is on disk or in a bucket."""

    uri: str
    content: bytes


@dataclass(frozen=True)
class Table:
    """One source, parsed. `undecodable` counts lines that were not UTF-8 and were read as Latin-1."""

    uri: str
    frame: pl.DataFrame
    undecodable: int


def read(uri: str) -> RawFile:
    """The bytes behind a path, file://, s3:// (any fsspec scheme) or package://PACKAGE/PATH."""
    try:
        if uri.startswith(PACKAGE_SCHEME):
            return RawFile(uri, _package_file(uri).read_bytes())
        if "://" not in uri:
            return RawFile(uri, Path(uri).read_bytes())
        import fsspec

        with fsspec.open(uri, "rb") as file:
            return RawFile(uri, file.read())
    except UserError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise UserError(Reason.SOURCE_UNREADABLE, f"cannot read source {uri}: {_short(error)}") from error


def parse(raw: RawFile, target: str, needed: list[str]) -> Table:
    """CSV with a header line. All columns stay text, so that training and serving see the same values.

    UserError: SourceEmpty, SourceMalformed (with the line), ColumnMissing (with the columns there are).
    """
    text, undecodable = _decode(raw.content)
    if not text.strip():
        raise UserError(Reason.SOURCE_EMPTY, f"{raw.uri} is empty: it needs a header line and at least one row")
    header = _check_shape(raw.uri, text)
    for column in dict.fromkeys([target, *needed]):
        if column not in header:
            what = "the target column" if column == target else "column"
            raise UserError(
                Reason.COLUMN_MISSING, f"{raw.uri} has no {what} {column!r}; its columns are {', '.join(header)}"
            )
    import polars as pl

    try:
        frame = pl.read_csv(io.BytesIO(text.encode()), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(Reason.SOURCE_MALFORMED, f"{raw.uri} is not a CSV file: {_short(error)}") from error
    _check_target(raw.uri, text, header, target)
    if undecodable:
        log.warning("%s: %d lines are not UTF-8 and were read as Latin-1", raw.uri, undecodable)
    return Table(raw.uri, frame, undecodable)


def _package_file(uri: str) -> Path:
    """Locate a file of an installed package without importing (running) the package."""
    package, _, inner = uri.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            Reason.SOURCE_UNREADABLE, f"cannot read source {uri}: package {package!r} is not installed in this image"
        )
    if not inner or ".." in PurePosixPath(inner).parts:
        raise UserError(Reason.SOURCE_UNREADABLE, f"{uri} names no file: write package://PACKAGE/PATH/IN/PACKAGE")
    return Path(next(iter(spec.submodule_search_locations)), inner)


def _decode(content: bytes) -> tuple[str, int]:
    """UTF-8; lines that are not are read as Latin-1, which never fails and keeps every byte apart."""
    try:
        return content.decode("utf-8-sig"), 0
    except UnicodeDecodeError:
        pass
    bad = 0
    lines = []
    for line in content.split(b"\n"):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            lines.append(line.decode("latin-1"))
            bad += 1
    return "\n".join(lines).removeprefix("\ufeff"), bad


def _check_shape(uri: str, text: str) -> list[str]:
    """Every row has as many fields as the header; names in the header are unique. Returns the header."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows = 0
    start = 1
    try:
        for fields in reader:
            if not header:
                header = fields
                twice = {name for name in header if header.count(name) > 1}
                if twice:
                    raise UserError(Reason.SOURCE_MALFORMED, f"{uri}:1: column {min(twice)!r} appears twice")
            elif fields:
                rows += 1
                if len(fields) != len(header):
                    raise UserError(
                        Reason.SOURCE_MALFORMED,
                        f"{uri}:{start}: the row has {len(fields)} fields, the header has {len(header)} "
                        f"({', '.join(header)}); quote fields that contain commas",
                    )
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(Reason.SOURCE_MALFORMED, f"{uri}:{start}: {error}") from error
    if rows == 0:
        raise UserError(Reason.SOURCE_EMPTY, f"{uri} has a header line but no rows")
    return header


def _check_target(uri: str, text: str, header: list[str], target: str) -> None:
    """The target is there in every row."""
    index = header.index(target)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    for fields in reader:
        if fields and start > 1 and not fields[index].strip():
            raise UserError(Reason.SOURCE_MALFORMED, f"{uri}:{start}: the target column {target!r} is empty")
        start = reader.line_num + 1


def _short(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
