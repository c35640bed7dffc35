"""What a training is, in one JSON-able value: made by the driver (or a search, or the SDK), carried to every worker."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pydantic import BaseModel

from mizzen.errors import UserError
from mizzen.train.schedule import Progressive, Ramp
from mizzen_api import trainingjob_trainer as api
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob import TrainingJobSpec
from mizzen_api.trainingjob_trainer import MAX_RATE
from mizzen_api.workload import ResolvedDataset, ResolvedModel

DEFAULT_LEARNING_RATE = 2e-3
# Blocks of the API that a plan carries as they are.
_BLOCKS: dict[str, type[BaseModel]] = {
    "compression": api.Compression,
    "fsdp": api.Fsdp,
    "parameter_server": api.ParameterServer,
    "distillation": api.Distillation,
}
# Where a run happens and how it is kept, none of which shapes its result.
_ELSEWHERE = frozenset(
    {"dataset_uri", "checkpoint_every", "snapshot_every", "threads", "accelerator", "max_workers", "micro_rows"}
)


@dataclass(frozen=True)
class TrainPlan:
    """Model, data and trainer settings. Equal plans have equal hashes and give equal runs.

    The model is one of: `model`, a name of the catalog; `entrypoint`, package.module:name; `model_uri`, a registered
    version to go on from.
    """

    model: str
    settings: dict[str, Any]
    dataset_uri: str
    dataset_fingerprint: str
    learning_rate: float
    epochs: int = 3
    batch_size: int = 256  # rows of an optimizer step, over all ranks
    weight_decay: float = 0.01
    accumulation: int = 1
    precision: str = "fp32"
    seed: int = 7
    train_fraction: float = 1.0
    entrypoint: str = ""
    model_uri: str = ""
    strategy: str = "ddp"
    optimizer: str = "adamw"
    momentum: float = 0.9
    learning_rate_schedule: str = "cosine"
    warmup_fraction: float = 0.1
    max_gradient_norm: float = 1.0  # 0: as they are
    compile: bool = False
    activation_checkpointing: bool = False
    channels_last: bool = False
    autotune: bool = False
    fsdp: api.Fsdp | None = None
    parameter_server: api.ParameterServer | None = None
    compression: api.Compression | None = None
    progressive: Progressive | None = None
    distillation: api.Distillation | None = None
    on_non_finite: str = "Stop"  # or Skip
    max_skipped_steps: int = 10
    on_resize: str = "KeepBatch"  # or ScaleBatch
    max_workers: int = field(default=1, compare=False)
    accelerator: str = field(default="cpu", compare=False)  # auto, a kind, or a vendor of the table
    checkpoint_every: int = field(default=100, compare=False)
    snapshot_every: int = field(default=10, compare=False)
    threads: int = field(default=1, compare=False)
    micro_rows: int = field(default=0, compare=False)  # most rows that a rank takes at once; 0: by accumulation alone

    @property
    def config_hash(self) -> str:
        """sha256 over what shapes the result."""
        shape = {name: value for name, value in self.to_dict().items() if name not in _ELSEWHERE}
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` is the inverse."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainPlan:
        known = dict(values)
        for name, model in _BLOCKS.items():
            if isinstance(known.get(name), dict):
                known[name] = model.model_validate(known[name])
        if isinstance(known.get("progressive"), dict):
            known["progressive"] = Progressive.from_dict(known["progressive"])
        return cls(**known)

    def batch_factor(self, world: int) -> float:
        """What a step's rows are multiplied with: under ScaleBatch, `batch_size` is that of `max_workers`."""
        return world / self.max_workers if self.on_resize == "ScaleBatch" else 1.0


def plan_of(
    spec: TrainingJobSpec, dataset: ResolvedDataset, model: ResolvedModel, threads: int, accelerator: str = "cpu"
) -> TrainPlan:
    """The trainer's learning rate wins over the model's `lr`, and that over the default."""
    trainer = spec.trainer
    settings = dict(model.config)
    from_model = checked_rate(settings.pop("lr", None))
    return TrainPlan(
        model=model.name,
        settings=settings,
        entrypoint=model.entrypoint,
        model_uri=model.uri,
        dataset_uri=dataset.uri,
        dataset_fingerprint=dataset.fingerprint,
        learning_rate=trainer.learning_rate or from_model or DEFAULT_LEARNING_RATE,
        accumulation=trainer.gradient_accumulation_steps,
        progressive=progressive_of(trainer.progressive),
        on_resize=spec.scaling.on_resize,
        max_workers=spec.scaling.max_workers,
        checkpoint_every=spec.checkpoint.every_steps,
        snapshot_every=spec.checkpoint.snapshot_every_steps,
        threads=threads,
        accelerator=accelerator,
        **same_fields(trainer),
    )


def same_fields(trainer: api.Trainer) -> dict[str, Any]:
    """What plan and API call by the same name and mean alike."""
    special = {"learning_rate", "progressive"}
    return {
        one.name: getattr(trainer, one.name)
        for one in fields(TrainPlan)
        if one.name in api.Trainer.model_fields and one.name not in special | {"entrypoint"}
    }


def progressive_of(block: api.Progressive | None) -> Progressive | None:
    if block is None:
        return None
    sizes = ("batch_size", "image_size", "sequence_length", "depth")
    ramps = {name: Ramp(ramp.from_, ramp.to) for name in sizes if (ramp := getattr(block, name)) is not None}
    return Progressive(**ramps, schedule=block.schedule, until=block.until)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Progressive):
        return asdict(value)
    return value


def checked_rate(rate: Any) -> float | None:
    """A model's settings are free-form: nobody looked at its lr before."""
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= MAX_RATE:
        raise UserError(
            Reason.INVALID_PARAMETERS, f"the model's lr must be a number above 0 and up to {MAX_RATE:g}, not {rate!r}"
        )
    return float(rate)
