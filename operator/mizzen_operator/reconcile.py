"""One round for one resource: observe, plan, apply."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mizzen_api import Dataset, ModelService, SearchJob, TrainingJob
from mizzen_api.conditions import ConditionType, Reason
from mizzen_operator.errors import ClusterError
from mizzen_operator.interfaces import Cluster
from mizzen_operator.metrics import Metrics
from mizzen_operator.observe import Observer
from mizzen_operator.observed import Observed
from mizzen_operator.plan import Key, Memory, Plan, Ref, Resource
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
    """Raises ClusterError when a round could not be completed; the loop tries again."""

    cluster: Cluster
    observer: Observer
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], datetime] = utc_now
    _memory: dict[Key, Memory] = field(default_factory=dict)

    async def reconcile(self, key: Key) -> Gone | Done:
        with self.metrics.seconds.labels(key.kind).time():
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
