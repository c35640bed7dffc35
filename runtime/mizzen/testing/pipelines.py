"""Whether a pipeline and a model belong together: the one takes what the other gives, and classes mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mizzen import entrypoints
from mizzen.models.inputs import inputs_of
from mizzen.models.loading import LENGTH, Model, Rows
from mizzen.models.shapes import TEXT, DataShape
from mizzen.testing.modules import check_forward
from mizzen.testing.subjects import Checked, device_of, held, listed

if TYPE_CHECKING:
    from mizzen.data.pipeline import Arrays, Pipeline


def check_pipeline(model: Checked, rows: Rows | None = None, *, pipeline: Any = None) -> None:
    """The model takes all that the pipeline can give, for `rows` too, and a pipeline read from its file gives the same.

    `pipeline` is the model's own unless given: that of a Dataset's version (or the version, or ProcessedData) which
    the model is to be trained on or to go on with. A plain module needs it.
    """
    __tracebackhide__ = True
    if isinstance(model, nn.Module) and not isinstance(model, Model):
        if pipeline is None:
            raise TypeError(f"{type(model).__name__} comes without a pipeline: give one")
        module, name, knows = model, type(model).__name__, None
    else:
        made = held(model)
        module, name, knows = made.module, made.name, made.data
        pipeline = made.pipeline if pipeline is None else pipeline
    read: Pipeline = getattr(pipeline, "pipeline", pipeline)
    data = DataShape.of(read)
    if knows is not None:
        _same_shape(name, knows, data)
    _takes_all(module, name, data)
    if rows is not None:
        _reads(module, name, read, data, listed(rows))


def _same_shape(name: str, knows: DataShape, data: DataShape) -> None:
    """Classes in another order would be answered with each other's names, and no shape would tell."""
    __tracebackhide__ = True
    for field in fields(DataShape):
        of_model, of_pipeline = getattr(knows, field.name), getattr(data, field.name)
        assert of_model == of_pipeline, (
            f"{name} was made for {field.name} {_short(of_model)}, and the pipeline gives {_short(of_pipeline)}: "
            "train on this Dataset, or use the pipeline that came with the model"
        )


def _takes_all(module: nn.Module, name: str, data: DataShape) -> None:
    """Two rows of the data's shape; of texts also the longest of the last word."""
    __tracebackhide__ = True
    _takes(module, data.example(), name, data)
    if data.modality == TEXT:
        last = torch.full((2, data.max_length), data.vocab_size - 1)
        told = f" with ids up to {data.vocab_size - 1}"
        _takes(module, (last, torch.full((2,), data.max_length, dtype=torch.int32)), name, data, told)


def _takes(module: nn.Module, inputs: tuple[Tensor, ...], name: str, data: DataShape, told: str = "") -> None:
    __tracebackhide__ = True
    device = device_of(module)
    try:
        check_forward(module, tuple(part.to(device) for part in inputs), outputs=data.outputs)
    except AssertionError:
        raise
    except Exception as error:  # whatever a user's module raises
        shapes = " and ".join(f"{tuple(part.shape)} {str(part.dtype).removeprefix('torch.')}" for part in inputs)
        raise AssertionError(
            f"{name} does not take what the pipeline gives, {shapes}{told}: {entrypoints.told(error)}"
        ) from error


def _reads(module: nn.Module, name: str, pipeline: Pipeline, data: DataShape, rows: list[Mapping[str, Any]]) -> None:
    from mizzen.data.pipeline import Pipeline, RowError

    __tracebackhide__ = True
    known = {*pipeline.inputs, pipeline.target.name}
    given = [{key: value for key, value in row.items() if key in known or key != LENGTH} for row in rows]
    try:
        arrays = pipeline.transform_rows(given)
        inputs = inputs_of(data, pipeline.features, arrays)
    except RowError as error:
        raise AssertionError(f"the pipeline does not take the rows: {error}") from error
    _takes(module, inputs, name, data)
    _same_arrays(arrays, Pipeline.from_json(pipeline.to_json()).transform_rows(given))


def _same_arrays(made: Arrays, again: Arrays) -> None:
    __tracebackhide__ = True
    assert made.keys() == again.keys(), f"read from its file the pipeline makes {sorted(again)}, not {sorted(made)}"
    for name, values in made.items():
        same = np.array_equal(values, again[name], equal_nan=values.dtype.kind == "f")
        assert same, f"read from its file the pipeline makes other {name} of the same rows"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
