"""Watches: a queue for each watcher, fed by the store, read by a stream or by an in-process client."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from mizzen_local.api import status
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.reads import Selection
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.store import Entry, Event

_BACKLOG = 50_000  # events that a slow watcher may lag behind before its stream is ended


@dataclass(frozen=True, slots=True)
class Change:
    """One event as a watcher sees it; a bookmark has no entry."""

    type: str
    entry: Entry | None
    rv: int
    initial_end: bool = False


class Watch:
    """A subscription. Use as a context manager; `next()` waits for a change, None means that it lagged too far."""

    def __init__(
        self,
        machinery: Machinery,
        info: ResourceInfo,
        selection: Selection,
        resource_version: str = "",
        send_initial: bool | None = None,
    ) -> None:
        self._machinery, self._info = machinery, info
        self._namespace = selection.namespace
        self._matches = selection.matcher(info)
        self._queue: deque[Change] = deque()
        self._wake = asyncio.Event()
        self._lagging = False
        store = machinery.store
        fresh = resource_version in ("", "0") or bool(send_initial)
        if fresh:
            if send_initial is not False:
                self._initial(bool(send_initial))
        else:
            try:
                version = int(resource_version)
            except ValueError as error:
                raise status.bad_request(f"Invalid value: {resource_version!r}: invalid resource version") from error
            events = store.since(info.bucket, version)
            if events is None:
                floor = store.bucket(info.bucket).floor
                raise status.gone(f"too old resource version: {version} ({floor})")
            for event in events:
                self._offer(event)
        self._token = store.listen(info.bucket, self._offer)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._machinery.store.unlisten(self._info.bucket, self._token)

    def _initial(self, mark_end: bool) -> None:
        store = self._machinery.store
        for entry in store.entries(self._info.bucket, self._namespace):
            if self._matches is None or self._matches(entry.obj):
                self._queue.append(Change("ADDED", self._machinery.served(self._info, entry), entry.rv))
        if mark_end:
            self._queue.append(Change("BOOKMARK", None, store.rv, True))

    def _offer(self, event: Event) -> None:
        obj = event.entry.obj
        if self._namespace is not None and obj["metadata"].get("namespace", "") != self._namespace:
            return
        kind, entry = event.type, event.entry
        matches = self._matches
        if matches is not None:
            is_in = event.type != "DELETED" and matches(obj)
            was_in = event.before is not None and matches(event.before.obj)
            if not is_in and not was_in:
                return
            # leaving or entering the selection looks like deletion or creation
            kind = "MODIFIED" if is_in and was_in else "ADDED" if is_in else "DELETED"
        if len(self._queue) >= _BACKLOG:
            self._lagging = True
        else:
            self._queue.append(Change(kind, self._machinery.served(self._info, entry), event.rv))
        self._wake.set()

    def ready(self) -> list[Change]:
        """Everything that waits now."""
        changes = list(self._queue)
        self._queue.clear()
        return changes

    async def next(self, timeout: float | None = None) -> list[Change] | None:  # noqa: ASYNC109
        """The next changes; an empty list after the timeout; None when the watcher must list again."""
        if not self._queue and not self._lagging:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                return []
        return None if self._lagging else self.ready()
