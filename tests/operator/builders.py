"""Small builders of resources and of what planners see, so that a test says only what matters to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mizzen_api import Dataset, ModelService, SearchJob, TrainingJob
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.contract import ROLE_HEAD, ROLE_MATERIALIZE, ROLE_SERVER, ROLE_WORKERS
from mizzen_api.meta import Condition
from mizzen_api.workload import Progress, WorkloadConfig
from mizzen_operator import names
from mizzen_operator.observed import (
    DeploymentView,
    Found,
    GatewayView,
    JobView,
    Observed,
    PodView,
    RouteView,
    ServiceView,
    Traffic,
)
from mizzen_operator.plan import Manifest, Plan, RayJob, Ref, Resource
from mizzen_operator.reconcile import plan_for
from mizzen_operator.settings import Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = Settings(runtime_image="runtime:1", mlflow_uri="http://mlflow:5000", gateway="mizzen-system/mizzen")
FINGERPRINT = "sha256:aa"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def meta(name: str, generation: int = 1) -> dict[str, Any]:
    return {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": generation}


def condition(kind: str, status: str, reason: str, message: str = "", generation: int = 1) -> Condition:
    return Condition.model_validate(
        {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW,
         "observedGeneration": generation}
    )  # fmt: skip


def dataset(name: str = "tweets", generation: int = 1, **spec: Any) -> Dataset:
    body = {"sources": [{"uri": "x.csv"}], "target": "y", **spec}
    return Dataset.model_validate({"metadata": meta(name, generation), "spec": body})


def ready_dataset(name: str = "tweets", fingerprint: str = FINGERPRINT, version: int = 1) -> Dataset:
    found = dataset(name)
    found.status.conditions = [condition("Ready", "True", "Materialized")]
    found.status.fingerprint, found.status.version = fingerprint, version
    found.status.uri = f"file:///artifacts/datasets/default/{name}/{fingerprint}"
    return found


def search(name: str = "nas", generation: int = 1, **spec: Any) -> SearchJob:
    body = {"datasetRef": {"name": "tweets"}, "parameters": [{"name": "lr", "values": [0.1]}], **spec}
    return SearchJob.model_validate({"metadata": meta(name, generation), "spec": body})


def finished_search(name: str = "nas") -> SearchJob:
    found = search(name)
    found.status.conditions = [condition("Succeeded", "True", "Succeeded")]
    found.status.model = "text-transformer"
    return found.model_copy(
        update={
            "status": SearchJob.model_validate(
                {
                    "metadata": meta(name),
                    "spec": found.spec.to_wire(),
                    "status": {
                        **found.status.to_wire(),
                        "currentOptimalTrial": {"name": "t1", "parameters": {"lr": 0.1}, "metrics": {"accuracy": 0.8}},
                    },
                }
            ).status
        }
    )


def training(
    name: str = "train", generation: int = 1, labels: dict[str, str] | None = None, **spec: Any
) -> TrainingJob:
    body = {
        "datasetRef": {"name": "tweets"},
        "model": {"name": "text-bag", "config": {"lr": 0.1}},
        "register": {"name": "tweets"},
        **spec,
    }
    return TrainingJob.model_validate({"metadata": meta(name, generation) | {"labels": labels or {}}, "spec": body})


def predictor(uri: str = "models:/tweets@champion", **spec: Any) -> dict[str, Any]:
    return {"model": {"uri": uri}, **spec}


def canary(percent: int = 20, name: str = "candidate", uri: str = "models:/tweets@candidate") -> dict[str, Any]:
    return {"name": name, "trafficPercent": percent, "predictor": predictor(uri)}


def service(name: str = "tweets", generation: int = 1, **spec: Any) -> ModelService:
    body = {"predictor": predictor(), **spec}
    return ModelService.model_validate({"metadata": meta(name, generation), "spec": body})


def edited(resource: Any, **spec: Any) -> Any:
    """The same resource after an edit of its spec."""
    body = {**resource.spec.to_wire(), **spec}
    changed = {**resource.to_wire(), "spec": body}
    changed["metadata"]["generation"] += 1
    return type(resource).model_validate(changed)


def after(resource: Any, plan: Plan) -> Any:
    """The resource once the plan's status was written."""
    return resource.model_copy(update={"status": plan.status}) if plan.status else resource


def decide(resource: Resource, observed: Observed, now: datetime = NOW, settings: Settings = SETTINGS) -> Plan:
    return plan_for(resource, observed, now, settings)


def said(plan: Plan, kind: ConditionType) -> tuple[str, str, str]:
    assert plan.status is not None
    found = plan.status.condition(kind)
    assert found is not None
    return found.status, found.reason, found.message


def kinds(plan: Plan) -> list[str]:
    return [manifest["kind"] for manifest in plan.apply]


def child(plan: Plan, kind: str, name: str) -> Manifest:
    return next(m for m in plan.apply if (m["kind"], m["metadata"]["name"]) == (kind, name))


def ref(kind: str, name: str) -> Ref:
    api = {"Job": "batch/v1", "Deployment": "apps/v1"}.get(kind, "v1")
    return Ref(api, kind, "default", name, f"uid-{kind}-{name}")


def failed(reason: Reason, message: str) -> str:
    return Progress(state="Failed", reason=reason, message=message).to_termination_message()


def pod(role: str, job: JobView | None = None, **fields: Any) -> PodView:
    given = {"name": f"{role}-pod", "role": role, "phase": "Running", "ip": "10.0.0.1", "scheduled": True, **fields}
    return PodView(job=job.ref.uid if job else "", **given)


# A job as it runs: what the planner itself asked for, seen as existing.


def started(job: RayJob, dataset: Dataset | None = None, **seen: Any) -> Observed:
    """The children that a first plan makes, all of them running."""
    waiting = Observed(dataset=dataset or ready_dataset(), fresh_token="t", has_claim=True, **seen)
    plan = decide(job, waiting)
    head = job_view(child(plan, "Job", names.head(job.kind, job.metadata.name)), ROLE_HEAD)
    crew = job_view(child(plan, "Job", names.workers(job.kind, job.metadata.name)), ROLE_WORKERS)
    config = child(plan, "ConfigMap", names.config(job.kind, job.metadata.name))
    return replace(
        waiting,
        jobs=(head, crew),
        pods=(pod(ROLE_HEAD, head), pod(ROLE_WORKERS, crew)),
        config=WorkloadConfig.model_validate_json(config["data"]["config.json"]),
        has_token=True,
    )


def job_view(manifest: Manifest, role: str) -> JobView:
    annotations = manifest["metadata"]["annotations"]
    return JobView(
        ref=ref("Job", manifest["metadata"]["name"]),
        role=role,
        config_hash=annotations.get("mizzen.dev/config-hash", ""),
        backoff_limit=manifest["spec"]["backoffLimit"],
        deadline=manifest["spec"].get("activeDeadlineSeconds"),
        parallelism=manifest["spec"].get("parallelism"),
        asked=int(annotations.get("mizzen.dev/workers", 0)) or None,
    )


def ending(observed: Observed, role: str, message: str = "", **fields: Any) -> Observed:
    """The role's Job has ended, its pod with this termination message."""
    jobs = tuple(replace(job, **fields) if job.role == role else job for job in observed.jobs)
    phase = "Succeeded" if fields.get("complete") else "Failed"
    pods = tuple(
        replace(p, phase=phase, termination=message, exit_code=int(phase == "Failed")) if p.role == role else p
        for p in observed.pods
    )
    return replace(observed, jobs=jobs, pods=pods, progress=None)


def materializing(dataset: Dataset, run: int = 0) -> Observed:
    name = names.materialize(dataset.metadata.name, dataset.metadata.generation, run)
    job = JobView(ref("Job", name), ROLE_MATERIALIZE)
    return Observed(jobs=(job,), pods=(pod(ROLE_MATERIALIZE, job),), configs=(ref("ConfigMap", name),), has_claim=True)


def serving(service: ModelService, versions: dict[str, int], ready: dict[str, int] | None = None) -> Observed:
    """Variants that run the versions that their aliases name; `ready` pods of each, one by default."""
    ready = ready or {}
    models, deployments, pods = {}, [], []
    uris = {
        "predictor": service.spec.predictor.model.uri,
        **{c.name: c.predictor.model.uri for c in service.spec.canary},
    }
    for variant, version in versions.items():
        model = f"models:/tweets/{version}"
        models[uris[variant]] = Found(model)
        count = ready.get(variant, 1)
        name = names.variant(service.metadata.name, variant)
        deployments.append(
            DeploymentView(ref("Deployment", name), variant, model, max(count, 1), count, max(count, 1), True)
        )
        pods += [
            pod(ROLE_SERVER, name=f"{name}-{i}", variant=variant, model_uri=model, ready=i < count, ip=f"10.0.1.{i}")
            for i in range(max(count, 1))
        ]
    return Observed(
        deployments=tuple(deployments),
        services=tuple(ServiceView(ref("Service", names.variant(service.metadata.name, v)), v) for v in versions),
        pods=tuple(pods),
        gateway=GatewayView("10.0.0.9", 8000),
        route=RouteView(True),
        models=models,
        traffic={p.name: Traffic(requests=5) for p in pods if p.ready},
    )
