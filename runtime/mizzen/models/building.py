"""A recipe is all that a module was made of, so that it can be made again: by name, or by an import path."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mizzen import entrypoints
from mizzen.errors import UserError
from mizzen.models import catalog
from mizzen.models.shapes import DataShape
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from torch import Tensor, nn

_FIELD = "model.entrypoint"


@dataclass(frozen=True)
class Recipe:
    """`model` is a name of the catalog with its whole configuration, `entrypoint` a path with what the user set."""

    data: DataShape
    model: str = ""
    entrypoint: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    target_mean: float = 0.0  # of a number to predict: models are trained on its standard form
    target_deviation: float = 1.0

    @classmethod
    def by_name(cls, name: str, settings: Mapping[str, Any], data: DataShape) -> Recipe:
        """UserError names a setting that is wrong, or a model that reads something else."""
        return cls(data, model=name, config=dataclasses.asdict(catalog.config_for(name, settings, data)))

    @property
    def name(self) -> str:
        return self.model or self.entrypoint

    def build(self) -> nn.Module:
        """A freshly initialised module; UserError where the entrypoint fails or makes no module."""
        if self.entrypoint:
            return from_entrypoint(self.entrypoint, self.config, self.data)
        return catalog.build(self.model, catalog.config_class(self.model)(**self.config))


def from_entrypoint(path: str, config: Mapping[str, Any], data: DataShape) -> nn.Module:
    """build(config, data) → nn.Module, of package.module:name."""
    from torch import nn

    build = entrypoints.load(path, _FIELD)
    module = entrypoints.call(build, path, _FIELD, dict(config), data)
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        raise _wrong(f"{_FIELD} {path} gave a {kind} and no torch.nn.Module")
    return module


def check_fits(module: nn.Module, data: DataShape, named: str) -> None:
    """One forward pass. UserError with the shapes where the module cannot read the dataset, or answers otherwise."""
    import torch

    example = data.example()
    was_training = module.training
    given = " and ".join(f"{tuple(part.shape)} {str(part.dtype).removeprefix('torch.')}" for part in example)
    mend = f"the Dataset is {data.task} with {data.outputs} output{'s' if data.outputs > 1 else ''}"
    try:
        with torch.no_grad():
            output: Tensor = module.eval()(*example)
    except Exception as error:
        raise _wrong(
            f"{named} does not fit the Dataset: called with {given} it raised {entrypoints.told(error)}"
        ) from error
    finally:
        module.train(was_training)
    rows = len(example[0])
    wanted = [(rows, data.outputs)] + ([(rows,)] if not data.classes else [])
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
    if shape not in wanted:
        raise _wrong(
            f"{named} does not fit the Dataset: called with {given} it answered {shape}, not {wanted[0]}; {mend}"
        )


def _wrong(message: str) -> UserError:
    return UserError(Reason.INVALID_PARAMETERS, message)


def has_unused_parameters(module: nn.Module, data: DataShape) -> bool:
    """Whether a forward pass may leave out parameters that want a gradient; the module stays as it was."""
    import torch

    buffers = [buffer.clone() for buffer in module.buffers()]
    try:
        module(*data.example()).float().sum().backward()
        unused = any(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    except Exception:  # the first step says what is wrong, with its rows
        unused = True
    with torch.no_grad():
        for buffer, value in zip(module.buffers(), buffers, strict=True):
            buffer.copy_(value)
    module.zero_grad()
    return unused
