"""What a planner sees of the cluster: typed, frozen views of the resource's children, dependencies and workloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mizzen_api import Dataset, SearchJob
from mizzen_api.contract import EXIT_STOPPED, ROLE_HEAD, ROLE_WORKERS
from mizzen_api.workload import Progress, WorkloadConfig
from mizzen_operator.plan import Memory, Ref


@dataclass(frozen=True)
class Refusal:
    """The API server's words when it last refused a pod: a quota, an admission rule."""

    message: str
    at: datetime | None = None


@dataclass(frozen=True)
class JobView:
    ref: Ref
    role: str = ""
    config_hash: str = ""
    generation: int = 0  # of the resource, when the Job was made
    complete: bool = False
    failed: bool = False
    reason: str = ""  # of the Failed condition
    message: str = ""
    backoff_limit: int | None = None
    deadline: int | None = None
    ttl: int | None = None  # ttlSecondsAfterFinished
    parallelism: int | None = None
    asked: int | None = None  # workers that the operator last asked for; Kueue may have admitted fewer
    suspended: bool = False
    refusal: Refusal | None = None  # of pods that could not be created

    @property
    def ended(self) -> bool:
        return self.complete or self.failed


@dataclass(frozen=True)
class PodView:
    name: str
    role: str = ""
    variant: str = ""
    job: str = ""  # uid of the controlling Job
    phase: str = "Pending"
    ip: str = ""
    ready: bool = False
    scheduled: bool = False
    terminating: bool = False
    created: datetime | None = None
    restarts: int = 0
    unschedulable: str = ""  # the scheduler's message
    waiting: str = ""  # why a container does not start: reason and message
    termination: str = ""  # last termination message, whether the container was started again or not
    terminated: str = ""  # the kubelet's word for how it ended, for example OOMKilled
    exit_code: int | None = None
    ended_at: datetime | None = None  # the last time that the container ended
    disrupted: str = ""  # who takes the pod off its node, and why: a drain, a preemption, a taint
    model_uri: str = ""

    @property
    def progress(self) -> Progress | None:
        return Progress.from_termination_message(self.termination)

    @property
    def taken_away(self) -> bool:
        """Told to stop, or disrupted: what the podFailurePolicy does not count."""
        return bool(self.disrupted) or self.exit_code == EXIT_STOPPED


@dataclass(frozen=True)
class DeploymentView:
    ref: Ref
    variant: str = ""
    model_uri: str = ""
    replicas: int = 0
    ready: int = 0
    updated: int = 0
    current: bool = False  # the controller has seen the newest spec


@dataclass(frozen=True)
class ServiceView:
    ref: Ref
    variant: str = ""


@dataclass(frozen=True)
class RouteView:
    accepted: bool = False
    message: str = ""


@dataclass(frozen=True)
class GatewayView:
    address: str = ""
    port: int = 80
    scheme: str = "http"


@dataclass(frozen=True)
class Found:
    """The registry's answer: this version."""

    uri: str


@dataclass(frozen=True)
class Missing:
    """The registry's answer: no such model, version or alias."""

    message: str


@dataclass(frozen=True)
class Unreachable:
    """No answer from the registry."""

    message: str


ModelAnswer = Found | Missing | Unreachable


@dataclass(frozen=True)
class Traffic:
    """What one model server counts."""

    requests: int = 0
    in_flight: float = 0.0


@dataclass(frozen=True)
class Observed:
    """All that a planner may look at besides the resource itself."""

    dataset: Dataset | None = None
    search_job: SearchJob | None = None
    config: WorkloadConfig | None = None  # of the ConfigMap that the present head was started with
    configs: tuple[Ref, ...] = ()
    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()
    deployments: tuple[DeploymentView, ...] = ()
    services: tuple[ServiceView, ...] = ()
    progress: Progress | None = None  # of the running driver
    has_token: bool = False
    fresh_token: str = ""  # for the Secret, should it have to be made
    has_claim: bool = False
    missing_secrets: tuple[str, ...] = ()  # that a Dataset's sources name, and the store's
    servers: tuple[str, ...] = ()  # host:port of the ModelService's servers that drift is measured against
    code: str | None = None  # fingerprint of the user's Python files; None where their ConfigMap is not there
    offers: frozenset[str] = frozenset()  # extended resources of the cluster's nodes
    gateway_api: bool = True
    gateway: GatewayView | None = None
    route: RouteView | None = None
    models: Mapping[str, ModelAnswer] = field(default_factory=dict)  # by URI
    traffic: Mapping[str, Traffic] = field(default_factory=dict)  # by pod
    memory: Memory = field(default_factory=dict)

    def job(self, role: str) -> JobView | None:
        return next((job for job in self.jobs if job.role == role), None)

    @property
    def head(self) -> JobView | None:
        return self.job(ROLE_HEAD)

    @property
    def workers(self) -> JobView | None:
        return self.job(ROLE_WORKERS)

    def pods_of(self, role: str) -> tuple[PodView, ...]:
        return tuple(pod for pod in self.pods if pod.role == role)

    def pods_of_job(self, job: JobView) -> tuple[PodView, ...]:
        """The Job's pods, oldest first."""
        own = (pod for pod in self.pods if pod.job == job.ref.uid)
        return tuple(sorted(own, key=lambda pod: (pod.created.timestamp() if pod.created else 0.0, pod.name)))
