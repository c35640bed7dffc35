"""Namespaces: furnishes new ones with a service account and the cluster's CA, and empties those being deleted."""

from __future__ import annotations

from contextlib import suppress

from mizzen_local.client import ApiError, Client, Object, Resource
from mizzen_local.controllers.catalog import Catalog
from mizzen_local.controllers.informer import Worker
from mizzen_local.objects import meta
from mizzen_local.resources import CONFIG_MAPS, EVENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS

ROOT_CA = "kube-root-ca.crt"
_LOOK_AGAIN = 0.5
_HELD = "NamespaceFinalizersRemaining"


class NamespaceController:
    def __init__(self, client: Client, catalog: Catalog, ca: str) -> None:
        self.client, self.catalog, self.ca = client, catalog, ca
        self.namespaces = catalog.informers.of(NAMESPACES)
        self.worker = Worker[str]("namespace", self.reconcile)
        self.namespaces.on_change(lambda ns: self.worker.queue.add(meta(ns)["name"]))
        for resource in (SERVICE_ACCOUNTS, CONFIG_MAPS):
            informer = catalog.informers.of(resource)
            informer.on_change(lambda _: None, deleted=lambda obj: self.worker.queue.add(meta(obj)["namespace"]))

    async def reconcile(self, name: str) -> float | None:
        namespace = self.namespaces.get(("", name))
        if namespace is None:
            return None
        if meta(namespace).get("deletionTimestamp"):
            return await self._empty(namespace)
        await self._furnish(name)
        return None

    async def _furnish(self, name: str) -> None:
        account: Object = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await self._ensure(SERVICE_ACCOUNTS, account, name)
        bundle: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ROOT_CA},
            "data": {"ca.crt": self.ca},
        }
        there = self.catalog.informers.of(CONFIG_MAPS).get((name, ROOT_CA))
        if there is not None and there.get("data") != bundle["data"]:
            await self.client.patch(CONFIG_MAPS, ROOT_CA, {"data": bundle["data"]}, name)
        await self._ensure(CONFIG_MAPS, bundle, name)

    async def _ensure(self, resource: Resource, obj: Object, namespace: str) -> None:
        informer = self.catalog.informers.of(resource)
        await informer.synced.wait()
        if informer.get((namespace, obj["metadata"]["name"])):
            return
        obj["metadata"]["namespace"] = namespace
        try:
            informer.observe(await self.client.create(resource, obj, namespace))
        except ApiError as error:
            if error.code not in (409, 403):  # there already, or the namespace is being deleted meanwhile
                raise

    async def _empty(self, namespace: Object) -> float | None:
        name = meta(namespace)["name"]
        remaining, holders = 0, dict[str, int]()
        for resource in [*self.catalog.namespaced(), EVENTS]:
            if resource not in self.catalog.kinds and resource != EVENTS:
                continue
            try:
                items = (await self.client.list(resource, name)).get("items") or []
            except ApiError as error:
                if error.code == 404:
                    continue
                raise
            for obj in items:
                remaining += resource != EVENTS
                for finalizer in meta(obj).get("finalizers") or []:
                    holders[finalizer] = holders.get(finalizer, 0) + 1
                if meta(obj).get("deletionTimestamp") and resource != PODS:
                    continue
                if not meta(obj).get("deletionTimestamp"):
                    await self._delete(resource, obj)
        if remaining:
            await self._tell(namespace, holders)
            return _LOOK_AGAIN
        body = {**namespace, "spec": {**(namespace.get("spec") or {}), "finalizers": []}}
        try:
            await self.client.update(NAMESPACES, body, subresource="finalize")
        except ApiError as error:
            if error.code != 404:
                raise
        return None

    async def _tell(self, namespace: Object, holders: dict[str, int]) -> None:
        """Say in the namespace's status which finalizers keep its content."""
        conditions = (namespace.get("status") or {}).get("conditions") or []
        before: Object = next((item for item in conditions if item["type"] == _HELD), {})
        listed = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(holders.items()))
        kept = f"Some content in the namespace has finalizers remaining: {listed}"
        message = kept if holders else "All content-preserving finalizers finished"
        if before.get("message") == message or not (holders or before):
            return
        reason = "SomeFinalizersRemain" if holders else "ContentHasNoFinalizers"
        status = {"type": _HELD, "status": str(bool(holders)), "reason": reason, "message": message}
        status["lastTransitionTime"] = before.get("lastTransitionTime") or meta(namespace)["deletionTimestamp"]
        rest = [item for item in conditions if item["type"] != _HELD]
        with suppress(ApiError):  # gone meanwhile
            await self.client.patch(
                NAMESPACES, meta(namespace)["name"], {"status": {"conditions": [*rest, status]}}, subresource="status"
            )

    async def _delete(self, resource: Resource, obj: Object) -> None:
        try:
            await self.client.delete(resource, meta(obj)["name"], meta(obj)["namespace"])
        except ApiError as error:
            if error.code not in (404, 409):
                raise
