"""What a SearchJob or TrainingJob runs on, and what it still waits for. Fixed at its start: the configuration that the
head was started with says what it was, whatever the Dataset, the aliases and the nodes have become since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mizzen_api import Dataset, TrainingJob
from mizzen_api.accelerators import CPU, by_vendor, choose
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.workload import ResolvedDataset, ResolvedModel, WorkloadConfig
from mizzen_operator.observed import Found, Missing, Observed
from mizzen_operator.plan import RayJob
from mizzen_operator.settings import Settings

LOOK_AGAIN = 5.0  # for what sends no news: ConfigMaps of users, the model registry


@dataclass(frozen=True)
class Waiting:
    """An input is not there yet."""

    reason: Reason
    message: str
    look_again: float | None = None


@dataclass(frozen=True)
class Inputs:
    """All that is there."""

    dataset: ResolvedDataset
    model: ResolvedModel | None = None
    uris: Mapping[str, str] = field(default_factory=dict)  # models:/NAME@ALIAS: its version
    accelerator: str = CPU.vendor
    code: str = ""  # fingerprint of the user's files

    @classmethod
    def of(cls, config: WorkloadConfig) -> Inputs | None:
        """Those of a job that was started."""
        if config.dataset is None:
            return None
        return cls(config.dataset, config.model, config.resolved_uris, config.accelerator, config.code_fingerprint)


def training_inputs(job: TrainingJob, observed: Observed, settings: Settings) -> Inputs | Waiting:
    """The first that is missing speaks."""
    dataset = dataset_input(job, observed)
    if isinstance(dataset, Waiting):
        return dataset
    uris = _versions(job, observed)
    if isinstance(uris, Waiting):
        return uris
    model = _model(job, observed, uris)
    if isinstance(model, Waiting):
        return model
    code = _code(job, observed)
    if isinstance(code, Waiting):
        return code
    return Inputs(dataset, model, uris, _accelerator(job, observed, settings), code)


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


def model_uris(job: RayJob) -> set[str]:
    """Versions and aliases of the registry that the spec names."""
    if not isinstance(job, TrainingJob):
        return set()
    teacher = job.spec.trainer.distillation
    named = (job.spec.model.uri, teacher.teacher_uri if teacher else None)
    return {uri for uri in named if uri}


def code_name(job: RayJob) -> str:
    """The ConfigMap with the user's files; empty where there is none."""
    return job.spec.code.config_map_ref.name if isinstance(job, TrainingJob) and job.spec.code else ""


def _versions(job: TrainingJob, observed: Observed) -> dict[str, str] | Waiting:
    """An alias that moves later does not change a job that has begun."""
    pinned = pinned_config(job, observed)
    known = dict(pinned.resolved_uris) if pinned else {}
    versions: dict[str, str] = {}
    for uri in sorted(model_uris(job)):
        answer = observed.models.get(uri)
        if uri in known:
            versions[uri] = known[uri]
        elif isinstance(answer, Found):
            versions[uri] = answer.uri
        elif isinstance(answer, Missing):
            return Waiting(Reason.MODEL_NOT_FOUND, answer.message, LOOK_AGAIN)
        else:
            why = answer.message if answer else f"{uri} has not been looked up yet"
            return Waiting(Reason.REGISTRY_UNREACHABLE, why, LOOK_AGAIN)
    return versions


def _model(job: TrainingJob, observed: Observed, uris: Mapping[str, str]) -> ResolvedModel | Waiting:
    """The named model, or the winner of the search as it was when the job began."""
    source = job.spec.model
    pinned = pinned_config(job, observed)
    if pinned is not None and pinned.model is not None:
        return pinned.model
    if source.search_job_ref is not None:
        return _winner(source.search_job_ref.name, observed)
    if source.uri is not None:
        return ResolvedModel(uri=uris[source.uri])
    return ResolvedModel(name=source.name or "", entrypoint=source.entrypoint or "", config=source.config or {})


def _winner(name: str, observed: Observed) -> ResolvedModel | Waiting:
    search = observed.search_job
    if search is None:
        return Waiting(Reason.SEARCH_JOB_NOT_FOUND, f"SearchJob {name!r} does not exist in this namespace: create it")
    succeeded = search.status.condition(ConditionType.SUCCEEDED)
    if succeeded is None or succeeded.status == "Unknown":
        return Waiting(Reason.SEARCH_JOB_NOT_FINISHED, f"SearchJob {name!r} has not finished yet")
    trial, family = search.status.current_optimal_trial, search.status.model
    if succeeded.status == "False" or trial is None or family is None:
        why = f"SearchJob {name!r} ended without a model to train: {succeeded.message}"
        return Waiting(Reason.SEARCH_JOB_NOT_FINISHED, f"{why}. Delete it and create it again, mended")
    return ResolvedModel(name=family, config=trial.parameters)


def _code(job: TrainingJob, observed: Observed) -> str | Waiting:
    """A ConfigMap that is deleted while the job runs stops nothing: the status says so, see raystate.py."""
    name = code_name(job)
    pinned = pinned_config(job, observed)
    if not name or observed.code is not None:
        return observed.code or ""
    if pinned is not None and pinned.code_fingerprint and observed.head is not None:
        return pinned.code_fingerprint
    message = f"ConfigMap {name!r}, which spec.code names, does not exist in this namespace: create it"
    return Waiting(Reason.CODE_NOT_FOUND, message, LOOK_AGAIN)


def _accelerator(job: TrainingJob, observed: Observed, settings: Settings) -> str:
    """By what the chart says that the cluster has, else by its nodes; kept while the spec allows it."""
    wanted = job.spec.accelerator
    pinned = pinned_config(job, observed)
    if pinned is not None and wanted in {"auto", by_vendor(pinned.accelerator).kind}:
        return pinned.accelerator
    told = [offer.resource for offer in settings.accelerators]
    return choose(wanted, told or observed.offers).vendor
