"""From a container's log files to what `kubectl logs` prints: the query of the pods/log subresource, following too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

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


async def printed(path: Path, query: LogQuery, still: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What to send for a query, in pieces; ends when `still` says that the log will not grow any more."""
    tail, limit = query.tail, query.limit
    async for lines in batches(path, still):
        data = b"".join(log_lines(lines, tail=tail, since=query.since, timestamps=query.timestamps))
        tail = None  # counts for what is there at first
        if limit is not None:
            data = data[:limit]
            limit -= len(data)
        yield data
        if limit == 0:
            return


async def batches(path: Path, still: Callable[[], bool], *, from_end: bool = False) -> AsyncIterator[list[bytes]]:
    """Whole lines of a log that may still grow, and that may be rotated meanwhile; the first batch may be empty."""
    rotated = path.with_name("log.1")
    first: list[bytes] | None = [] if from_end or not rotated.exists() else rotated.read_bytes().splitlines()
    position = path.stat().st_size if from_end and path.exists() else 0  # noqa: ASYNC240
    while True:
        going = still()
        try:
            if path.stat().st_size < position:  # noqa: ASYNC240
                position = 0
            with path.open("rb") as file:
                file.seek(position)
                data = file.read()
        except OSError:
            data = b""
        whole = data[: data.rfind(b"\n") + 1]
        position += len(whole)
        if whole or first is not None:
            yield (first or []) + whole.splitlines()
        first = None
        if not going:
            return
        await asyncio.sleep(_FOLLOW_INTERVAL)
