"""The Client in the same process: what the controllers use, through the same machinery as every HTTP request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from mizzen_local.api import eviction, reads, removal, scale, status
from mizzen_local.api.machinery import Machinery, WriteOptions
from mizzen_local.api.metrics import GROUP, Metrics
from mizzen_local.api.reads import Selection
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.removal import DeleteOptions
from mizzen_local.api.store import Entry
from mizzen_local.api.watching import Watch
from mizzen_local.client import Object, PatchType, Resource, WatchEvent


class DirectClient:
    """A cluster administrator without the network. Objects that it returns are copies and may be changed."""

    def __init__(
        self, machinery: Machinery, field_manager: str = "kube-controller-manager", metrics: Metrics | None = None
    ) -> None:
        self.machinery, self.field_manager, self._metrics = machinery, field_manager, metrics

    def _info(self, resource: Resource) -> ResourceInfo:
        found = self.machinery.registry.get(resource.group, resource.version, resource.plural)
        if found is None:
            raise status.no_such_path()
        return found

    def _options(self, manager: str = "", force: bool = False) -> WriteOptions:
        return WriteOptions(manager or self.field_manager, force=force, validation="Ignore")

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        info = self._info(resource)
        if subresource and subresource not in info.subresources:
            raise status.no_such_path()
        if resource.group == GROUP and self._metrics is not None:
            return self._metrics.one(info, namespace or "", name)
        entry = self.machinery.entry(info, namespace or "", name)
        return scale.read(info, entry.obj) if subresource == "scale" else _copy(entry)

    async def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> Object:
        info = self._info(resource)
        selection = Selection(namespace, label_selector, field_selector)
        if resource.group == GROUP and self._metrics is not None:
            return self._metrics.listed(info, selection)
        found = reads.page(self.machinery, info, selection)
        listed: Object = orjson.loads(reads.list_bytes(info, found))
        return listed

    async def create(
        self, resource: Resource, body: Object, namespace: str | None = None, *, name: str = "", subresource: str = ""
    ) -> Object:
        info, body = self._info(resource), orjson.loads(orjson.dumps(body))
        namespace = namespace or (body.get("metadata") or {}).get("namespace") or ""
        if subresource == "binding":
            return removal.bind(self.machinery, info, namespace, name, body)
        if subresource == "eviction":
            return eviction.evict(self.machinery, info, namespace, name, body)
        return _copy(self.machinery.create(info, namespace, body, self._options()))

    async def update(
        self, resource: Resource, body: Object, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        info, body = self._info(resource), orjson.loads(orjson.dumps(body))
        namespace, name = namespace or body["metadata"].get("namespace") or "", body["metadata"]["name"]
        if subresource == "finalize":
            return _copy(removal.finalize_namespace(self.machinery, info, name, body))
        if subresource == "scale":
            return scale.write(self.machinery, info, namespace, name, "", body, self._options())
        return _copy(self.machinery.update(info, namespace, name, body, self._options(), subresource))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        patch_type: PatchType = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object:
        info, options = self._info(resource), self._options(field_manager, force)
        body = orjson.loads(orjson.dumps(patch))
        if subresource == "scale":
            return scale.write(self.machinery, info, namespace or "", name, patch_type, body, options)
        entry, _ = self.machinery.patch(info, namespace or "", name, patch_type, body, options, subresource)
        return _copy(entry)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation_policy: str = "Background",
        grace_period_seconds: int | None = None,
        uid: str | None = None,
    ) -> Object:
        options = DeleteOptions(propagation_policy, grace_period_seconds, uid or "")
        found: Object = orjson.loads(
            orjson.dumps(removal.delete(self.machinery, self._info(resource), namespace or "", name, options))
        )
        return found

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        info = self._info(resource)
        selection = Selection(namespace, label_selector, field_selector)
        with Watch(self.machinery, info, selection, resource_version) as subscription:
            while True:
                changes = await subscription.next()
                if changes is None:
                    raise status.gone("the watcher lagged too far behind")
                for change in changes:
                    if change.entry is not None:
                        yield WatchEvent(change.type, _copy(change.entry))


def _copy(entry: Entry) -> Object:
    found: Object = orjson.loads(entry.raw)
    return found
