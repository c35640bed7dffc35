"""From a name and settings in a manifest to a module: which models there are, and which settings each has."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mizzen.errors import UserError
from mizzen.models.shapes import IMAGE, TABLE, TEXT, DataShape, Modality
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    from torch import nn

# What the dataset decides; a manifest may not.
FROM_DATASET = ("vocab_size", "num_classes", "max_length", "num_features", "channels", "image_size")
# What goes with a model's settings in manifests, but belongs to the trainer.
TRAINER_SETTINGS = ("lr",)


@dataclass(frozen=True)
class Entry:
    """Where a model lives. Modules are imported when a model is built: names can be checked without torch."""

    module: str
    model: str
    config: str
    modality: Modality


MODELS = {
    "text-transformer": Entry("mizzen.models.text_transformer", "TextTransformer", "TextTransformerConfig", TEXT),
    "text-bag": Entry("mizzen.models.text_bag", "TextBag", "TextBagConfig", TEXT),
    "mlp": Entry("mizzen.models.mlp", "Mlp", "MlpConfig", TABLE),
    "cnn": Entry("mizzen.models.cnn", "Cnn", "CnnConfig", IMAGE),
    "resnet": Entry("mizzen.models.resnet", "ResNet", "ResNetConfig", IMAGE),
}
TASKS = {"text-classification": "text-transformer"}  # the family that a search of this task runs on


def entry(name: str) -> Entry:
    if name not in MODELS:
        raise UserError(Reason.INVALID_PARAMETERS, f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def settings(name: str) -> tuple[str, ...]:
    """Names that a manifest may set for this model."""
    return tuple(f.name for f in dataclasses.fields(config_class(name)) if f.name not in FROM_DATASET)


def config_class(name: str) -> Any:
    found = entry(name)
    return getattr(importlib.import_module(found.module), found.config)


def config_for(name: str, values: Mapping[str, Any], data: DataShape) -> Any:
    """The model's configuration for a dataset; UserError where it reads something else than the dataset has."""
    reads = entry(name).modality
    if reads != data.modality:
        fitting = ", ".join(known for known, its in MODELS.items() if its.modality == data.modality)
        raise UserError(
            Reason.INVALID_PARAMETERS,
            f"model {name} reads {_plural(reads)}, and the Dataset's features are those of {_plural(data.modality)}: "
            f"use {fitting}, or change the Dataset's transforms",
        )
    return config_of(name, values, **data.settings())


def config_of(name: str, values: Mapping[str, Any], **from_dataset: int) -> Any:
    """The model's configuration, checked: UserError names the setting that is wrong and those that exist."""
    config = config_class(name)
    fields = {f.name: f for f in dataclasses.fields(config)}
    known = settings(name)
    given = {key: value for key, value in values.items() if key not in TRAINER_SETTINGS}
    for key, value in given.items():
        if key not in known:
            raise UserError(
                Reason.INVALID_PARAMETERS,
                f"model {name} has no setting {key!r}; it has {', '.join(known)}, and {', '.join(TRAINER_SETTINGS)}",
            )
        given[key] = _number(name, key, value, str(fields[key].type))
    try:
        return config(**given, **{key: value for key, value in from_dataset.items() if key in fields})
    except ValueError as error:
        raise UserError(Reason.INVALID_PARAMETERS, f"model {name}: {error}") from error


def build(name: str, config: Any) -> nn.Module:
    """A freshly initialised module."""
    found = entry(name)
    module: nn.Module = getattr(importlib.import_module(found.module), found.model)(config)
    return module


def _plural(modality: str) -> str:
    return {TEXT: "texts", TABLE: "tables", IMAGE: "images"}[modality]


def _number(model: str, key: str, value: Any, kind: str) -> int | float:
    bad = isinstance(value, bool) or not isinstance(value, int | float)
    if bad or (kind == "int" and (value != int(value) or value < 1)) or (kind == "float" and not 0 <= value < 1):
        wanted = "a whole number above 0" if kind == "int" else "a number from 0 to below 1"
        raise UserError(Reason.INVALID_PARAMETERS, f"model {model}: {key} must be {wanted}, not {value!r}")
    return int(value) if kind == "int" else float(value)
