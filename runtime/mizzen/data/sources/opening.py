"""From a Dataset's sources to its rows: which files there are, what they are, and how they go together."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import PurePosixPath

from mizzen.data.sources import files, folders, idx, streams
from mizzen.data.sources.access import Access, access_of
from mizzen.data.sources.columnar import MAGICS, ColumnarFile
from mizzen.data.sources.delimited import CsvFile
from mizzen.data.sources.files import File
from mizzen.data.sources.joins import Joined, Step
from mizzen.data.sources.json_files import JsonFile
from mizzen.data.sources.parts import Concatenation, Part
from mizzen.data.sources.rows import BadRows, RowSource
from mizzen.data.sources.sql import Query
from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.dataset_sources import Csv, Source

_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zstd")
_BY_SUFFIX = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv"), "csv"),
    ".json": "json",
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "arrow"),
}


def open_sources(
    sources: Sequence[Source],
    *,
    text_columns: Collection[str] = (),
    schema: Mapping[str, str] | None = None,
    max_bad_rows: int = 0,
    secrets: Mapping[str, str] | None = None,
) -> RowSource:
    """The rows of all sources. Files are looked for here; they are read when schema() or chunks() is called.

    `text_columns` are strings exactly as written. `schema` has types that are not to be inferred. `secrets` has the
    values of the Secrets that sources name, as NAME/KEY; a database's URL may be under NAME alone. UserError when a
    source cannot be found.
    """
    if not sources or sources[0].join:
        raise UserError(
            Reason.INVALID_PARAMETERS, "sources: the first source cannot have join, for there is nothing before it"
        )
    bad_rows = BadRows(max_bad_rows)

    def together(some: Sequence[Source]) -> Concatenation:
        parts = [part for source in some for part in _parts(source, text_columns, secrets or {})]
        return Concatenation(parts, text_columns, schema or {}, bad_rows)

    base = together([source for source in sources if source.join is None])
    steps = [Step(together([source]), source.join) for source in sources if source.join is not None]
    return Joined(base, steps, bad_rows) if steps else base


def _parts(source: Source, text_columns: Collection[str], secrets: Mapping[str, str]) -> list[Part]:
    if source.sql is not None:
        name, key = source.sql.secret_ref.name, source.sql.secret_ref.key
        url = secrets.get(f"{name}/{key}", secrets.get(name))
        if url is None:
            raise UserError(Reason.SOURCE_UNREADABLE, f"cannot read sql:{name}: there is no Secret {name!r}")
        return [Query(source.sql, url)]
    if source.uri is None:
        raise UserError(Reason.INVALID_PARAMETERS, "sources: a source has either uri or sql")
    access = access_of(source, secrets)
    found = files.find(source.uri, access)
    kind: str = source.format
    if kind == "auto" and len(found) > 1:
        found, kind = _of_one_kind(found)
    if kind in {"images", "text"}:
        return [folders.Folder(source.uri, found, kind)]
    return [_file(file, _kind(file) if kind == "auto" else kind, source, text_columns, access) for file in found]


def _file(file: File, kind: str, source: Source, text_columns: Collection[str], access: Access) -> Part:
    if kind in {"json", "jsonl"}:
        return JsonFile(file, kind == "jsonl", text_columns)
    if kind in {"parquet", "arrow"}:
        return ColumnarFile(file, text_columns)
    if kind == "idx":
        return idx.IdxFile(file, _labels(file, source.labels, access))
    return CsvFile(file, source.csv or Csv(), text_columns)


def _labels(file: File, given: str | None, access: Access) -> File | None:
    beside = given or idx.labels_beside(file.uri)
    return files.find(beside, access)[0] if beside else None


def _of_one_kind(found: Sequence[File]) -> tuple[list[File], str]:
    """The tables of a folder or glob, else its images, else its texts: what lies beside them is not data."""
    tables = [file for file in found if _by_name(file)]
    if tables:
        return tables, "auto"
    for kind, suffixes in (("images", folders.IMAGE_SUFFIXES), ("text", folders.TEXT_SUFFIXES)):
        if any(file.uri.lower().endswith(suffixes) for file in found):
            return list(found), kind
    return list(found), "auto"


def _by_name(file: File) -> str | None:
    path = PurePosixPath(file.uri)
    if path.suffix.lower() in _PACKED:
        path = path.with_suffix("")
    return "idx" if re.search(r"[-.]idx\d[-.]ubyte$", path.name) else _BY_SUFFIX.get(path.suffix.lower())


def _kind(file: File) -> str:
    """What a file is, by its name, else by its first bytes."""
    named = _by_name(file)
    if named:
        return named
    with ExitStack() as stack:
        stream = streams.content(file, stack)[0]
        with streams.unpacking(file.uri):
            head = streams.exactly(stream, 256)
    for magic, kind in MAGICS.items():
        if head.startswith(magic):
            return kind
    if head[:2] == b"\0\0":
        return "idx"
    return "json" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"["} else "csv"
