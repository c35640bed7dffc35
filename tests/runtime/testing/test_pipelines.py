"""Pipelines and models that belong together, and those that do not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mizzen.data.materialize import Version
from mizzen.data.pipeline import Pipeline
from mizzen.data.store import DatasetVersion
from mizzen.models import Model
from mizzen.testing import check_pipeline
from tests.runtime.testing.broken import CountsPadding, Spoiled, rows, with_module


def test_a_model_and_its_own_pipeline(model: Model, prices: Model) -> None:
    check_pipeline(model)
    check_pipeline(model, [{**row, "length": 3} for row in rows()])
    check_pipeline(model, rows(), pipeline=model.pipeline)
    check_pipeline(prices, {"rooms": 3, "place": "Ulm", "size": 80.5})
    check_pipeline(CountsPadding(120, 2), rows(), pipeline=model)


def test_another_datasets_pipeline(model: Model, version: Version) -> None:
    with pytest.raises(
        AssertionError, match=r"was made for classes \('bad', 'good'\), and the pipeline gives \('bad', 'good', 'so-so'"
    ):
        check_pipeline(model, pipeline=DatasetVersion(version.uri))


def test_classes_in_another_order(model: Model) -> None:
    turned = replace(model.pipeline.target, classes=("good", "bad"))
    with pytest.raises(
        AssertionError, match=r"made for classes \('bad', 'good'\), and the pipeline gives \('good', 'bad'\)"
    ):
        check_pipeline(model, pipeline=replace(model.pipeline, target=turned))


def test_modules_that_do_not_fit(model: Model) -> None:
    words = model.data.vocab_size
    wanted = [
        (CountsPadding(words - 1, 2), rf"does not take what the pipeline gives, .*ids up to {words - 1}: IndexError"),
        (CountsPadding(words, 3), r"answers 2 rows with shape \(2, 3\), not \(2, 2\)"),
        (nn.Linear(4, 2), r"Linear does not take what the pipeline gives, \(2, 12\) int64 and \(2,\) int32: TypeError"),
    ]
    for module, said in wanted:
        with pytest.raises(AssertionError, match=said):
            check_pipeline(module, pipeline=model.pipeline)


def test_rows_are_read(model: Model) -> None:
    with pytest.raises(AssertionError, match="the pipeline does not take the rows: row 1 lacks the column 'text'"):
        check_pipeline(model, [*rows()[:1], {"label": "good"}])
    with pytest.raises(AssertionError, match=r"answer is nan at \[1, 0\]"):
        check_pipeline(with_module(model, Spoiled(model.module)), rows())
    with pytest.raises(TypeError, match="Linear comes without a pipeline: give one"):
        check_pipeline(nn.Linear(4, 2))


class Shortest(nn.Module):
    """Fails on real rows alone: those of one length pass."""

    def forward(self, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
        if len(set(lengths_B.tolist())) > 1:
            raise RuntimeError("lengths differ")
        return torch.zeros(len(ids_BT), 2)


def test_rows_that_the_module_does_not_take(model: Model) -> None:
    with pytest.raises(
        AssertionError, match=r"does not take what the pipeline gives, \(4, 8\) .*RuntimeError: lengths differ"
    ):
        check_pipeline(Shortest(), rows(), pipeline=model.pipeline)


def test_a_pipeline_that_its_file_does_not_give_again(model: Model) -> None:
    class Forgetful(Pipeline):
        def to_json(self) -> str:
            document = json.loads(super().to_json())
            (step,) = document["steps"]
            step["tokenizer_json"]["normalizer"] = None
            return json.dumps(document)

    pipeline = model.pipeline
    forgetful = Forgetful(pipeline.inputs, pipeline.steps, pipeline.target, pipeline.features)
    with pytest.raises(AssertionError, match="read from its file the pipeline makes other ids of the same rows"):
        check_pipeline(model, rows(), pipeline=forgetful)
