"""Whether a model and a pipeline belong together: sizes, vocabulary, classes, and what the pipeline makes of rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from mizzen.data.pipeline import Pipeline, RowError
from mizzen.errors import UserError
from mizzen.models.building import check_fits
from mizzen.models.inputs import inputs_of
from mizzen.models.loading import Model, Row
from mizzen.models.shapes import TEXT, DataShape
from mizzen.testing.asking import Rows, answer, evaluating, fail, listed

if TYPE_CHECKING:
    from torch import Tensor


def check_compatible(model: nn.Module, pipeline: Pipeline | None = None, rows: Row | Rows = ()) -> None:
    """The model reads what the pipeline makes, and answers with as many outputs as it has classes.

    A loaded model brings its own pipeline; another one may be given, for example that of a newer Dataset. Tried are two
    rows of the right shape, for texts also the last word of the vocabulary and the shortest and longest length, and the
    `rows`: they go through the pipeline as it is and as it is after being written and read, with the same outcome.
    """
    __tracebackhide__ = True
    module = model.module if isinstance(model, Model) else model
    if pipeline is None:
        if not isinstance(model, Model):
            raise TypeError("a torch.nn.Module brings no pipeline: give check_compatible one")
        pipeline = model.pipeline
    try:
        data = DataShape.of(pipeline)
        if isinstance(model, Model):
            _check_same(model.data, data)
        check_fits(module, data, type(module).__name__)
    except UserError as error:
        fail(error.message)
    if data.modality == TEXT:
        _check_extremes(module, data)
    if rows:
        _check_rows(module, pipeline, data, listed(rows))


def _check_same(known: DataShape, made: DataShape) -> None:
    __tracebackhide__ = True
    before, now = asdict(known), asdict(made)
    for name, value in before.items():
        if now[name] != value:
            fail(f"the model was trained for {name} {value!r}, and the pipeline makes {now[name]!r}")


def _check_extremes(module: nn.Module, data: DataShape) -> None:
    __tracebackhide__ = True
    for length in (1, data.max_length):
        ids = torch.full((2, length), data.vocab_size - 1)
        lengths = torch.tensor([1, length], dtype=torch.int32)
        try:
            with evaluating(module):
                said = answer(module, (ids, lengths))
        except (IndexError, RuntimeError) as error:
            fail(f"token {data.vocab_size - 1} in texts of {length} tokens: {type(error).__name__}: {error}")
        if not torch.isfinite(said).all():
            fail(f"the answer for token {data.vocab_size - 1} in texts of {length} tokens is not finite")


def _check_rows(module: nn.Module, pipeline: Pipeline, data: DataShape, rows: list[Row]) -> None:
    __tracebackhide__ = True
    again = Pipeline.from_json(pipeline.to_json())
    try:
        made, replayed = pipeline.transform_rows(rows), again.transform_rows(rows)
        tensors: tuple[Tensor, ...] = inputs_of(data, pipeline.features, made)
    except RowError as error:
        fail(f"the pipeline cannot take the rows: {error}")
    for name, array in made.items():
        if not np.array_equal(array, replayed[name], equal_nan=array.dtype.kind == "f"):
            fail(f"{name} differs once the pipeline was written to JSON and read")
    with evaluating(module):
        said = answer(module, tensors)
    if said.reshape(len(rows), -1).shape[1] != data.outputs or not torch.isfinite(said).all():
        fail(f"{len(rows)} rows were answered {tuple(said.shape)}, not {(len(rows), data.outputs)} finite numbers")
