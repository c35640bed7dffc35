"""Garbage collector: deletes what has lost its owners, and finishes foreground and orphaning deletions."""

from __future__ import annotations

from mizzen_local.client import ApiError, Client, Object, Resource
from mizzen_local.controllers.catalog import Catalog
from mizzen_local.controllers.informer import Informer, Worker
from mizzen_local.objects import meta

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
Item = tuple[Resource, str, str]  # resource, namespace, name


def references(obj: Object) -> list[Object]:
    return meta(obj).get("ownerReferences") or []


def in_foreground(obj: Object) -> bool:
    return bool(meta(obj).get("deletionTimestamp")) and FOREGROUND in (meta(obj).get("finalizers") or [])


class GarbageCollector:
    def __init__(self, client: Client, catalog: Catalog) -> None:
        self.client, self.catalog = client, catalog
        self.worker = Worker[Item]("garbage-collector", self.reconcile, workers=4)
        self._alive: set[str] = set()
        self._dependents: dict[str, dict[Item, Object]] = {}  # owner's uid → what names it as owner
        self._owners: dict[Item, set[str]] = {}
        catalog.on_kind(self._watch)

    def _watch(self, resource: Resource, informer: Informer) -> None:
        informer.on_change(lambda obj: self._changed(resource, obj), deleted=lambda obj: self._deleted(resource, obj))

    def _changed(self, resource: Resource, obj: Object) -> None:
        item = _item(resource, obj)
        self._alive.add(meta(obj)["uid"])
        owners = {reference["uid"] for reference in references(obj)}
        for uid in self._owners.get(item, set()) - owners:
            self._dependents.get(uid, {}).pop(item, None)
        for uid in owners:
            self._dependents.setdefault(uid, {})[item] = obj
        if owners:
            self._owners[item] = owners
        else:
            self._owners.pop(item, None)
        finalizers = meta(obj).get("finalizers") or []
        deleting = meta(obj).get("deletionTimestamp") and (FOREGROUND in finalizers or ORPHAN in finalizers)
        if owners or deleting:
            self.worker.queue.add(item)

    def _deleted(self, resource: Resource, obj: Object) -> None:
        item, uid = _item(resource, obj), meta(obj)["uid"]
        self._alive.discard(uid)
        for owner in self._owners.pop(item, set()):
            dependents = self._dependents.get(owner)
            if dependents is not None:
                dependents.pop(item, None)
                if not dependents:
                    del self._dependents[owner]
            for waiting in self._waiting_owners(owner, obj):
                self.worker.queue.add(waiting)
        for dependent in list(self._dependents.get(uid, {})):
            self.worker.queue.add(dependent)

    def _waiting_owners(self, uid: str, dependent: Object) -> list[Item]:
        """An owner deleted in the foreground looks again when one of its dependents has gone."""
        for reference in references(dependent):
            found = self.catalog.find(reference["apiVersion"], reference["kind"])
            if reference["uid"] == uid and found:
                return [(found[0], meta(dependent).get("namespace") or "" if found[1] else "", reference["name"])]
        return []

    async def reconcile(self, item: Item) -> float | None:
        resource, namespace, name = item
        obj = self.catalog.informers.of(resource).get((namespace, name)) if resource in self.catalog.kinds else None
        if obj is None:
            return None
        finalizers = meta(obj).get("finalizers") or []
        if meta(obj).get("deletionTimestamp"):
            if ORPHAN in finalizers:
                await self._orphan(item, obj)
            elif FOREGROUND in finalizers:
                await self._foreground(item, obj)
            return None
        await self._check_owners(item, obj)
        return None

    async def _check_owners(self, item: Item, obj: Object) -> None:
        """Delete it when every owner is gone; forget the owners that are gone while others remain."""
        solid, waiting, gone = [], [], []
        for reference in references(obj):
            owner = await self._owner(reference, meta(obj).get("namespace") or "")
            if owner is None:
                gone.append(reference)
            elif in_foreground(owner):
                waiting.append(reference)
            else:
                solid.append(reference)
        if solid:
            if gone or waiting:
                await self._patch(item, obj, {"ownerReferences": solid})
            return
        if gone or waiting:
            policy = "Foreground" if waiting and self._dependents.get(meta(obj)["uid"]) else "Background"
            await self._delete(item, obj, policy)

    async def _owner(self, reference: Object, namespace: str) -> Object | None:
        """The owner as it is, None when it is gone; a kind that we do not know counts as there."""
        found = self.catalog.find(reference["apiVersion"], reference["kind"])
        if found is None:
            return {"metadata": {}}
        resource, inside = found
        key = (namespace if inside else "", reference["name"])
        cached = self.catalog.informers.of(resource).get(key)
        if cached is not None and meta(cached)["uid"] == reference["uid"]:
            return cached
        if reference["uid"] in self._alive:
            return {"metadata": {}}
        try:
            owner = await self.client.get(resource, reference["name"], namespace if inside else None)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return owner if meta(owner)["uid"] == reference["uid"] else None

    async def _foreground(self, item: Item, owner: Object) -> None:
        dependents = self._dependents.get(meta(owner)["uid"], {})
        blocking = 0
        for dependent, obj in list(dependents.items()):
            for reference in references(obj):
                blocking += reference["uid"] == meta(owner)["uid"] and bool(reference.get("blockOwnerDeletion"))
            if not meta(obj).get("deletionTimestamp"):
                self.worker.queue.add(dependent)
        if not blocking:
            await self._drop_finalizer(item, owner, FOREGROUND)

    async def _orphan(self, item: Item, owner: Object) -> None:
        uid = meta(owner)["uid"]
        for dependent, obj in list(self._dependents.get(uid, {}).items()):
            rest = [reference for reference in references(obj) if reference["uid"] != uid]
            await self._patch(dependent, obj, {"ownerReferences": rest or None})
        await self._drop_finalizer(item, owner, ORPHAN)

    async def _drop_finalizer(self, item: Item, obj: Object, finalizer: str) -> None:
        rest = [f for f in meta(obj).get("finalizers") or [] if f != finalizer]
        version = meta(obj)["resourceVersion"]
        await self._patch(item, obj, {"finalizers": rest or None, "resourceVersion": version})

    async def _patch(self, item: Item, obj: Object, metadata: Object) -> None:
        resource, namespace, name = item
        patch = {"metadata": {"uid": meta(obj)["uid"], **metadata}}
        try:
            await self.client.patch(resource, name, patch, namespace or None)
        except ApiError as error:
            if error.code != 404:
                raise

    async def _delete(self, item: Item, obj: Object, policy: str) -> None:
        resource, namespace, name = item
        try:
            await self.client.delete(resource, name, namespace or None, propagation_policy=policy, uid=meta(obj)["uid"])
        except ApiError as error:
            if error.code not in (404, 409):
                raise


def _item(resource: Resource, obj: Object) -> Item:
    return resource, meta(obj).get("namespace") or "", meta(obj)["name"]
