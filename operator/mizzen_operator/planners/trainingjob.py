"""TrainingJob: elastic training on a Ray cluster that ends in a registered model version."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from mizzen_api import TrainingJob
from mizzen_api.accelerators import CPU, Accelerator, by_vendor
from mizzen_api.trainingjob import TrainerStatus
from mizzen_api.workload import Progress
from mizzen_operator.crew import Crew, Devices
from mizzen_operator.observed import Observed
from mizzen_operator.plan import Plan
from mizzen_operator.planners.conditions import finite
from mizzen_operator.planners.inputs import Inputs, code_name, training_inputs
from mizzen_operator.planners.raycluster import RayPlanner
from mizzen_operator.settings import Offer, Settings


def plan(job: TrainingJob, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide what a TrainingJob needs next. Pure: the same inputs give the same plan."""
    inputs = training_inputs(job, observed, settings)
    crew = _crew(job, by_vendor(inputs.accelerator) if isinstance(inputs, Inputs) else CPU, settings)
    return RayPlanner(job, observed, now, settings, crew, inputs, partial(_absorb, job)).plan()


def _crew(job: TrainingJob, row: Accelerator, settings: Settings) -> Crew:
    scaling = job.spec.scaling
    return Crew(
        most=scaling.max_workers,
        least=scaling.min_workers,
        resources=scaling.resources_per_worker,
        resources_field="scaling.resourcesPerWorker",
        devices=_devices(row, scaling.resources_per_worker.accelerators, settings),
        image=job.spec.image or "",
        code=code_name(job),
    )


def _devices(row: Accelerator, count: int | None, settings: Settings) -> Devices:
    if row is CPU:
        return Devices()
    offer = next((offer for offer in settings.accelerators if offer.resource == row.resource), Offer(row.resource))
    return Devices(row, 1 if count is None else count, offer.node_selector, offer.tolerations)


def _absorb(job: TrainingJob, inputs: Inputs | None, progress: Progress | None) -> dict[str, Any]:
    """The driver's report as fields of the status. Without inputs the job has ended."""
    facts: dict[str, Any] = {"accelerator": inputs.accelerator} if inputs else {}
    if progress is None or progress.training is None:
        return facts
    trainer, version = _clean(progress.training.trainer_status), progress.training.model_version
    return {
        **facts,
        "trainer_status": trainer,
        "metric": _telling(job, trainer.metrics),
        **({"model_version": version} if version else {}),
    }


def _telling(job: TrainingJob, metrics: Mapping[str, float]) -> str | None:
    """That of the test split once it is measured, of the validation split before."""
    names = [*(gate.metric for gate in job.spec.register_.gates), "accuracy", "loss"]
    splits = ("test", "validation")
    found = ((split, name) for name in names for split in splits if f"{split}_{name}" in metrics)
    best = next(found, None)
    return f"{best[0]} {best[1]} {metrics['_'.join(best)]:.4g}" if best else None


def _clean(trainer: TrainerStatus) -> TrainerStatus:
    changes: dict[str, Any] = {"metrics": finite(trainer.metrics)}
    for name in ("samples_per_second", "seconds_to_recover"):
        value = getattr(trainer, name)
        changes[name] = value if value is not None and math.isfinite(value) else None
    return trainer.model_copy(update=changes)
