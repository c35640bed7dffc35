"""The Python SDK: a TrainingJob's trainer as an object, for notebooks and scripts.

    trainer = DistributedTrainer(accelerator="gpu", strategy="ddp", precision=16, gradient_accumulation_steps=4)
    result = trainer.fit("text-transformer", "artifacts/datasets/default/tweets/41b2...")

Settings are those of the kind, in snake_case. torch is imported by `fit`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from mizzen.data.pipeline import Pipeline
    from mizzen.models.building import Recipe
    from mizzen.train.plan import TrainPlan
    from mizzen.train.sdk_data import Given

log = logging.getLogger(__name__)

# As users of other trainers write them.
_PRECISIONS = {
    32: "fp32", "32": "fp32", "32-true": "fp32", 16: "fp16", "16": "fp16", "16-mixed": "fp16",
    "bf16-mixed": "bf16", 8: "fp8", "8": "fp8",
}  # fmt: skip
_KINDS = ("auto", "cpu", "gpu", "tpu", "npu")


@dataclass
class TrainingResult:
    """A trained model. `metrics` has those of the test split as test_NAME, and the last of validation."""

    model: nn.Module
    metrics: dict[str, float]
    history: list[dict[str, float]]  # one entry for each epoch
    steps: int
    samples_per_second: float
    recipe: Recipe
    pipeline: Pipeline | None  # None where images came as arrays
    notes: list[str] = field(default_factory=list)  # what a person should know, for example that compiling failed
    plan: TrainPlan | None = None  # all settings

    @property
    def classes(self) -> tuple[str, ...]:
        """None where a number is predicted."""
        return self.recipe.data.classes

    def save(self, path: str | Path) -> Path:
        """Write the model's folder, which a ModelService serves and mizzen.models reads: no pickle in it.

        `mizzen export` makes a folder for Git of it, with the triple, the settings and the metrics.
        """
        from mizzen.models import artifact
        from mizzen.registry.layout import leave_origin
        from mizzen.train.origin import origin_of

        artifact.write(Path(path), self.recipe, self.model.state_dict(), self._pipeline())
        if self.plan is not None:
            leave_origin(Path(path), origin_of(self.plan, self.recipe.name, self.metrics))
        return Path(path)

    def predict(self, rows: Any) -> np.ndarray[Any, Any]:
        """For raw rows as mappings: probabilities (rows, classes), or values (rows, 1) of a number to predict."""
        from mizzen.models.artifact import TrainedModel

        return TrainedModel(self.recipe.name, self.model, self._pipeline(), self.recipe).predict_rows(rows)

    def _pipeline(self) -> Pipeline:
        if self.pipeline is None:
            raise _wrong(
                "images that came as arrays have no pipeline by which others could be read: train on a Dataset"
            )
        return self.pipeline


class DistributedTrainer:
    """How to train. It constructs on any machine; whether there is a GPU is asked by `fit`.

    `accelerator` is auto, cpu, gpu, tpu or npu; `precision` 32, 16, "bf16" or "fp8"; `num_workers` more than one trains
    on as many processes of this machine, and goes on with fewer if some are lost. All other settings are the
    fields of a TrainingJob's `trainer` block: strategy, gradient_accumulation_steps, epochs, batch_size, optimizer,
    learning_rate, compile, compression, progressive, distillation, on_non_finite, ...

    Raises mizzen.errors.UserError, whose message names the setting, where one does not exist or cannot be used.
    """

    def __init__(
        self,
        accelerator: Literal["auto", "cpu", "gpu", "tpu", "npu"] = "auto",
        strategy: Literal["ddp", "fsdp", "parameter-server"] = "ddp",
        precision: int | str = "fp32",
        gradient_accumulation_steps: int = 1,
        *,
        num_workers: int = 1,
        threads: int | None = None,
        **settings: Any,
    ) -> None:
        from mizzen_api.trainingjob_trainer import Trainer

        if accelerator not in _KINDS:
            raise _wrong(f"accelerator must be one of {', '.join(_KINDS)}, not {accelerator!r}")
        if num_workers < 1:
            raise _wrong(f"num_workers must be 1 or more, not {num_workers!r}")
        self.accelerator, self.num_workers = accelerator, num_workers
        self.threads = threads or max(1, (os.cpu_count() or 1) // num_workers)
        for name in settings:
            if name not in Trainer.model_fields:
                known = ", ".join(["accelerator", "num_workers", "threads", *Trainer.model_fields])
                raise _wrong(f"DistributedTrainer has no setting {name!r}; it has {known}")
        self.trainer: Trainer = _checked(
            {
                "strategy": strategy,
                "precision": _PRECISIONS.get(precision, precision),
                "gradient_accumulation_steps": gradient_accumulation_steps,
                **settings,
            }
        )

    def fit(self, model: Any, dataset: Any, *, config: Mapping[str, Any] | None = None) -> TrainingResult:
        """Train, and measure on the test split.

        `model`: a name of Mizzen's, "package.module:build", "models:/NAME/VERSION", a function build(config, data), or
        a torch.nn.Module, which is trained in place. `config` has settings of a named model or of `build`.

        `dataset`: what DataPipeline makes (or a DataPipeline), the path of a dataset version, or arrays (x, y): x
        (rows, features) numbers or (rows, channels, height, width) images, y classes or floating-point numbers.
        """
        from mizzen.train.sdk_data import given

        data, settings = given(dataset, self.trainer.seed), dict(config or {})
        if self.num_workers > 1 or self.trainer.strategy == "parameter-server":
            from mizzen.train.sdk_group import fit_on_group

            return fit_on_group(self, model, data, settings)
        plan = tuned(self.plan(model, settings, data), data)
        return _fitted(plan, data, model, settings)

    def plan(self, model: Any, config: dict[str, Any], data: Given, uri: str = "") -> TrainPlan:
        """What a worker is told; `uri` is where it finds the rows. `config` loses its lr, which is the trainer's."""
        from mizzen.train.plan import DEFAULT_LEARNING_RATE, TrainPlan, checked_rate, progressive_of, same_fields

        rate = self.trainer.learning_rate or checked_rate(config.pop("lr", None)) or DEFAULT_LEARNING_RATE
        return TrainPlan(
            **_source(model),
            settings=config,
            dataset_uri=uri or data.uri,
            dataset_fingerprint=data.fingerprint,
            learning_rate=rate,
            accumulation=self.trainer.gradient_accumulation_steps,
            progressive=progressive_of(self.trainer.progressive),
            accelerator=self.accelerator,
            threads=self.threads,
            max_workers=self.num_workers,
            **same_fields(self.trainer),
        )


def tuned(plan: TrainPlan, data: Given) -> TrainPlan:
    """What autotune finds, where it is asked for."""
    from mizzen.train.autotune import measure, search

    if not plan.autotune:
        return plan
    if data.rows is None or not (plan.model or plan.entrypoint or plan.model_uri):
        raise _wrong("autotune builds model and batches many times: name the model, and give a Dataset or a table")
    found = search(plan, lambda changed: measure(changed, data.rows))
    log.info("autotune: %.2f times the speed with %s", found.gain, found.chosen or "the settings as they were")
    return replace(plan, **found.chosen, autotune=False)


def _fitted(plan: TrainPlan, data: Given, model: Any, config: dict[str, Any]) -> TrainingResult:
    """In this process."""
    from mizzen.train.loop import Loop
    from mizzen_api.contract import SPLITS

    loop = Loop(plan, dataset=data.rows, task=data.task(plan.accelerator), built=_built(model, config, data, plan.seed))
    history: list[dict[str, float]] = []
    losses: list[float] = []
    started = time.monotonic()
    for result in loop.steps():
        losses.append(result.loss)
        if result.ends_epoch:
            measured = {f"validation_{key}": value for key, value in loop.evaluate(SPLITS[1]).items()}
            history.append({"loss": sum(losses) / len(losses), **measured})
            losses.clear()
            numbers = ", ".join(f"{key} {value:.4f}" for key, value in history[-1].items())
            log.info("epoch %d of %d, step %d: %s", loop.state.epoch, plan.epochs, loop.state.step, numbers)
    seconds = time.monotonic() - started
    test = {f"test_{key}": value for key, value in loop.evaluate(SPLITS[2]).items()}
    loop.check_weights()
    return TrainingResult(
        model=loop.module.eval().cpu(),
        metrics={**history[-1], **test},
        history=history,
        steps=loop.state.step,
        samples_per_second=loop.state.samples / max(seconds, 1e-9),
        notes=loop.notes,
        recipe=loop.recipe,
        pipeline=data.rows.pipeline if data.rows is not None else None,
        plan=plan,
    )


def _source(model: Any) -> dict[str, Any]:
    """Which of the plan's three ways to name a model."""
    if not isinstance(model, str):
        return {"model": ""}
    if model.startswith("models:/"):
        return {"model": "", "model_uri": model}
    return {"model": "", "entrypoint": model} if ":" in model else {"model": model}


def _built(model: Any, config: dict[str, Any], data: Given, seed: int) -> tuple[Recipe, nn.Module] | None:
    """A module that came as an object; None for one that is named."""
    import torch
    from torch import nn

    from mizzen.models.building import Recipe, check_fits

    if isinstance(model, str):
        return None
    if not isinstance(model, nn.Module) and not callable(model):
        kind = type(model).__name__
        raise _wrong(f"model must be a name, an import path, a torch.nn.Module or a function, not {kind}")
    torch.manual_seed(seed)
    module = model if isinstance(model, nn.Module) else model(config, data.shape)
    check_fits(module, data.shape, f"model {type(module).__name__}")
    return Recipe(data.shape, config=config), module


def _checked(values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from mizzen.train.sdk_rules import conflict
    from mizzen_api.trainingjob_trainer import Trainer

    try:
        trainer = Trainer.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _wrong(f"{where}: {first['msg']}, not {first['input']!r}") from error
    message = conflict(trainer)
    if message is not None:
        raise _wrong(message)
    return trainer


def _wrong(message: str) -> UserError:
    return UserError(Reason.INVALID_PARAMETERS, message)
