"""HorizontalPodAutoscaler: between what pods use and a scale; applies what `autoscaleplan` decides, again and again."""

from __future__ import annotations

from mizzen_local.client import ApiError, Client, Object, Resource
from mizzen_local.controllers import autoscaleplan
from mizzen_local.controllers.autoscaleplan import Observed, Plan
from mizzen_local.controllers.catalog import Catalog
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.controllers.scalinglimits import History
from mizzen_local.objects import Key, key_of, meta, utc_now
from mizzen_local.recorder import Recorder
from mizzen_local.resources import AUTOSCALERS, POD_METRICS, PODS

SYNC_PERIOD = 15.0  # seconds between two looks, as kube-controller-manager's default
_RETRIES = 5


class AutoscalerController:
    def __init__(self, client: Client, informers: Informers, catalog: Catalog, period: float = SYNC_PERIOD) -> None:
        self.client, self.catalog, self.period = client, catalog, period
        self.recorder = Recorder(client, "horizontal-pod-autoscaler")
        self.autoscalers = informers.of(AUTOSCALERS)
        self.worker = Worker[Key]("autoscaler", self.reconcile)
        self._specs: dict[Key, Object] = {}
        self._histories: dict[Key, History] = {}
        self._selectors: dict[Key, str] = {}
        self.autoscalers.on_change(self._changed, deleted=self._forget)

    def _changed(self, autoscaler: Object) -> None:
        """Its own status is no reason to look again: the period is."""
        key = key_of(autoscaler)
        if self._specs.get(key) != autoscaler["spec"]:
            self._specs[key] = autoscaler["spec"]
            self.worker.queue.add(key)

    def _forget(self, autoscaler: Object) -> None:
        for known in (self._specs, self._histories, self._selectors):
            known.pop(key_of(autoscaler), None)

    async def reconcile(self, key: Key) -> float | None:
        autoscaler = self.autoscalers.get(key)
        if autoscaler is None:
            return None
        try:
            await self._look(key, autoscaler)
        except ApiError as error:
            if error.code not in (404, 409):
                self._say(autoscaler, "Warning", "FailedUpdateStatus", str(error))
        return self.period

    async def _look(self, key: Key, autoscaler: Object) -> None:
        target = autoscaler["spec"]["scaleTargetRef"]
        try:
            resource = self._resource(target)
            scale = await self.client.get(resource, target["name"], key[0], subresource="scale")
        except ApiError as error:
            self._say(autoscaler, "Warning", "FailedGetScale", str(error))
            await self._write(autoscaler, autoscaleplan.without_scale(autoscaler, str(error), utc_now()))
            return
        observed = await self._observe(key, autoscaler, scale)
        decided = autoscaleplan.plan(autoscaler, observed, self._histories.get(key, History()), utc_now())
        self._histories[key] = decided.history
        for type_, reason, message in decided.events:
            self._say(autoscaler, type_, reason, message)
        if decided.replicas is None:
            await self._write(autoscaler, decided.status)
        else:
            await self._rescale(key, autoscaler, resource, scale, decided)

    def _resource(self, target: Object) -> Resource:
        """The target's resource. Raises ApiError in the words of a REST mapper."""
        found = self.catalog.find(target.get("apiVersion") or "v1", target["kind"])
        if found is None:
            group = (target.get("apiVersion") or "").rpartition("/")[0]
            raise ApiError(404, "NotFound", f'no matches for kind "{target["kind"]}" in group "{group}"')
        return found[0]

    async def _observe(self, key: Key, autoscaler: Object, scale: Object) -> Observed:
        selector = (scale.get("status") or {}).get("selector") or ""
        if not selector:
            told = "the HPA target's scale is missing a selector"
            return Observed(scale, selector=("SelectorRequired", "selector is required", told))
        self._selectors[key] = selector
        pods = (await self.client.list(PODS, key[0], label_selector=selector))["items"]
        rivals = await self._rivals(key, selector) if pods else []
        if rivals:
            listed = " ".join("{" + f"{name} {namespace}" + "}" for namespace, name in sorted([key, *rivals]))
            message = f"pods by selector {selector} are controlled by multiple HPAs: [{listed}]"
            return Observed(scale, pods, selector=("AmbiguousSelector", message, message))
        return Observed(scale, pods, await self._usage(key, autoscaler, selector))

    async def _rivals(self, key: Key, selector: str) -> list[Key]:
        """Other autoscalers of the namespace that select some of the same pods."""
        found = []
        for other, theirs in list(self._selectors.items()):
            if other != key and other[0] == key[0]:
                both = await self.client.list(PODS, key[0], label_selector=f"{selector},{theirs}")
                found += [other] if both["items"] else []
        return found

    async def _usage(self, key: Key, autoscaler: Object, selector: str) -> list[Object] | str:
        if all("esource" not in metric["type"] for metric in autoscaler["spec"].get("metrics") or []):
            return []
        try:
            items: list[Object] = (await self.client.list(POD_METRICS, key[0], label_selector=selector))["items"]
        except ApiError as error:
            return f"{error} (get pods.metrics.k8s.io)"
        return items

    async def _rescale(self, key: Key, autoscaler: Object, resource: Resource, scale: Object, plan: Plan) -> None:
        current = (scale.get("spec") or {}).get("replicas", 0)
        try:
            await self._write_scale(key, resource, scale, plan.replicas or 0)
        except ApiError as error:
            message = f"New size: {plan.replicas}; reason: {plan.reason}; error: {error}"
            self._say(autoscaler, "Warning", "FailedRescale", message)
            await self._write(autoscaler, autoscaleplan.rescaled(plan, utc_now(), str(error)))
            return
        self._say(autoscaler, "Normal", "SuccessfulRescale", f"New size: {plan.replicas}; reason: {plan.reason}")
        behavior = autoscaler["spec"].get("behavior")
        self._histories[key] = plan.history.changed(behavior, current, plan.replicas or 0, utc_now())
        await self._write(autoscaler, autoscaleplan.rescaled(plan, utc_now()))

    async def _write_scale(self, key: Key, resource: Resource, scale: Object, replicas: int) -> None:
        for attempt in range(_RETRIES):
            try:
                body = {**scale, "spec": {"replicas": replicas}}
                await self.client.update(resource, body, key[0], subresource="scale")
                return
            except ApiError as error:
                if error.code != 409 or attempt == _RETRIES - 1:
                    raise
                scale = await self.client.get(resource, meta(scale)["name"], key[0], subresource="scale")

    async def _write(self, autoscaler: Object, status: Object) -> None:
        if status != (autoscaler.get("status") or {}):
            body = {**autoscaler, "status": status}
            namespace = meta(autoscaler)["namespace"]
            self.autoscalers.observe(await self.client.update(AUTOSCALERS, body, namespace, subresource="status"))

    def _say(self, autoscaler: Object, type_: str, reason: str, message: str) -> None:
        self.recorder.event(
            autoscaler,
            "HorizontalPodAutoscaler",
            reason,
            message,
            api_version="autoscaling/v2",
            type=type_,  # type: ignore[arg-type]
        )
