"""What a planner decides and cluster.py carries out: children to apply and delete, the status, when to look again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from mizzen_api import Dataset, ModelService, SearchJob, TrainingJob
from mizzen_api.meta import Status

Manifest = dict[str, Any]  # a Kubernetes object as JSON; builders in children/ make them, nobody takes them apart
Resource = Dataset | SearchJob | TrainingJob | ModelService
RayJob = SearchJob | TrainingJob


@dataclass(frozen=True, order=True)
class Key:
    """Which resource to reconcile."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class Ref:
    """One object of the cluster. With a uid, only that incarnation of the name is meant."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""

    @classmethod
    def of(cls, manifest: Manifest) -> Ref:
        meta = manifest["metadata"]
        return cls(
            manifest["apiVersion"], manifest["kind"], meta.get("namespace", ""), meta["name"], meta.get("uid", "")
        )


@dataclass(frozen=True)
class Patch:
    """A JSON merge patch, for the few fields of a Job that may change after its creation."""

    ref: Ref
    body: Manifest


@dataclass(frozen=True)
class Event:
    """What `kubectl describe` shows below the resource."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Recommendation:
    """How many replicas the traffic of one moment asked for."""

    at: datetime
    replicas: int


Memory = Mapping[str, tuple[Recommendation, ...]]  # by variant


@dataclass(frozen=True)
class Plan:
    """Everything that should be different. An empty plan means that all is as it should be."""

    apply: tuple[Manifest, ...] = ()
    patch: tuple[Patch, ...] = ()
    delete: tuple[Ref, ...] = ()
    status: Status | None = None  # None leaves the status alone
    events: tuple[Event, ...] = ()
    look_again: float | None = None  # seconds; None waits for the next change
    delete_resource: bool = False
    memory: Memory = field(default_factory=dict)  # comes back as Observed.memory; lost at a restart of the operator
