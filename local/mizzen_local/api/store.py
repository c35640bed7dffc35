"""Where acknowledged writes live: SQLite below, every object in memory above, and the recent past for watches.

A write is committed before it is visible to anybody, so killing the process loses nothing that a client has seen. The
journal is not flushed to the platter on each commit: a power cut may lose the last moments, never the consistency.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from mizzen_local.client import ApiError, Object

_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
WINDOW = 8192  # events that each resource keeps for watches that resume


class Entry:
    """One stored object. The object is never changed in place: an update stores a new entry."""

    __slots__ = ("_raw", "obj", "rv")

    def __init__(self, obj: Object, rv: int, raw: bytes | None = None) -> None:
        self.obj, self.rv, self._raw = obj, rv, raw

    @property
    def raw(self) -> bytes:
        if self._raw is None:
            self._raw = orjson.dumps(self.obj)
        return self._raw


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one object; `before` is missing for a creation."""

    rv: int
    type: str  # ADDED, MODIFIED, DELETED
    entry: Entry
    before: Entry | None


class Bucket:
    """All objects of one resource, by namespace (empty for cluster-scoped) and name, with their recent events."""

    __slots__ = ("floor", "items", "listeners", "rv", "window")

    def __init__(self, floor: int) -> None:
        self.items: dict[str, dict[str, Entry]] = {}
        self.window: deque[Event] = deque()
        self.floor = floor  # every event after this resource version is still in the window
        self.rv = floor
        self.listeners: dict[int, Callable[[Event], None]] = {}

    def record(self, event: Event) -> None:
        self.rv = event.rv
        self.window.append(event)
        if len(self.window) > WINDOW:
            self.floor = self.window.popleft().rv
        for listener in list(self.listeners.values()):
            listener(event)


class Store:
    """A versioned key-value store of Kubernetes objects. Not thread-safe: the event loop is the only caller."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA busy_timeout=2000")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS objects (bucket TEXT, namespace TEXT, name TEXT, rv INTEGER, data BLOB,"
            " PRIMARY KEY (bucket, namespace, name)) WITHOUT ROWID"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS versions (bucket TEXT PRIMARY KEY, rv INTEGER)")
        self._buckets: dict[str, Bucket] = {}
        versions: dict[str, int] = dict(
            # a removal leaves no row behind that would tell its version, so it writes one to `versions`
            self._db.execute(
                "SELECT bucket, MAX(rv) FROM (SELECT bucket, rv FROM objects UNION ALL SELECT bucket, rv FROM versions)"
                " GROUP BY bucket"
            )
        )
        self.rv: int = max([1, *versions.values()])
        # a watch may resume from before the restart as long as nothing of its resource changed since
        for name, rv in versions.items():
            self._buckets[name] = Bucket(rv)
        for name, namespace, key, rv, data in self._db.execute(
            "SELECT bucket, namespace, name, rv, data FROM objects ORDER BY bucket, namespace, name"
        ):
            self.bucket(name).items.setdefault(namespace, {})[key] = Entry(orjson.loads(data), rv, data)
        self._tokens = 0

    def close(self) -> None:
        self._db.close()

    def bucket(self, name: str) -> Bucket:
        found = self._buckets.get(name)
        if found is None:
            found = self._buckets[name] = Bucket(0)
        return found

    def begin(self, name: str) -> None:
        """A resource's history begins now, unless it has one."""
        found = self.bucket(name)
        if not found.rv:
            found.floor = found.rv = self.rv

    def get(self, bucket: str, namespace: str, name: str) -> Entry | None:
        items = self.bucket(bucket).items.get(namespace)
        return items.get(name) if items else None

    def entries(self, bucket: str, namespace: str | None = None) -> Iterator[Entry]:
        """Every entry of a resource, or of one namespace, ordered by namespace and name."""
        spaces = self.bucket(bucket).items
        for space in sorted(spaces) if namespace is None else [namespace]:
            items = spaces.get(space)
            if items:
                for name in sorted(items):
                    yield items[name]

    def put(self, bucket: str, namespace: str, name: str, obj: Object) -> Entry:
        """Commit a new version of the object; the resource version is written into its metadata."""
        rv = self.rv + 1
        obj["metadata"]["resourceVersion"] = str(rv)
        raw = orjson.dumps(obj)
        try:  # one statement is one transaction
            self._db.execute("INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?)", (bucket, namespace, name, rv, raw))
        except sqlite3.OperationalError as error:
            raise self._explained(error) from error
        self.rv = rv
        entry = Entry(obj, rv, raw)
        home = self.bucket(bucket)
        space = home.items.setdefault(namespace, {})
        before = space.get(name)
        space[name] = entry
        home.record(Event(rv, "ADDED" if before is None else "MODIFIED", entry, before))
        return entry

    def remove(self, bucket: str, namespace: str, name: str, obj: Object | None = None) -> Entry:
        """Commit the removal; the returned entry is the object's last state (`obj`, if the same write changed it)."""
        home = self.bucket(bucket)
        before = home.items[namespace][name]
        rv = self.rv + 1
        self._delete(bucket, namespace, name, rv)
        del home.items[namespace][name]
        if not home.items[namespace]:
            del home.items[namespace]
        last = before.obj if obj is None else obj
        entry = Entry({**last, "metadata": {**last["metadata"], "resourceVersion": str(rv)}}, rv)
        home.record(Event(rv, "DELETED", entry, before))
        return entry

    def _delete(self, bucket: str, namespace: str, name: str, rv: int) -> None:
        db = self._db
        db.execute("BEGIN")
        try:
            db.execute("DELETE FROM objects WHERE bucket=? AND namespace=? AND name=?", (bucket, namespace, name))
            db.execute("INSERT OR REPLACE INTO versions VALUES (?,?)", (bucket, rv))
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:  # a full disk has rolled back already
                db.execute("ROLLBACK")
            raise (self._explained(error) if isinstance(error, sqlite3.OperationalError) else error) from None
        self.rv = rv

    def _explained(self, error: sqlite3.OperationalError) -> Exception:
        """A full disk is its owner's to mend; nothing was written, and reads go on."""
        if error.sqlite_errorcode not in _FULL:
            return error
        text = f"the disk of {self._path.parent} is full: free some space, then try again"
        return ApiError(507, "InsufficientStorage", text)

    def listen(self, bucket: str, listener: Callable[[Event], None]) -> int:
        self._tokens += 1
        self.bucket(bucket).listeners[self._tokens] = listener
        return self._tokens

    def unlisten(self, bucket: str, token: int) -> None:
        self.bucket(bucket).listeners.pop(token, None)

    def since(self, bucket: str, rv: int) -> list[Event] | None:
        """The events after `rv`, or None where they are no longer kept."""
        home = self.bucket(bucket)
        if rv < home.floor:
            return None
        found = []
        for event in reversed(home.window):
            if event.rv <= rv:
                break
            found.append(event)
        found.reverse()
        return found
