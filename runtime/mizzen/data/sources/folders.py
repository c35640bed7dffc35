"""Folders of images or texts, a folder for each class: rows of path, content and label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mizzen.data.sources.files import File, reading
from mizzen.data.sources.parts import Contract, OnDigest, total
from mizzen.data.sources.rows import CHUNK_BYTES, BadRows
from mizzen.data.sources.streams import as_utf8
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm")
TEXT_SUFFIXES = (".txt", ".text", ".md")
_MAGICS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"RIFF",
    b"II*\0",
    b"MM\0*",
    b"P1",
    b"P2",
    b"P3",
    b"P4",
    b"P5",
    b"P6",
)
FILES_AT_ONCE = 256
READERS = 8


class Folder:
    """Files below one folder. The label is the name of the folder that a file is in; files at the top have none."""

    def __init__(self, uri: str, files: Sequence[File], kind: str) -> None:
        suffixes = IMAGE_SUFFIXES if kind == "images" else TEXT_SUFFIXES
        self.uri = uri
        self._content = "image" if kind == "images" else "text"
        self._files = [file for file in files if PurePosixPath(file.uri).suffix.lower() in suffixes]
        if not self._files:
            raise UserError(Reason.SOURCE_EMPTY, f"{uri} has no {kind}: no name ends in {', '.join(suffixes)}")

    def size(self) -> int | None:
        return total(file.size for file in self._files)

    def identity(self) -> str:
        each = [file.identity for file in self._files]
        return "\n".join(each) if all(each) else ""

    def digest(self, known: Mapping[str, str]) -> bytes:  # noqa: ARG002 (files are what they are)
        found: list[bytes] = []
        for _ in self._read(found.append):
            pass
        return found[0]

    def infer(self, known: Mapping[str, str]) -> dict[str, str | None]:
        content = "binary" if self._content == "image" else "string"
        return {name: known.get(name, kind) for name, kind in
                {"path": "string", self._content: content, "label": "string"}.items()}  # fmt: skip

    def frames(self, contract: Contract, bad_rows: BadRows, on_digest: OnDigest) -> Iterator[pl.DataFrame]:
        import polars as pl

        number = 0
        for files, contents in self._read(on_digest):
            rows = []
            for file, content in zip(files, contents, strict=True):
                number += 1
                wrong = self._complaint(content)
                if wrong:
                    bad_rows.add(file.uri, 1, "", wrong)
                    continue
                text = content if self._content == "image" else as_utf8(content)[0].decode().removeprefix("\ufeff")
                path = self._path(file)
                label = path.parent.name or None
                rows.append((str(path), text, label))
            kinds = {"path": pl.String(), self._content: pl.Binary() if self._content == "image" else pl.String(),
                     "label": pl.String()}  # fmt: skip
            frame = pl.DataFrame(rows, schema=kinds, orient="row")
            yield contract.conform(self.uri, frame, lambda row: row + 1, bad_rows)

    def _complaint(self, content: bytes) -> str:
        if self._content == "text":
            return ""
        if not content:
            return "the image file is empty"
        return "" if content.startswith(_MAGICS) else "the file's first bytes are not those of an image"

    def _path(self, file: File) -> PurePosixPath:
        base = self.uri.rstrip("/")
        return PurePosixPath(file.uri.removeprefix(base).lstrip("/"))

    def _read(self, on_digest: OnDigest) -> Iterator[tuple[Sequence[File], list[bytes]]]:
        """The files' contents, some hundred at once, read by several threads; the digest is over paths and contents."""
        digest = hashlib.sha256()
        with ThreadPoolExecutor(READERS, thread_name_prefix="read-files") as pool:
            for files in self._batches():
                contents = list(pool.map(_content, files))
                for file, content in zip(files, contents, strict=True):
                    digest.update(hashlib.sha256(str(self._path(file)).encode()).digest())
                    digest.update(hashlib.sha256(content).digest())
                yield files, contents
        on_digest(digest.digest())

    def _batches(self) -> Iterator[list[File]]:
        """Files of at most FILES_AT_ONCE and about CHUNK_BYTES / 4 together."""
        batch: list[File] = []
        size = 0
        for file in self._files:
            batch.append(file)
            size += file.size or 0
            if len(batch) == FILES_AT_ONCE or size > CHUNK_BYTES // 4:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _content(file: File) -> bytes:
    with reading(file.uri), file.open() as opened:
        return opened.read()
