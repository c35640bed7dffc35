"""TrainingJob: elastic training on a Ray cluster that ends in a registered model version."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from mizzen_api import TrainingJob
from mizzen_api.conditions import ConditionType, Reason
from mizzen_api.trainingjob import TrainerStatus
from mizzen_api.workload import Progress, ResolvedModel
from mizzen_operator.observed import Observed
from mizzen_operator.plan import Plan
from mizzen_operator.planners.conditions import finite
from mizzen_operator.planners.raycluster import Crew, Inputs, RayPlanner, Waiting, dataset_input, pinned_config
from mizzen_operator.settings import Settings


def plan(job: TrainingJob, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide what a TrainingJob needs next. Pure: the same inputs give the same plan."""
    scaling = job.spec.scaling
    crew = Crew(scaling.max_workers, scaling.min_workers, scaling.resources_per_worker)
    return RayPlanner(job, observed, now, settings, crew, _inputs(job, observed), _absorb).plan()


def _inputs(job: TrainingJob, observed: Observed) -> Inputs | Waiting:
    dataset = dataset_input(job, observed)
    if isinstance(dataset, Waiting):
        return dataset
    model = _model(job, observed)
    return model if isinstance(model, Waiting) else Inputs(dataset, model)


def _model(job: TrainingJob, observed: Observed) -> ResolvedModel | Waiting:
    """The named model, or the winner of the search as it was when the job began."""
    source = job.spec.model
    pinned = pinned_config(job, observed)
    if pinned is not None and pinned.model is not None:
        return pinned.model
    if source.search_job_ref is None:
        return ResolvedModel(name=source.name or "", config=source.config or {})
    return _winner(source.search_job_ref.name, observed)


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


def _absorb(progress: Progress | None) -> dict[str, Any]:
    if progress is None or progress.training is None:
        return {}
    report = progress.training
    version = report.model_version
    return {"trainer_status": _clean(report.trainer_status), **({"model_version": version} if version else {})}


def _clean(trainer: TrainerStatus) -> TrainerStatus:
    rate = trainer.samples_per_second
    rate = rate if rate is not None and math.isfinite(rate) else None
    return trainer.model_copy(update={"metrics": finite(trainer.metrics), "samples_per_second": rate})
