"""What SearchJob and TrainingJob share: a Ray head and its workers, from waiting for inputs to a sticky end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mizzen_api import SearchJob, TrainingJob
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import ROLE_HEAD
from mizzen_api.meta import Status
from mizzen_api.searchjob import SearchJobSpec
from mizzen_api.trainingjob import TrainingJobSpec, TrainingJobStatus
from mizzen_api.workload import Progress, RayCluster, WorkloadConfig
from mizzen_operator import names
from mizzen_operator.children.claim import artifacts_claim
from mizzen_operator.children.configmap import configmap
from mizzen_operator.children.job import head_job, queue_labels, workers_job
from mizzen_operator.children.meta import stable_hash
from mizzen_operator.children.secret import ray_token
from mizzen_operator.children.service import head_service
from mizzen_operator.crew import Crew
from mizzen_operator.observed import Observed
from mizzen_operator.plan import Event, Manifest, Patch, Plan, RayJob, Ref
from mizzen_operator.planners.conditions import Truth, events_of, rfc3339, with_condition
from mizzen_operator.planners.failures import Outcome, outcome
from mizzen_operator.planners.inputs import Inputs, Waiting
from mizzen_operator.planners.news import news
from mizzen_operator.planners.raystate import Scene, state
from mizzen_operator.settings import Settings

PROGRESS_INTERVAL = 3.0


@dataclass(frozen=True)
class RayPlanner:
    """One job at one moment. `absorb` turns the driver's report into fields of the kind's status."""

    job: RayJob
    observed: Observed
    now: datetime
    settings: Settings
    crew: Crew
    inputs: Inputs | Waiting
    absorb: Callable[[Inputs | None, Progress | None], dict[str, Any]]

    def plan(self) -> Plan:
        if self._finished:
            return self._after_the_end()
        head = self.observed.head
        end = outcome(head, self.observed, "runPolicy.backoffLimit") if head else None
        if end is not None:
            return self._ended(end)
        if self.job.spec.run_policy.suspend:
            message = "No pods run: set runPolicy.suspend to false to resume from the newest checkpoint"
            delete = tuple(job.ref for job in self.observed.jobs)
            return self._unknown(Reason.SUSPENDED, message, delete=delete, **self._at_rest())
        if isinstance(self.inputs, Waiting):
            return self._unknown(self.inputs.reason, self.inputs.message, look_again=self.inputs.look_again)
        return self._run(self.inputs)

    # While it runs

    def _run(self, inputs: Inputs) -> Plan:
        wanted = self._config_hash(inputs)
        stale = tuple(job.ref for job in self.observed.jobs if job.config_hash != wanted or job.ended)
        if stale:
            message = "The pods are started anew; the run resumes from the newest checkpoint"
            return self._unknown(Reason.PENDING, message, delete=stale, look_again=PROGRESS_INTERVAL)
        if self.observed.head is None and self._lingering():
            message = "Waiting for the pods of the previous run to end"
            return self._unknown(Reason.PENDING, message, look_again=PROGRESS_INTERVAL)
        reason, message = state(Scene(self.job, self.observed, self.crew, self.now))
        facts = {
            "dataset_fingerprint": inputs.dataset.fingerprint,
            "start_time": self.job.status.start_time or rfc3339(self.now),
            **self._at_rest(),
            **self.absorb(inputs, self.observed.progress),
        }
        return self._unknown(
            reason,
            message,
            apply=self._children(inputs, wanted),
            patch=self._patches(),
            delete=self._to_be_queued_again(),
            look_again=PROGRESS_INTERVAL,
            **facts,
        )

    def _at_rest(self) -> dict[str, Any]:
        """Nobody trains without a head; the status would else go on to tell of those that did."""
        status = self.job.status
        if not isinstance(status, TrainingJobStatus) or status.trainer_status is None:
            return {}
        running = any(pod.phase == "Running" for pod in self.observed.pods_of(ROLE_HEAD))
        if running and not self.job.spec.run_policy.suspend:
            return {}
        return {"trainer_status": status.trainer_status.model_copy(update={"workers": 0})}

    def _lingering(self) -> bool:
        """Pods of deleted Jobs still run: two heads must not write to the same checkpoints."""
        jobs = {job.ref.uid for job in self.observed.jobs}
        return any(pod.job not in jobs and pod.phase in {"Pending", "Running"} for pod in self.observed.pods)

    def _patches(self) -> tuple[Patch, ...]:
        """Of Jobs that exist the run policy and the number of workers may change; everything else starts them anew."""
        head, workers, policy = self.observed.head, self.observed.workers, self.job.spec.run_policy
        found = []
        if head is not None:
            wanted = {"backoffLimit": policy.backoff_limit, "activeDeadlineSeconds": policy.active_deadline_seconds}
            present = {"backoffLimit": head.backoff_limit, "activeDeadlineSeconds": head.deadline}
            changed = {name: value for name, value in wanted.items() if value != present[name]}
            found += [Patch(head.ref, {"spec": changed})] if changed else []
        if workers is not None and not self._queued and workers.parallelism != self.crew.most:
            found.append(Patch(workers.ref, {"spec": {"parallelism": self.crew.most}}))
        return tuple(found)

    def _to_be_queued_again(self) -> tuple[Ref, ...]:
        """In a queue the parallelism is Kueue's, which may have admitted fewer: another number is another request."""
        workers = self.observed.workers
        return (workers.ref,) if workers and self._queued and workers.asked != self.crew.most else ()

    @property
    def _queued(self) -> bool:
        return bool(queue_labels(self.job))

    # Children

    def _config_hash(self, inputs: Inputs) -> str:
        """Over what the pods do. Defaults are left out, so that a new field of the API restarts nothing.

        How many workers there are is not in it: they come and go while the head runs on.
        """
        left_out: dict[str, Any] = {"run_policy": True, "scaling": {"min_workers", "max_workers"}}
        spec = self.job.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=left_out)
        spec = {name: value for name, value in spec.items() if value != {}}
        model = inputs.model.to_wire() if inputs.model else None
        on_top = [part for part in (inputs.code, dict(inputs.uris)) if part]
        return stable_hash([spec, inputs.dataset.fingerprint, model, *on_top])

    def _config(self, inputs: Inputs) -> WorkloadConfig:
        meta = self.job.metadata
        search = isinstance(self.job, SearchJob)
        address = names.head_address(self.job.kind, meta.name, meta.namespace)
        return WorkloadConfig.model_validate(
            {
                "kind": self.job.kind,
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": meta.uid,
                "generation": meta.generation,
                "artifacts_uri": self.settings.artifacts_uri,
                "run_uri": self.settings.run_uri(meta.namespace, self.job.kind, meta.name, meta.uid),
                "mlflow_uri": self.settings.mlflow_uri,
                "search_spec": self.job.spec if search else None,
                "training_spec": None if search else _with_versions(self.job.spec, inputs.uris),
                "dataset": inputs.dataset,
                "model": inputs.model,
                "accelerator": inputs.accelerator,
                "code_fingerprint": inputs.code,
                "resolved_uris": dict(inputs.uris),
                "ray": RayCluster(address=address, workers=self.crew.most),
            }
        )

    def _children(self, inputs: Inputs, config_hash: str) -> tuple[Manifest, ...]:
        """All that can be applied again and again, and of the Jobs and the Secret what is not there yet."""
        job, observed, settings = self.job, self.observed, self.settings
        name = names.config(job.kind, job.metadata.name)
        claim = settings.uses_claim and not observed.has_claim
        return (
            *((artifacts_claim(job.metadata.namespace, settings),) if claim else ()),
            *(() if observed.has_token else (ray_token(job, observed.fresh_token),)),
            configmap(job, name, ROLE_HEAD, self._config(inputs), config_hash),
            head_service(job),
            *(() if observed.head else (head_job(job, self.crew, config_hash, settings),)),
            *(() if observed.workers else (workers_job(job, self.crew, config_hash, settings),)),
        )

    # The end

    @property
    def _finished(self) -> bool:
        succeeded = self.job.status.condition(ConditionType.SUCCEEDED)
        return succeeded is not None and succeeded.status != "Unknown"

    def _ended(self, end: Outcome) -> Plan:
        truth: Truth = "True" if end.succeeded else "False"
        conditions = with_condition(self.job, ConditionType.SUCCEEDED, truth, end.reason, end.message, self.now)
        changes = {
            "conditions": conditions,
            "observed_generation": self.job.metadata.generation,
            "completion_time": rfc3339(self.now),
            **self.absorb(None, end.progress),
        }
        return Plan(
            delete=self._workers(),
            status=self.job.status.model_copy(update=changes),
            events=events_of(self.job, conditions),
            look_again=self._seconds_to_live(self.now),
        )

    def _after_the_end(self) -> Plan:
        """The outcome stays. An edit is answered, and the resource goes when its time to live is over."""
        left = self._seconds_to_live(_moment(self.job.status.completion_time) or self.now)
        if left is not None and left <= 0:
            return Plan(delete_resource=True)
        generation, status = self.job.metadata.generation, self.job.status
        if status.observed_generation == generation or self._edit_is_harmless():
            return Plan(delete=self._workers(), look_again=left)
        message = f"The edit has no effect: this {self.job.kind} has ended. Create another one to run again"
        return Plan(
            delete=self._workers(),
            status=status.model_copy(update={"observed_generation": generation}),
            events=(Event("Warning", Reason.SPEC_CHANGED, message),),
            look_again=left,
        )

    def _edit_is_harmless(self) -> bool:
        """Only the run policy changed, which the pods do not see."""
        config, head = self.observed.config, self.observed.head
        started_with = Inputs.of(config) if config else None
        if started_with is None or head is None:
            return True
        return self._config_hash(started_with) == head.config_hash

    def _workers(self) -> tuple[Ref, ...]:
        """The workers' Job ends with the head. The head's stays: its pods hold the log."""
        workers = self.observed.workers
        return (workers.ref,) if workers else ()

    def _seconds_to_live(self, end: datetime) -> float | None:
        ttl = self.job.spec.run_policy.ttl_seconds_after_finished
        return None if ttl is None else (end + timedelta(seconds=ttl) - self.now).total_seconds()

    def _unknown(
        self,
        reason: Reason,
        message: str,
        *,
        apply: tuple[Manifest, ...] = (),
        patch: tuple[Patch, ...] = (),
        delete: tuple[Ref, ...] = (),
        look_again: float | None = None,
        **changes: Any,
    ) -> Plan:
        conditions = with_condition(self.job, ConditionType.SUCCEEDED, "Unknown", reason, message, self.now)
        changes |= {"conditions": conditions, "observed_generation": self.job.metadata.generation}
        status = self.job.status.model_copy(update=changes)
        return Plan(apply, patch, delete, status, events_of(self.job, conditions) + _news(self.job, status), look_again)


def _with_versions(spec: SearchJobSpec | TrainingJobSpec, uris: Mapping[str, str]) -> SearchJobSpec | TrainingJobSpec:
    """The teacher as the job began with it, whatever its alias means by now."""
    if isinstance(spec, SearchJobSpec) or spec.trainer.distillation is None:
        return spec
    teacher = spec.trainer.distillation
    named = teacher.model_copy(update={"teacher_uri": uris[teacher.teacher_uri]})
    return spec.model_copy(update={"trainer": spec.trainer.model_copy(update={"distillation": named})})


def _news(job: RayJob, status: Status) -> tuple[Event, ...]:
    if isinstance(job, TrainingJob) and isinstance(status, TrainingJobStatus):
        return news(job.status.trainer_status, status.trainer_status)
    return ()


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
