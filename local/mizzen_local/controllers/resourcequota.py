"""ResourceQuota: counts again what is in use when a quota is new and when objects have gone."""

from __future__ import annotations

from mizzen_local import quotas
from mizzen_local.client import ApiError, Client, Object, Resource
from mizzen_local.controllers.catalog import Catalog
from mizzen_local.controllers.informer import Informer, Informers, Worker
from mizzen_local.objects import Key, is_finished_pod, key_of, meta, utc_now
from mizzen_local.quantities import Amounts, amounts, only, texts
from mizzen_local.resources import CLAIMS, PODS, QUOTAS, SERVICES

RESYNC = 300.0  # pods that outlive their grace stop counting without any event


class ResourceQuotaController:
    def __init__(self, client: Client, informers: Informers, catalog: Catalog) -> None:
        self.client, self.catalog = client, catalog
        self.quotas = informers.of(QUOTAS)
        self.worker = Worker[Key]("resourcequota", self.reconcile)
        self.quotas.on_change(self._quota_changed)
        catalog.on_kind(self._watch)

    def _quota_changed(self, quota: Object) -> None:
        """Admission writes the status, too; only what it cannot know needs a count."""
        status = quota.get("status") or {}
        if status.get("hard") != quota["spec"].get("hard") or "used" not in status:
            self.worker.queue.add(key_of(quota))
        else:
            self.worker.queue.add_after(key_of(quota), RESYNC)

    def _watch(self, resource: Resource, informer: Informer) -> None:
        bucket = f"{resource.group}/{resource.plural}"

        def gone(obj: Object) -> None:
            self._replenish(bucket, meta(obj).get("namespace") or "")

        def changed(obj: Object) -> None:
            if resource in (SERVICES, CLAIMS) or (resource == PODS and is_finished_pod(obj)):
                gone(obj)

        informer.on_change(changed, deleted=gone)

    def _replenish(self, bucket: str, namespace: str) -> None:
        for (home, name), quota in self.quotas.cache.items():
            if home == namespace and any(quotas.counts(bucket, item) for item in quota["spec"].get("hard") or {}):
                self.worker.queue.add((home, name))

    async def reconcile(self, key: Key) -> float | None:
        """The quota is read before what it counts: an object created in between has changed it, and the write fails."""
        try:
            quota = await self.client.get(QUOTAS, key[1], key[0])
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        hard = amounts(quota["spec"].get("hard"))
        status = quota.get("status") or {}
        before = amounts(status.get("used"))
        used = {**only(before, hard), **await self._count(quota)}
        if status.get("hard") != texts(hard) or "used" not in status or before != used:
            body = {**quota, "status": {"hard": texts(hard), "used": texts(used)}}
            self.quotas.observe(await self.client.update(QUOTAS, body, key[0], subresource="status"))
        return RESYNC

    async def _count(self, quota: Object) -> Amounts:
        found: Amounts = {}
        for bucket in sorted({quotas.resource_counted(name) or "" for name in quota["spec"].get("hard") or {}}):
            group, _, plural = bucket.partition("/")
            for resource in self.catalog.namespaced():
                if (resource.group, resource.plural) == (group, plural):
                    listed = await self.client.list(resource, meta(quota)["namespace"])
                    found.update(quotas.used(quota, bucket, listed["items"], utc_now()))
        return found
