"""From a file to blocks of whole records: hashed as read, unpacked, decoded."""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

from mizzen.data.sources.files import File, reading, short
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

BLOCK_BYTES = 16 * 1024 * 1024
# A record that does not end within this is a quote that nobody closed.
MAX_RECORD_BYTES = 4 * BLOCK_BYTES
_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class Block(NamedTuple):
    """Whole records as UTF-8. `line` is the number of the first one's line in the file, from 1."""

    data: bytes
    line: int


class HashedFile(io.RawIOBase):
    """A file that is hashed while somebody reads it."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._raw = file.open()
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        with reading(self.file.uri):
            size: int = self._raw.readinto(view)  # type: ignore[attr-defined]  # all that opens files has it
        self._digest.update(view[:size])
        return size

    def finish(self) -> bytes:
        """The digest of the whole file; what a decompressor left unread counts, too."""
        while self.read(1 << 20):
            pass
        return self._digest.digest()

    def close(self) -> None:
        self._raw.close()
        super().close()


def digest(file: File) -> bytes:
    with HashedFile(file) as hashed:
        return hashed.finish()


def unpacked(raw: io.BufferedReader[Any]) -> IO[bytes]:
    """The content, whatever it is packed with; told by its first bytes, for names lie."""
    magic = raw.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa

        return cast("IO[bytes]", pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
    return raw


class unpacking:  # noqa: N801 (a context manager that reads as a verb)
    """Turn what decompressors raise into an error that names the file."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile | lzma.LZMAError) or (
            isinstance(error, OSError) and error.errno is None and not isinstance(error, ConnectionError)
        ):
            raise UserError(
                Reason.SOURCE_MALFORMED, f"{self.uri} is cut short or damaged: {short(error)}; copy it again"
            ) from error


def content(file: File, stack: ExitStack) -> tuple[IO[bytes], HashedFile]:
    """The unpacked content, and the file behind it, to be closed with the stack."""
    hashed = stack.enter_context(HashedFile(file))
    raw = io.BufferedReader(hashed, 1 << 20)
    with unpacking(file.uri):
        return unpacked(raw), hashed


def blocks(
    file: File,
    cut: Callable[[bytes, bool], int],
    on_digest: Callable[[bytes], None],
    encoding: str | None = None,
    size: int | None = None,
) -> Iterator[Block]:
    """Blocks of about `size` bytes (BLOCK_BYTES) that end where a record does.

    `cut(data, at_end)` says where the last whole record ends, or 0.
    The file's digest is told once its last byte was read. UserError when it is damaged or a record does not end.
    """
    size = size or BLOCK_BYTES
    with ExitStack() as stack:
        stream, hashed = content(file, stack)
        decode = None
        rest, line = b"", 1
        first = True
        while True:
            with unpacking(file.uri):
                data = exactly(stream, size)
            at_end = len(data) < size
            if first:
                decode, data = _decoder(file.uri, data, encoding)
                first = False
            if decode is not None:
                data = decode(data, at_end)
            data = rest + data if rest else data
            end = len(data) if at_end else cut(data, False)
            if end == 0 and not at_end and len(data) > MAX_RECORD_BYTES:
                raise UserError(
                    Reason.SOURCE_MALFORMED,
                    f"{file.uri}:{line}: a record that begins here does not end within {MAX_RECORD_BYTES >> 20} MiB; "
                    "close its quote, or set csv.quote to '' where quotes are plain text",
                )
            block, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
            if block:
                yield Block(block, line)
                line += count(block, b"\n")
            if at_end:
                on_digest(hashed.finish())
                return


def exactly(stream: IO[bytes], size: int) -> bytes:
    """Exactly `size` bytes unless the stream ends."""
    data = stream.read(size)
    if not data or len(data) == size:
        return data
    parts = [data]
    missing = size - len(data)
    while missing and (data := stream.read(missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def _decoder(uri: str, data: bytes, encoding: str | None) -> tuple[Callable[[bytes, bool], bytes] | None, bytes]:
    """What makes UTF-8 of a file, without its byte-order mark; None where nobody said what it is: see `as_utf8`."""
    asked = encoding is not None
    for mark, name in _BOMS.items():
        if data.startswith(mark):
            data = data[len(mark) :]
            encoding = encoding if encoding and name == "utf-8" else name
            break
    if encoding is None or (encoding == "utf-8" and not asked):
        return None, data
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        message = f"csv.encoding: {encoding!r} is no encoding; write it as utf-8, cp1252 or shift_jis"
        raise UserError(Reason.INVALID_PARAMETERS, message) from error

    def decode(part: bytes, final: bool) -> bytes:
        try:
            return decoder.decode(part, final).encode()
        except UnicodeDecodeError as error:
            raise UserError(Reason.SOURCE_MALFORMED, f"{uri} is not in the encoding {encoding}: {error}") from error

    return decode, data


def as_utf8(data: bytes) -> tuple[bytes, int]:
    """Lines that are not UTF-8 are read as Latin-1, which never fails and keeps every byte apart; and their number."""
    if data.isascii():
        return data, 0
    try:
        data.decode()
    except UnicodeDecodeError:
        pass
    else:
        return data, 0
    bad = 0
    lines = []
    for line in data.split(b"\n"):
        try:
            line.decode()
        except UnicodeDecodeError:
            lines.append(line.decode("latin-1").encode())
            bad += 1
        else:
            lines.append(line)
    return b"\n".join(lines), bad


def count(data: bytes, byte: bytes) -> int:
    """As data.count(byte), which takes five times as long."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == byte[0]))


def lines_end(data: bytes, at_end: bool) -> int:
    """Where the last whole line ends."""
    return len(data) if at_end else data.rfind(b"\n") + 1


def copy(file: File, target: Path, on_digest: Callable[[bytes], None]) -> Path:
    """An unpacked local copy, for formats that are read out of order; hashed on the way."""
    with ExitStack() as stack:
        stream, hashed = content(file, stack)
        with target.open("wb") as out, unpacking(file.uri):
            shutil.copyfileobj(stream, out, 1 << 20)
        on_digest(hashed.finish())
    return target
