"""Files behind a URI, wherever they are: which there are, how large, and their bytes; with errors that say why not."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit, urlunsplit

from mizzen.data.sources.access import ANYBODY, Access
from mizzen.errors import MizzenError, SystemError_, UserError
from mizzen_api.conditions import Reason

PACKAGE_SCHEME = "package://"
TIMEOUT_S = 30
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs"})
_GLOB = re.compile(r"[*?\[]")
# Words of S3 and of operating systems for what no retry cures.
_LASTING = re.compile(
    r"NO_SUCH_|NoSuch|NOT_FOUND|ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY|InvalidAccessKey|SIGNATURE|Forbidden|"
    r"HTTP status 40[0134]|RESOURCE_NOT_FOUND|No such file|Path does not exist|Unable to locate credentials",
)


@dataclass(frozen=True)
class File:
    """One file. `stamp` changes when it does; empty when that is not known."""

    uri: str
    size: int | None
    stamp: str
    opener: Callable[[], BinaryIO]
    path: Path | None = None  # where it is a local file

    def open(self) -> BinaryIO:
        with reading(self.uri):
            return self.opener()

    @property
    def identity(self) -> str:
        return f"{self.uri} {self.size} {self.stamp}" if self.stamp else ""


class reading:  # noqa: N801 (a context manager that reads as a verb)
    """Turn what a file system raises into an error that names the source and says whether to try again."""

    def __init__(self, uri: str) -> None:
        self.uri = shown(uri)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MizzenError) or not isinstance(error, OSError | ValueError | ImportError):
            return
        message = f"cannot read source {self.uri}: {short(error)}"
        if is_lasting(error):
            raise UserError(Reason.SOURCE_UNREADABLE, message) from error
        raise SystemError_(message, Reason.SOURCE_UNREADABLE) from error


def shown(uri: str) -> str:
    """The URI without credentials and query, which may hold a signature."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if host != parts.netloc or parts.query else uri


def find(uri: str, access: Access = ANYBODY) -> list[File]:
    """The files of a path, folder, glob or URI, sorted by name. UserError SourceUnreadable when there is none."""
    with reading(uri):
        files = _find(uri, access)
    if not files:
        raise UserError(Reason.SOURCE_UNREADABLE, f"cannot read source {shown(uri)}: no file matches")
    return files


def _find(uri: str, access: Access) -> list[File]:
    scheme = uri.partition("://")[0] if "://" in uri else ""
    if uri.startswith(PACKAGE_SCHEME):
        return _local(_package_file(uri), lambda path, root: uri if path == root else f"{uri}/{path.relative_to(root)}")
    if scheme in {"", "file"}:
        return _local_files(uri)
    if scheme in {"http", "https"}:
        return [_http(uri, access)]
    if scheme in _BUCKETS:
        return _bucket_files(uri, scheme, access)
    return _fsspec_files(uri)


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


def _local_files(uri: str) -> list[File]:
    from urllib.request import url2pathname

    as_uri = uri.startswith("file://")
    path = Path(url2pathname(urlsplit(uri).path)) if as_uri else Path(uri)

    def name(found: Path, _: Path) -> str:
        return found.absolute().as_uri() if as_uri else str(found)

    if path.exists() or not _GLOB.search(str(path)):
        return _local(path, name)
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else str(path)
    found = sorted(
        p for p in anchor.glob(pattern) if p.is_file() and (p.name[0] != "." or Path(pattern).name[0] == ".")
    )
    return [_local_file(p, name(p, p)) for p in found]


def _local(path: Path, name: Callable[[Path, Path], str]) -> list[File]:
    if not path.is_dir():
        return [_local_file(path, name(path, path))]
    inside = sorted(p for p in path.rglob("*") if p.is_file() and not _is_hidden(p.relative_to(path)))
    return [_local_file(p, name(p, path)) for p in inside]


def _is_hidden(path: Path | PurePosixPath) -> bool:
    """Dot files, and what writers leave beside their data: _SUCCESS, _metadata."""
    return any(part.startswith((".", "_")) for part in path.parts)


def _local_file(path: Path, uri: str) -> File:
    stat = path.stat()
    return File(uri, stat.st_size, str(stat.st_mtime_ns), lambda: path.open("rb"), path)


@lru_cache(maxsize=8)
def _bucket(scheme: str, endpoint: str | None, region: str, access: Access) -> Any:
    """The client of an object store. Without a Secret's, credentials come from the environment, as everywhere."""
    from pyarrow import fs

    if scheme.startswith("g"):
        return fs.GcsFileSystem()
    split = urlsplit(endpoint or "")
    return fs.S3FileSystem(
        access_key=access.access_key_id,
        secret_key=access.secret_access_key,
        session_token=access.session_token,
        endpoint_override=split.netloc or None,
        scheme=split.scheme or "https",
        region=region,
        connect_timeout=10,
        request_timeout=TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


def bucket_of(scheme: str, access: Access = ANYBODY) -> Any:
    """A Secret says all about its store: without an endpoint it is AWS, whatever the environment names."""
    env = os.environ if access is ANYBODY else {}
    endpoint = access.endpoint or env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    region = access.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"
    return _bucket(scheme, endpoint, region, access)


def filesystem(uri: str, access: Access = ANYBODY) -> tuple[Any, str]:
    """The pyarrow file system behind a URI, and the path there."""
    from pyarrow import fs

    scheme, _, path = uri.partition("://")
    if scheme in _BUCKETS:
        return bucket_of(scheme, access), path.rstrip("/")
    import fsspec

    system, path = fsspec.core.url_to_fs(uri)
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path.rstrip("/")


def _bucket_files(uri: str, scheme: str, access: Access) -> list[File]:
    from pyarrow import fs

    bucket = bucket_of(scheme, access)
    key = uri.partition("://")[2].rstrip("/")
    if wild := _GLOB.search(key):
        root = key[: wild.start()].rpartition("/")[0]
        matches = glob_pattern(key).fullmatch
        infos = [i for i in bucket.get_file_info(fs.FileSelector(root, recursive=True)) if matches(i.path)]
    else:
        (info,) = bucket.get_file_info([key])
        infos = [info]
        if info.type == fs.FileType.Directory:
            found = bucket.get_file_info(fs.FileSelector(key, recursive=True))
            infos = [i for i in found if not _is_hidden(PurePosixPath(i.path[len(key) :].lstrip("/")))]
        elif info.type == fs.FileType.NotFound:
            raise FileNotFoundError(f"No such file or folder: {key}")
    return [
        File(f"{scheme}://{i.path}", i.size, str(i.mtime_ns or ""), _opener(bucket, i.path))
        for i in sorted(infos, key=lambda i: i.path)
        if i.type == fs.FileType.File
    ]


def _opener(bucket: Any, path: str) -> Callable[[], BinaryIO]:
    return lambda: bucket.open_input_stream(path)


def _fsspec_files(uri: str) -> list[File]:
    import fsspec

    system, path = fsspec.core.url_to_fs(uri)
    scheme = uri.partition("://")[0]
    paths = system.glob(path) if _GLOB.search(path) else system.find(path) or [path]

    def file(found: str) -> File:
        info = system.info(found)
        stamp = str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or "")
        return File(f"{scheme}://{found.lstrip('/')}", info.get("size"), stamp, lambda: system.open(found, "rb"))

    return [file(found) for found in sorted(paths)]


def _http(uri: str, access: Access) -> File:
    from mizzen.data.sources import http

    size, stamp = http.head(uri, TIMEOUT_S, access)
    return File(shown(uri), size, stamp, lambda: http.open_(uri, TIMEOUT_S, access))


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` does not; as in the shell."""
    out = []
    for piece in re.findall(r"\*\*/?|\*|\?|\[[^\]]+\]|[^*?\[]+|\[", pattern):
        if piece.startswith("**"):
            out.append("(?:.*/)?" if piece.endswith("/") else ".*")
        elif piece in "*?":
            out.append("[^/]*" if piece == "*" else "[^/]")
        else:
            out.append(piece.replace("[!", "[^") if piece.startswith("[") and len(piece) > 1 else re.escape(piece))
    return re.compile("".join(out))


def is_lasting(error: BaseException) -> bool:
    """Whether the same read would fail again: a wrong name or missing rights, not an unreachable host."""
    from urllib.error import HTTPError

    if isinstance(error, HTTPError):
        return 400 <= error.code < 500 and error.code not in {408, 429}
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return True
    if isinstance(error, ConnectionError | TimeoutError):
        return False
    if isinstance(error, OSError):
        return bool(_LASTING.search(str(error)))
    return True  # a URI that cannot be parsed, a scheme that nobody knows


def short(error: BaseException) -> str:
    """One line about an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
