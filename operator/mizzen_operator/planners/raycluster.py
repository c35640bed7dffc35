"""What SearchJob and TrainingJob share: a Ray head and its workers, from waiting for inputs to a sticky end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mizzen_api import Dataset
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import ROLE_HEAD, ROLE_WORKERS
from mizzen_api.meta import Resources
from mizzen_api.workload import Progress, RayCluster, ResolvedDataset, ResolvedModel, WorkloadConfig
from mizzen_operator import names
from mizzen_operator.children.claim import artifacts_claim
from mizzen_operator.children.configmap import configmap
from mizzen_operator.children.job import head_job, workers_job
from mizzen_operator.children.meta import stable_hash
from mizzen_operator.children.secret import ray_token
from mizzen_operator.children.service import head_service
from mizzen_operator.observed import Observed, PodView
from mizzen_operator.plan import Event, Manifest, Patch, Plan, RayJob, Ref
from mizzen_operator.planners.conditions import Truth, events_of, rfc3339, with_condition
from mizzen_operator.planners.failures import Outcome, last_words, outcome, stuck
from mizzen_operator.settings import Settings

PROGRESS_INTERVAL = 3.0


@dataclass(frozen=True)
class Waiting:
    """An input is not there yet."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Inputs:
    """What the job runs on. Fixed at its start: later versions of the Dataset do not change it."""

    dataset: ResolvedDataset
    model: ResolvedModel | None = None


@dataclass(frozen=True)
class Crew:
    """The workers."""

    most: int
    least: int
    resources: Resources


@dataclass(frozen=True)
class RayPlanner:
    """One job at one moment. `absorb` turns the driver's report into fields of the kind's status."""

    job: RayJob
    observed: Observed
    now: datetime
    settings: Settings
    crew: Crew
    inputs: Inputs | Waiting
    absorb: Callable[[Progress | None], dict[str, Any]]

    def plan(self) -> Plan:
        if self._finished:
            return self._after_the_end()
        head = self.observed.head
        end = outcome(head, self.observed, "runPolicy.backoffLimit") if head else None
        if end is not None:
            return self._ended(end)
        if self.job.spec.run_policy.suspend:
            message = "No pods run: set runPolicy.suspend to false to resume from the newest checkpoint"
            return self._unknown(Reason.SUSPENDED, message, delete=tuple(job.ref for job in self.observed.jobs))
        if isinstance(self.inputs, Waiting):
            return self._unknown(self.inputs.reason, self.inputs.message)
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
        reason, message = self._first_that_applies()
        facts = {
            "dataset_fingerprint": inputs.dataset.fingerprint,
            "start_time": self.job.status.start_time or rfc3339(self.now),
            **self.absorb(self.observed.progress),
        }
        return self._unknown(
            reason,
            message,
            apply=self._children(inputs, wanted),
            patch=self._policy_patch(),
            look_again=PROGRESS_INTERVAL,
            **facts,
        )

    def _first_that_applies(self) -> tuple[Reason, str]:
        """The most telling of what can be said about a job that has not ended."""
        rules = (
            self._being_created,
            self._head_stuck,
            self._workers_missing,
            self._head_failed_before,
            self._head_starting,
            self._running,
        )
        return next(said for said in (rule() for rule in rules) if said is not None)

    def _being_created(self) -> tuple[Reason, str] | None:
        return None if self.observed.head else (Reason.PENDING, "The pods are being created")

    def _head_stuck(self) -> tuple[Reason, str] | None:
        why = stuck(self._current(ROLE_HEAD))
        return (Reason.PENDING, f"The head waits: {why}") if why else None

    def _workers_missing(self) -> tuple[Reason, str] | None:
        workers = self._current(ROLE_WORKERS)
        placed = sum(pod.scheduled and pod.phase in {"Pending", "Running"} for pod in workers)
        why = stuck(workers)
        if placed >= self.crew.least or not why:
            return None
        return Reason.WORKERS_PENDING, f"{placed} of at least {self.crew.least} workers have a place: {why}"

    def _head_failed_before(self) -> tuple[Reason, str] | None:
        failed = [pod for pod in self._current(ROLE_HEAD) if pod.phase == "Failed"]
        if not failed or self.observed.progress is not None:
            return None
        limit = self.job.spec.run_policy.backoff_limit
        return Reason.RUNNING, f"Attempt {len(failed) + 1} of {limit + 1}; the last failed: {last_words(failed[-1])}"

    def _head_starting(self) -> tuple[Reason, str] | None:
        if any(pod.phase == "Running" for pod in self._current(ROLE_HEAD)):
            return None
        return Reason.PENDING, "The head is starting"

    def _running(self) -> tuple[Reason, str] | None:
        progress = self.observed.progress
        if progress is None or progress.message:
            return Reason.RUNNING, progress.message if progress else "Running"
        done = [part.progress_percentage for part in (progress.search,) if part]
        done += [part.trainer_status.progress_percentage for part in (progress.training,) if part]
        return Reason.RUNNING, f"{done[0]} % done" if done else "Running"

    def _current(self, role: str) -> tuple[PodView, ...]:
        job = self.observed.job(role)
        return self.observed.pods_of_job(job) if job else ()

    def _lingering(self) -> bool:
        """Pods of deleted Jobs still run: two heads must not write to the same checkpoints."""
        jobs = {job.ref.uid for job in self.observed.jobs}
        return any(pod.job not in jobs and pod.phase in {"Pending", "Running"} for pod in self.observed.pods)

    def _policy_patch(self) -> tuple[Patch, ...]:
        """Of a Job that exists only the run policy may change; everything else starts it anew."""
        head, policy = self.observed.head, self.job.spec.run_policy
        if head is None:
            return ()
        wanted = {"backoffLimit": policy.backoff_limit, "activeDeadlineSeconds": policy.active_deadline_seconds}
        present = {"backoffLimit": head.backoff_limit, "activeDeadlineSeconds": head.deadline}
        changed = {name: value for name, value in wanted.items() if value != present[name]}
        return (Patch(head.ref, {"spec": changed}),) if changed else ()

    # Children

    def _config_hash(self, inputs: Inputs) -> str:
        """Over what the pods do. Defaults are left out, so that a new field of the API restarts nothing."""
        spec = self.job.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"run_policy"})
        model = inputs.model.to_wire() if inputs.model else None
        return stable_hash([spec, inputs.dataset.fingerprint, model])

    def _config(self, inputs: Inputs) -> WorkloadConfig:
        meta = self.job.metadata
        spec = "search_spec" if self.job.kind == "SearchJob" else "training_spec"
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
                spec: self.job.spec,
                "dataset": inputs.dataset,
                "model": inputs.model,
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
            *(() if observed.head else (head_job(job, config_hash, settings),)),
            *(
                ()
                if observed.workers
                else (workers_job(job, self.crew.most, self.crew.resources, config_hash, settings),)
            ),
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
            **self.absorb(end.progress),
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
        if config is None or config.dataset is None or head is None:
            return True
        return self._config_hash(Inputs(config.dataset, config.model)) == head.config_hash

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
        return Plan(apply, patch, delete, status, events_of(self.job, conditions), look_again)


def dataset_input(job: RayJob, observed: Observed) -> ResolvedDataset | Waiting:
    """The version that the job runs on: the one that it began with, else the Dataset's newest."""
    pinned = pinned_config(job, observed)
    if pinned is not None and pinned.dataset is not None:
        return pinned.dataset
    name, dataset = job.spec.dataset_ref.name, observed.dataset
    if dataset is None:
        return Waiting(Reason.DATASET_NOT_FOUND, f"Dataset {name!r} does not exist in this namespace: create it")
    if not is_ready(dataset) or dataset.status.uri is None or dataset.status.fingerprint is None:
        ready = dataset.status.condition(ConditionType.READY)
        why = f": {ready.message}" if ready else ""
        return Waiting(Reason.DATASET_NOT_READY, f"Dataset {name!r} is not ready{why}")
    status = dataset.status
    return ResolvedDataset(
        name=name, uri=status.uri or "", fingerprint=status.fingerprint or "", version=status.version
    )


def pinned_config(job: RayJob, observed: Observed) -> WorkloadConfig | None:
    """The configuration that this very job was started with."""
    config = observed.config
    return config if config is not None and config.uid == job.metadata.uid else None


def is_ready(dataset: Dataset) -> bool:
    """Ready, and for the newest spec: a job applied together with an edit waits for the edited data."""
    ready = dataset.status.condition(ConditionType.READY)
    return ready is not None and ready.status == "True" and ready.observed_generation == dataset.metadata.generation


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
