"""The files of a store: a local folder, or whatever fsspec or pyarrow can reach. Small, so that both behave alike."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

Bytes = bytes | bytearray | memoryview


class Files(Protocol):
    """Paths are relative to the store. All raise OSError; FileNotFoundError where there is no such file."""

    def write(self, path: str, chunks: Iterable[Bytes]) -> None:
        """The file is whole or not there."""

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes: ...

    def size(self, path: str) -> int: ...

    def names(self, folder: str) -> list[str]:
        """What lies in a folder; nothing where there is none."""

    def remove(self, path: str) -> None:
        """A file, or a folder with all that is in it. What is not there is no error."""


def files_of(uri: str) -> Files:
    """The files below a path, file://, s3:// or another scheme of fsspec."""
    if "://" not in uri or uri.startswith("file://"):
        return LocalFiles(Path(uri.removeprefix("file://")))
    return RemoteFiles(uri)


class LocalFiles:
    """A folder of a mounted file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, chunks: Iterable[Bytes]) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with draft.open("wb", buffering=0) as file:
                for chunk in chunks:
                    _write_all(file.fileno(), chunk)
                os.fsync(file.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with (self.root / path).open("rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)

    def size(self, path: str) -> int:
        return (self.root / path).stat().st_size

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(path.name for path in (self.root / folder).iterdir())
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        target = self.root / path
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)


# Words of S3 for what only a person can mend. Libraries raise them as any other OSError.
_FORBIDDEN = re.compile(
    r"ACCESS_DENIED|AccessDenied|Forbidden|INVALID_ACCESS_KEY|InvalidAccessKey|SIGNATURE|Signature|403"
)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """PermissionError where the store refuses, as a file system has it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if _FORBIDDEN.search(str(error)) and not isinstance(error, PermissionError):
            raise PermissionError(str(error)) from error
        raise


class RemoteFiles:
    """An object store: an object appears when all of it was sent."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._connected: tuple[Any, str] | None = None

    @_told()
    def write(self, path: str, chunks: Iterable[Bytes]) -> None:
        system, root = self._system()
        with contextlib.suppress(FileExistsError):
            system.makedirs(f"{root}/{path.rpartition('/')[0]}", exist_ok=True)
        with system.open(f"{root}/{path}", "wb") as file:
            for chunk in chunks:
                file.write(chunk)

    @_told()
    def read(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        system, root = self._system()
        with system.open(f"{root}/{path}", "rb") as file:
            file.seek(start)
            found: bytes = file.read() if end is None else file.read(end - start)
        return found

    @_told()
    def size(self, path: str) -> int:
        system, root = self._system()
        return int(system.info(f"{root}/{path}")["size"])

    @_told()
    def names(self, folder: str) -> list[str]:
        system, root = self._system()
        system.invalidate_cache()
        try:
            found = system.ls(f"{root}/{folder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return sorted(name for path in found if (name := path.rstrip("/").rpartition("/")[2]))

    @_told()
    def remove(self, path: str) -> None:
        system, root = self._system()
        with contextlib.suppress(FileNotFoundError):
            system.rm(f"{root}/{path}", recursive=True)

    def _system(self) -> tuple[Any, str]:
        """Connected at the first use, so that a store that is away is an error of that use."""
        if self._connected is None:
            self._connected = _connect(self._uri)
        return self._connected


def _connect(uri: str) -> tuple[Any, str]:
    if urlsplit(uri).scheme not in ("s3", "s3a"):
        from fsspec.core import url_to_fs

        system, path = url_to_fs(uri)
        return system, path.rstrip("/")
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    bucket = fs.S3FileSystem(
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or "https",
        region=region,
        connect_timeout=10,
        request_timeout=60,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )
    return ArrowFSWrapper(bucket), uri.partition("://")[2].rstrip("/")


def _write_all(file: int, chunk: Bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(file, rest) :]
