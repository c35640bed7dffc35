"""How the checks ask a model: modules by tensors, loaded models by rows, anything else by calling it with rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from mizzen.models.loading import Model, Row

Rows = Sequence[Row]
Inputs = Tensor | tuple[Tensor, ...] | Row | Rows
Answers = Callable[[Rows], Any]  # rows to probabilities (N, C) or values (N,), as an array or a tensor


def fail(message: str) -> NoReturn:
    """What every check ends with that does not pass."""
    __tracebackhide__ = True
    raise AssertionError(message)


def module_and_tensors(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module that computes, and what it is called with."""
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if isinstance(inputs, tuple) and inputs and all(isinstance(part, Tensor) for part in inputs):
        return (model.module if isinstance(model, Model) else model), inputs
    if not isinstance(model, Model):
        raise TypeError("a torch.nn.Module is called with tensors; rows are for what mizzen.models loads")
    return model.module, model.inputs(inputs)  # type: ignore[arg-type]


def answer(module: nn.Module, tensors: tuple[Tensor, ...]) -> Tensor:
    """The module's answer; of a mapping or an object its `logits`, or `value`."""
    said = module(*tensors)
    for name in ("logits", "value"):
        if isinstance(said, Mapping) and name in said:
            said = said[name]
        elif not isinstance(said, Tensor) and hasattr(said, name):
            said = getattr(said, name)
    if not isinstance(said, Tensor):
        fail(f"{type(module).__name__} answered with {type(said).__name__}, not with a tensor or logits")
    return said


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; each part is afterwards as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def predictions(model: Model | Answers, rows: Rows) -> Tensor:
    """(N, C) probabilities, or (N, 1) values, float64 on the CPU."""
    if isinstance(model, Model):
        with evaluating(model):
            said = model(rows)
        found = said["probabilities"] if model.classes else said["value"]
    else:
        found = model(rows)
    made = torch.as_tensor(found, dtype=torch.float64).detach().cpu()
    if made.dim() == 0 or len(made) != len(rows):
        fail(f"{len(rows)} rows were answered with shape {tuple(made.shape)}")
    return made.reshape(len(rows), -1)


def label(model: Model | Answers, index: int) -> str:
    """The name of a class; its number where the model is a plain function."""
    return model.classes[index] if isinstance(model, Model) and model.classes else str(index)


def listed(rows: Row | Rows, least: int = 1) -> list[Row]:
    found = [rows] if isinstance(rows, Mapping) else list(rows)
    if len(found) < least:
        raise ValueError(f"this check needs {least} row{'s' if least > 1 else ''} or more, not {len(found)}")
    return found
