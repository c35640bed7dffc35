"""Where a trained model comes from, as its run says it, and as it stays with a model that has no run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mizzen.registry.layout import Exported
from mizzen.registry.revision import code_revision

if TYPE_CHECKING:
    from mizzen.train.plan import TrainPlan

_TRAINER = ("learning_rate", "epochs", "batch_size", "weight_decay", "precision", "seed")


def parameters_of(plan: TrainPlan, model: str) -> dict[str, Any]:
    """The model's settings and the trainer's, for people to compare runs by."""
    return {"model": model, **plan.settings, **{name: getattr(plan, name) for name in _TRAINER}}


def origin_of(plan: TrainPlan, model: str, metrics: Mapping[str, float]) -> Exported:
    """The triple of data, code and settings, with parameters and metrics."""
    triple = {
        "datasetFingerprint": plan.dataset_fingerprint,
        "codeRevision": code_revision(),
        "configHash": plan.config_hash,
    }
    parameters = {key: str(value) for key, value in parameters_of(plan, model).items()}
    return Exported({key: value for key, value in triple.items() if value}, parameters, dict(metrics))
