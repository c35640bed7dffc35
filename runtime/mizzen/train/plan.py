"""What a training is, in one JSON-able value: made by the driver (or a search), carried to every worker."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from mizzen.errors import UserError
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import MAX_RATE, TrainingJobSpec
from mizzen_api.workload import ResolvedDataset, ResolvedModel

DEFAULT_LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class TrainPlan:
    """Model, data and trainer settings. Equal plans have equal hashes and give equal runs."""

    model: str
    settings: dict[str, Any]
    dataset_uri: str
    dataset_fingerprint: str
    learning_rate: float
    epochs: int = 3
    batch_size: int = 256
    weight_decay: float = 0.01
    accumulation: int = 1
    precision: str = "fp32"
    seed: int = 7
    train_fraction: float = 1.0
    checkpoint_every: int = field(default=100, compare=False)
    threads: int = field(default=1, compare=False)

    @property
    def config_hash(self) -> str:
        """sha256 over what shapes the result: not where the data lies, nor how often a checkpoint is written."""
        shape = {k: v for k, v in asdict(self).items() if k not in ("dataset_uri", "checkpoint_every", "threads")}
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()


def plan_of(spec: TrainingJobSpec, dataset: ResolvedDataset, model: ResolvedModel, threads: int) -> TrainPlan:
    """The trainer's learning rate wins over the model's `lr`, and that over the default."""
    trainer = spec.trainer
    settings = dict(model.config)
    from_model = _checked(settings.pop("lr", None))
    return TrainPlan(
        model=model.name,
        settings=settings,
        dataset_uri=dataset.uri,
        dataset_fingerprint=dataset.fingerprint,
        learning_rate=trainer.learning_rate or from_model or DEFAULT_LEARNING_RATE,
        epochs=trainer.epochs,
        batch_size=trainer.batch_size,
        weight_decay=trainer.weight_decay,
        accumulation=trainer.gradient_accumulation_steps,
        precision=trainer.precision,
        seed=trainer.seed,
        checkpoint_every=spec.checkpoint.every_steps,
        threads=threads,
    )


def _checked(rate: Any) -> float | None:
    """A model's settings are free-form: nobody looked at its lr before."""
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= MAX_RATE:
        raise UserError(
            Reason.INVALID_PARAMETERS, f"the model's lr must be a number above 0 and up to {MAX_RATE:g}, not {rate!r}"
        )
    return float(rate)
