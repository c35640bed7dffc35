"""One round for one resource: observe, plan, apply."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mizzen_api import Dataset, ModelService, SearchJob, TrainingJob
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import API_VERSION
from mizzen_operator import trouble
from mizzen_operator.errors import ClusterError, InvalidResource
from mizzen_operator.interfaces import Cluster
from mizzen_operator.metrics import Metrics
from mizzen_operator.observe import Observer
from mizzen_operator.observed import Observed
from mizzen_operator.plan import Event, Key, Memory, Plan, Ref, Resource
from mizzen_operator.planners import dataset, modelservice, searchjob, trainingjob
from mizzen_operator.planners.conditions import with_condition
from mizzen_operator.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gone:
    """The resource does not exist any more."""


@dataclass(frozen=True)
class Done:
    """Everything is as planned; look again after so many seconds, or at the next change."""

    look_again: float | None


def plan_for(resource: Resource, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """The planner of the resource's kind."""
    match resource:
        case Dataset():
            return dataset.plan(resource, observed, now, settings)
        case SearchJob():
            return searchjob.plan(resource, observed, now, settings)
        case TrainingJob():
            return trainingjob.plan(resource, observed, now, settings)
        case ModelService():
            return modelservice.plan(resource, observed, now, settings)


def utc_now() -> datetime:
    """In whole seconds, as the Kubernetes API keeps time."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass
class Reconciler:
    """Raises when a round could not be completed, and the loop tries again. What is not the cluster's fault, the
    resource tells as well: who only has kubectl must not wait for a status that never comes."""

    cluster: Cluster
    observer: Observer
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], datetime] = utc_now
    _memory: dict[Key, Memory] = field(default_factory=dict)
    _troubles: dict[Key, trouble.Told] = field(default_factory=dict)

    async def reconcile(self, key: Key) -> Gone | Done:
        with self.metrics.seconds.labels(key.kind).time():
            try:
                done = await self._round(key)
            except ClusterError:
                raise
            except InvalidResource as error:
                _log.warning("%s: %s", key, error)
                await self._tell_trouble(key, error.reason, str(error))
                return Done(None)  # nothing gets better before the resource, or the one that it names, changes
            except Exception as error:
                await self._tell_trouble(key, Reason.INTERNAL_ERROR, trouble.internal(key, error))
                raise
        self._troubles.pop(key, None)
        return done

    async def _round(self, key: Key) -> Gone | Done:
        resource = await self.observer.resource(key)
        if resource is None:
            self._memory.pop(key, None)
            return Gone()
        observed = await self.observer.observe(resource, self._memory.get(key, {}))
        plan = plan_for(resource, observed, self.clock(), self.settings)
        self._memory[key] = plan.memory
        await self._carry_out(resource, plan)
        return Done(plan.look_again)

    async def _carry_out(self, resource: Resource, plan: Plan) -> None:
        """Children before the status: a status never tells of what has not been asked for."""
        about = Ref(resource.api_version, resource.kind, resource.metadata.namespace, resource.metadata.name,
                    resource.metadata.uid)  # fmt: skip
        if plan.delete_resource:
            await self.cluster.delete(about)
            return
        try:
            await self._change_children(plan)
        except ClusterError as error:
            if error.refused:
                await self._tell_refusal(about, resource, error)
            raise
        if plan.status is not None and plan.status.to_wire() != resource.status.to_wire():
            await self.cluster.apply_status(about, plan.status.to_wire())
        for event in plan.events:
            await self._publish(about, event)

    async def _publish(self, about: Ref, event: Event) -> None:
        _log.info("%s %s/%s: %s: %s", about.kind, about.namespace, about.name, event.reason, event.message)
        try:
            await self.cluster.publish(about, event)
        except ClusterError as error:
            _log.warning("an event for %s %s was lost: %s", about.kind, about.name, error)

    async def _change_children(self, plan: Plan) -> None:
        for ref in plan.delete:
            await self.cluster.delete(ref)
        for manifest in plan.apply:
            await self.cluster.apply(manifest)
        for patch in plan.patch:
            await self.cluster.patch(patch.ref, patch.body)

    async def _tell_trouble(self, key: Key, reason: Reason, message: str) -> None:
        """Once for each generation and trouble, however often the loop tries. Never raises: the trouble is the news."""
        try:
            found = await self.cluster.get(Ref(API_VERSION, key.kind, key.namespace, key.name))
            told = trouble.Told(found["metadata"].get("generation", 0) if found else 0, reason, message)
            if found is None or self._troubles.get(key) == told:
                return
            status = trouble.status(found, told, self.clock())
            if status is not None:
                await self.cluster.apply_status(Ref.of(found), status)
            await self._publish(Ref.of(found), Event("Warning", reason, message))
            self._troubles[key] = told
        except ClusterError as error:
            _log.warning("the status of %s could not be written: %s", key, error)

    async def _tell_refusal(self, about: Ref, resource: Resource, error: ClusterError) -> None:
        """A quota or an admission rule is the user's to see, not only the operator's log's."""
        job = isinstance(resource, SearchJob | TrainingJob)
        message = f"The cluster refuses what this {about.kind} needs, and is asked again: {error}"
        conditions = with_condition(
            resource,
            ConditionType.SUCCEEDED if job else ConditionType.READY,
            "Unknown" if job else "False",
            Reason.PENDING,
            message,
            self.clock(),
        )
        status = resource.status.model_copy(update={"conditions": conditions})
        if status.to_wire() != resource.status.to_wire():
            await self.cluster.apply_status(about, status.to_wire())
