"""From a container's log files to what `kubectl logs` prints: the query of the pods/log subresource, following too."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from mizzen_local.objects import parse_time

_FOLLOW_INTERVAL = 0.2  # only while somebody follows


@dataclass(frozen=True)
class LogQuery:
    """What was asked for; `tail` and `since` choose lines, `limit` cuts after so many bytes."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: datetime | None = None
    limit: int | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> LogQuery:
        """Raises ValueError where a number or a time is none."""
        since = None
        if query.get("sinceSeconds"):
            since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
        elif query.get("sinceTime"):
            since = parse_time(query["sinceTime"])
        return cls(
            follow=query.get("follow") == "true",
            previous=query.get("previous") == "true",
            timestamps=query.get("timestamps") == "true",
            tail=int(query["tailLines"]) if query.get("tailLines") else None,
            since=since,
            limit=int(query["limitBytes"]) if query.get("limitBytes") else None,
        )


def log_lines(lines: list[bytes], *, tail: int | None, since: datetime | None, timestamps: bool) -> list[bytes]:
    """From lines of the CRI log to what `kubectl logs` prints; a line that was cut in two is put together again."""
    kept: list[tuple[bytes, bytes]] = []
    partial: list[bytes] = []
    for line in lines:
        stamp, _, rest = line.partition(b" ")
        _, _, rest = rest.partition(b" ")
        tag, _, text = rest.partition(b" ")
        partial.append(text)
        if tag == b"P":
            continue
        kept.append((stamp, b"".join(partial)))
        partial = []
    if partial:
        kept.append((stamp, b"".join(partial)))
    if since is not None:
        kept = [(stamp, text) for stamp, text in kept if parse_time(_to_micros(stamp)) >= since]
    if tail is not None:
        kept = kept[-tail:] if tail else []
    return [(stamp + b" " + text if timestamps else text) + b"\n" for stamp, text in kept]


def _to_micros(stamp: bytes) -> str:
    return stamp.decode()[:26] + "Z"


async def printed(path: Path, query: LogQuery, still: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """What to send for a query, in pieces; ends when `still` says that the log will not grow any more."""
    tail, limit = query.tail, query.limit
    async with contextlib.aclosing(batches(path, still)) as growing:
        async for lines in growing:
            data = b"".join(log_lines(lines, tail=tail, since=query.since, timestamps=query.timestamps))
            tail = None  # counts for what is there at first
            if limit is not None:
                data = data[:limit]
                limit -= len(data)
            yield data
            if limit == 0:
                return


class _Log:
    """A log that grows: it is held open, so that its end can be read when its pod's folder has gone."""

    def __init__(self, path: Path, from_end: bool) -> None:
        self._path, self._rest = path, b""
        self._file: BinaryIO | None = None
        self._open()
        if from_end and self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            fresh = self._path.open("rb")
            self.close()
            self._file = fresh

    def lines(self) -> list[bytes]:
        """The whole lines that came since the last look, over a rotation as well."""
        data = self._rest + (self._file.read() if self._file is not None else b"")
        if self._is_rotated():
            self._open()
            data += self._file.read() if self._file is not None else b""
        whole = data[: data.rfind(b"\n") + 1]
        self._rest = data[len(whole) :]
        return whole.splitlines()

    def _is_rotated(self) -> bool:
        try:
            there = self._path.stat()
        except OSError:
            return False
        return self._file is None or there.st_ino != os.fstat(self._file.fileno()).st_ino

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


async def batches(
    path: Path, still: Callable[[], bool], *, from_end: bool = False
) -> AsyncGenerator[list[bytes], None]:
    """Whole lines of a log that may still grow; the first batch is what is there, and may be empty."""
    rotated = path.with_name("log.1")
    first: list[bytes] | None = [] if from_end or not rotated.exists() else rotated.read_bytes().splitlines()
    log = _Log(path, from_end)
    try:
        while True:
            going = still()
            lines = log.lines()
            if lines or first is not None:
                yield (first or []) + lines
            first = None
            if not going:
                return
            await asyncio.sleep(_FOLLOW_INTERVAL)
    finally:
        log.close()
