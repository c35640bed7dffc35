"""SearchJob: trials on a Ray cluster until enough are done, and the best of them in the status."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mizzen_api import SearchJob
from mizzen_api.searchjob import Trial
from mizzen_api.workload import Progress
from mizzen_operator.crew import Crew
from mizzen_operator.observed import Observed
from mizzen_operator.plan import Plan
from mizzen_operator.planners.conditions import finite
from mizzen_operator.planners.inputs import Inputs, Waiting, dataset_input
from mizzen_operator.planners.raycluster import RayPlanner
from mizzen_operator.settings import Settings


def plan(job: SearchJob, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide what a SearchJob needs next. Pure: the same inputs give the same plan."""
    dataset = dataset_input(job, observed)
    inputs = dataset if isinstance(dataset, Waiting) else Inputs(dataset)
    spec = job.spec
    crew = Crew(spec.parallel_trial_count, 1, spec.resources_per_trial, "resourcesPerTrial")
    return RayPlanner(job, observed, now, settings, crew, inputs, _absorb).plan()


def _absorb(_: Inputs | None, progress: Progress | None) -> dict[str, Any]:
    if progress is None or progress.search is None:
        return {}
    report = progress.search
    best = report.current_optimal_trial
    return {
        "trials": report.trials,
        "progress_percentage": report.progress_percentage,
        **({"current_optimal_trial": _clean(best)} if best else {}),
        **({"model": report.model} if report.model else {}),
    }


def _clean(trial: Trial) -> Trial:
    return trial.model_copy(update={"metrics": finite(trial.metrics)})
