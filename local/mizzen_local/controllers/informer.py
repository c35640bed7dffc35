"""The machinery under every controller: a cache kept by list and watch, a queue of keys, and workers with back-off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from mizzen_local.client import ApiError, Client, Object, Resource
from mizzen_local.objects import Key, key_of

Handler = Callable[[Object], None]
K = TypeVar("K", bound=Hashable)

_log = logging.getLogger(__name__)
_RETRY_BASE, _RETRY_MAX = 0.05, 15.0


class Informer:
    """A cache of one resource. Handlers get each object that was added, changed or deleted, without waiting.

    A controller that writes calls `observe` with the answer, so that its next look at the cache sees its own write.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self.client, self.resource, self.namespace = client, resource, namespace
        self._selectors = {"label_selector": label_selector, "field_selector": field_selector}
        self.cache: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self._handlers: list[Handler] = []
        self._delete_handlers: list[Handler] = []
        self._gone: set[str] = set()  # uids that we deleted: a late MODIFIED must not bring them back

    def on_change(self, handler: Handler, deleted: Handler | None = None) -> None:
        """`deleted` is told of deletions instead of `handler`; objects already cached are told at once."""
        self._handlers.append(handler)
        self._delete_handlers.append(deleted or handler)
        for obj in list(self.cache.values()):
            handler(obj)

    def get(self, key: Key) -> Object | None:
        return self.cache.get(key)

    def in_namespace(self, namespace: str) -> list[Object]:
        return [obj for (ns, _), obj in self.cache.items() if ns == namespace]

    def observe(self, obj: Object) -> None:
        """Take in the answer to our own write, if it is newer than what the watch has brought."""
        if "metadata" in obj and not self._stale(obj):
            self._put(obj)

    def forget(self, obj: Object) -> None:
        """We deleted this object for good."""
        self._gone.add(obj["metadata"].get("uid", ""))
        self._remove(obj)

    async def run(self) -> None:
        """List and watch for ever; an API server that is away is waited for."""
        delay = _RETRY_BASE
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    self.synced.set()
                async for event in self.client.watch(
                    self.resource, self.namespace, resource_version=version, **self._selectors
                ):
                    delay = _RETRY_BASE
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type in ("ADDED", "MODIFIED"):
                        if not self._stale(event.object):
                            self._put(event.object)
                    elif event.type == "DELETED":
                        self._gone.discard(event.object["metadata"].get("uid", ""))
                        self._remove(event.object)
            except ApiError as error:
                if error.code == 404:
                    self.synced.set()  # a server without this kind has nothing to wait for
                if error.code in (410, 404):  # 404: a custom resource whose definition is being removed
                    version = ""
                else:
                    _log.debug("watch of %s: %s", self.resource.plural, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_MAX if error.code == 404 else 2.0)
            except Exception:
                _log.exception("watch of %s", self.resource.plural)
                version = ""
                await asyncio.sleep(2.0)
            else:
                await asyncio.sleep(_RETRY_BASE)

    async def _list(self) -> str:
        listing = await self.client.list(self.resource, self.namespace, **self._selectors)
        found = {key_of(item): item for item in listing.get("items") or []}
        for key, obj in list(self.cache.items()):
            if key not in found:
                self._remove(obj)
        self._gone.clear()
        for key, obj in found.items():
            before = self.cache.get(key)
            if before is None or before["metadata"].get("resourceVersion") != obj["metadata"].get("resourceVersion"):
                self._put(obj)
        return str(listing["metadata"]["resourceVersion"])

    def _stale(self, obj: Object) -> bool:
        if obj["metadata"].get("uid") in self._gone:
            return True
        before = self.cache.get(key_of(obj))
        if before is None or before["metadata"].get("uid") != obj["metadata"].get("uid"):
            return False
        return _version(before) >= _version(obj)

    def _put(self, obj: Object) -> None:
        self.cache[key_of(obj)] = obj
        for handler in self._handlers:
            handler(obj)

    def _remove(self, obj: Object) -> None:
        known = self.cache.get(key_of(obj))
        if known is not None and known["metadata"].get("uid") == obj["metadata"].get("uid"):
            del self.cache[key_of(obj)]
        for handler in self._delete_handlers:
            handler(obj)


def _version(obj: Object) -> int:
    text = obj["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0


class Informers:
    """One shared informer for each resource."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._known: dict[Resource, Informer] = {}
        self._tasks: dict[Resource, asyncio.Task[None]] = {}

    def of(self, resource: Resource) -> Informer:
        if resource not in self._known:
            informer = self._known[resource] = Informer(self.client, resource)
            self._tasks[resource] = asyncio.create_task(informer.run(), name=f"informer {resource.plural}")
        return self._known[resource]

    def drop(self, resource: Resource) -> None:
        if resource in self._known:
            del self._known[resource]
            self._tasks.pop(resource).cancel()

    async def wait_synced(self) -> None:
        for informer in list(self._known.values()):
            await informer.synced.wait()

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


class Queue(Generic[K]):
    """Keys that wait for a worker: each at most once, also while one is being worked on."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def add(self, key: K) -> None:
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Look again then; the soonest of several wins."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(max(seconds, 0.0), self._fire, key)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def take(self) -> K:
        key = await self._ready.get()
        self._waiting.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: K, failed: bool) -> None:
        self._busy.discard(key)
        again = key in self._again
        self._again.discard(key)
        if failed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            self.add_after(key, min(_RETRY_BASE * 2 ** min(count, 12), _RETRY_MAX))
        else:
            self._failures.pop(key, None)
            if again:
                self.add(key)


class Worker(Generic[K]):
    """Runs `reconcile(key)` for queued keys; it answers in how many seconds to look again, or None."""

    def __init__(self, name: str, reconcile: Callable[[K], Awaitable[float | None]], workers: int = 2) -> None:
        self.name, self.queue = name, Queue[K]()
        self._reconcile, self._count = reconcile, workers

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(self._count):
                group.create_task(self._work(), name=f"{self.name} {index}")

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            failed = False
            try:
                look_again = await self._reconcile(key)
                if look_again is not None:
                    self.queue.add_after(key, look_again)
            except ApiError as error:
                failed = True  # conflicts are the everyday case: the next look reads what is true by then
                level = logging.DEBUG if error.code in (404, 409) else logging.WARNING
                _log.log(level, "%s %s: %s", self.name, key, error)
            except Exception:
                failed = True
                _log.exception("%s %s failed", self.name, key)
            finally:
                self.queue.done(key, failed)
