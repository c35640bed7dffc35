"""Jobs of a SearchJob or TrainingJob: the head and the workers of a Ray cluster."""

from __future__ import annotations

from mizzen_api import contract
from mizzen_api.meta import Resources
from mizzen_operator import names
from mizzen_operator.children.meta import labels, metadata
from mizzen_operator.children.pods import CONTAINER, Workload, template
from mizzen_operator.crew import Crew
from mizzen_operator.plan import Manifest, RayJob, Resource
from mizzen_operator.settings import Settings

# The head carries the driver and no training: it asks for little and may use more.
HEAD_REQUESTS = Resources(cpu="100m", memory="512Mi")
HEAD_LIMITS = Resources(cpu="1", memory="2Gi")
# Workers come back for as long as the head runs; the head's backoffLimit is what ends a job.
WORKERS_BACKOFF_LIMIT = 1_000_000
# Time for a checkpoint just in time. Clouds give notice of 30 s to two minutes before they take a node.
HEAD_GRACE_SECONDS = 60
WORKERS_GRACE_SECONDS = 120


def head_job(job: RayJob, crew: Crew, config_hash: str, settings: Settings) -> Manifest:
    """The Ray head and the driver. Its restarts resume from the newest checkpoint."""
    workload = Workload(
        command=("mizzen", "search" if job.kind == "SearchJob" else "train"),
        requests=HEAD_REQUESTS,
        limits=HEAD_LIMITS,
        config=names.config(job.kind, job.metadata.name),
        token=names.token(job.kind, job.metadata.name),
        artifacts=True,
        grace_seconds=HEAD_GRACE_SECONDS,
        image=crew.image,
        code=crew.code,
    )
    name = names.head(job.kind, job.metadata.name)
    manifest = _job(job, name, contract.ROLE_HEAD, workload, _annotations(job, config_hash), settings)
    manifest["metadata"]["labels"] |= queue_labels(job)
    policy = job.spec.run_policy
    manifest["spec"] |= {"backoffLimit": policy.backoff_limit, "podFailurePolicy": failure_policy()}
    if policy.active_deadline_seconds is not None:
        manifest["spec"]["activeDeadlineSeconds"] = policy.active_deadline_seconds
    return manifest


def workers_job(job: RayJob, crew: Crew, config_hash: str, settings: Settings) -> Manifest:
    """As many pods as the job may use. Those that find no room stay pending; the job runs with the others.

    It names no completions: no worker ever completes, and parallelism may then change while it runs.
    """
    workload = Workload(
        command=("mizzen", "ray-worker"),
        requests=crew.resources,
        limits=crew.resources,
        restart_policy="OnFailure",
        config=names.config(job.kind, job.metadata.name),
        token=names.token(job.kind, job.metadata.name),
        artifacts=True,
        grace_seconds=WORKERS_GRACE_SECONDS,
        image=crew.image,
        code=crew.code,
        devices=crew.devices,
    )
    name = names.workers(job.kind, job.metadata.name)
    manifest = _job(job, name, contract.ROLE_WORKERS, workload, _annotations(job, config_hash), settings)
    meta = manifest["metadata"]
    meta["annotations"] = {**meta["annotations"], contract.ANNOTATION_WORKERS: str(crew.most)}
    if queue := queue_labels(job):
        meta["labels"] |= queue
        meta["annotations"][contract.ANNOTATION_QUEUE_LEAST] = str(crew.least)
    manifest["spec"] |= {"parallelism": crew.most, "backoffLimit": WORKERS_BACKOFF_LIMIT}
    return manifest


def queue_labels(job: RayJob) -> dict[str, str]:
    """Kueue's labels on the resource: both Jobs carry them, so that Kueue holds them back until there is quota."""
    given = job.metadata.labels
    return {key: given[key] for key in (contract.LABEL_QUEUE, contract.LABEL_QUEUE_PRIORITY) if key in given}


def _annotations(job: RayJob, config_hash: str) -> dict[str, str]:
    return {
        contract.ANNOTATION_CONFIG_HASH: config_hash,
        contract.ANNOTATION_GENERATION: str(job.metadata.generation),
    }


def _job(
    resource: Resource, name: str, role: str, workload: Workload, annotations: dict[str, str], settings: Settings
) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(resource, name, role, annotations=annotations),
        "spec": {"template": template(workload, labels(resource, role), annotations, settings)},
    }


def failure_policy() -> Manifest:
    """User errors end the Job at once; a pod that was taken away does not count against the backoffLimit."""

    def exits(code: int) -> Manifest:
        return {"containerName": CONTAINER, "operator": "In", "values": [code]}

    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": exits(contract.EXIT_USER_ERROR)},
            {"action": "Ignore", "onExitCodes": exits(contract.EXIT_STOPPED)},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
    }
