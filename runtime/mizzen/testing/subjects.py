"""What a check is about: a module, the tensors that it is called with, and what is known of its answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from mizzen.models.artifact import TrainedModel
from mizzen.models.loading import Model, Rows
from mizzen.models.shapes import DataShape
from mizzen.train.sdk import TrainingResult

# A model of Mizzen's, or any module; and rows for the one, tensors for the other or for both.
Checked = Model | TrainedModel | TrainingResult | nn.Module
Inputs = Rows | Tensor | tuple[Tensor, ...] | None


@dataclass(frozen=True)
class Subject:
    """`data` is None of a module that came without a pipeline, `targets` None where the inputs have none."""

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    data: DataShape | None = None
    targets: Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self.inputs[0])

    def answer(self) -> Tensor:
        """Of all rows, in evaluation mode and without a graph."""
        return answer(self.module, self.inputs)


def subject_of(model: Checked, inputs: Inputs) -> Subject:
    """TypeError says what is missing. Without inputs a model of Mizzen's gets random ones of its own shape."""
    if isinstance(model, nn.Module) and not isinstance(model, Model):
        if inputs is None or not are_tensors(inputs):
            kind = type(model).__name__
            raise TypeError(f"{kind} comes without a pipeline: give the tensors that it is called with")
        return Subject(type(model).__name__, model, _tuple(inputs))
    model = held(model)
    if inputs is None:
        device = device_of(model.module)
        return Subject(model.name, model.module, tuple(part.to(device) for part in model.data.example()), model.data)
    if are_tensors(inputs):
        return Subject(model.name, model.module, _tuple(inputs), model.data)
    rows = listed(inputs)
    return Subject(model.name, model.module, model.inputs(rows), model.data, _targets(model, rows))


def held(model: Checked) -> Model:
    """A model with its pipeline, which takes rows; TypeError where it has none."""
    if isinstance(model, Model):
        return model
    if isinstance(model, TrainedModel):
        return Model(model)
    if isinstance(model, TrainingResult) and model.pipeline is not None:
        return Model(TrainedModel(model.recipe.name, model.model, model.pipeline, model.recipe))
    raise TypeError(
        f"this check calls the model with rows, and a {type(model).__name__} has no pipeline to read them: "
        "give what mizzen.models.load or DistributedTrainer.fit returned"
    )


def device_of(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def are_tensors(inputs: Any) -> TypeGuard[Tensor | tuple[Tensor, ...]]:
    return isinstance(inputs, Tensor) or (
        isinstance(inputs, tuple) and bool(inputs) and all(isinstance(part, Tensor) for part in inputs)
    )


def listed(rows: Any) -> list[Mapping[str, Any]]:
    """ValueError where there are none: a check of nothing would pass."""
    made = [rows] if isinstance(rows, Mapping) else list(rows)
    if not made:
        raise ValueError("a check needs at least one row")
    return made


def answer(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    with evaluating(module), torch.no_grad():
        made = module(*inputs)
    assert isinstance(made, Tensor), (
        f"{type(module).__name__} answers with a {type(made).__name__} and not with a tensor"
    )
    return made


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Each part goes back to its own mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random numbers of one seed within, and the caller's own afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _tuple(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _targets(model: Model, rows: list[Mapping[str, Any]]) -> Tensor | None:
    """Those that all rows bring in the target's column: numbers of classes, or numbers in their standard form."""
    name = model.pipeline.target.name
    if not all(name in row for row in rows):
        return None
    if not model.classes:
        recipe = model.trained.recipe
        values = torch.tensor([float(row[name]) for row in rows])
        return (values - recipe.target_mean) / (recipe.target_deviation or 1.0)
    for number, row in enumerate(rows):
        if str(row[name]) not in model.classes:
            raise ValueError(f"row {number} has the class {row[name]!r}; the model knows {', '.join(model.classes)}")
    return torch.tensor([model.classes.index(str(row[name])) for row in rows])
