"""Models as users hold them: found by name, folder and URI, called with rows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mizzen.data.pipeline import RowError
from mizzen.data.steps.base import Feature, Target
from mizzen.errors import UserError
from mizzen.models import ImageClassifier, Model, TableModel, TextClassifier, artifact, load
from mizzen.models.building import Recipe
from mizzen.models.shapes import DataShape

TEXT = "This product is excellent"


@pytest.fixture
def sample_input() -> dict[str, Any]:
    return {"text": "This product is excellent", "length": 3}


def test_forward_pass(sample_input: dict[str, Any], shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf.parent)
    model = TextClassifier.load("v1.0")
    output = model(sample_input)
    assert output["logits"].shape == (1, 2)
    assert output["probabilities"].sum().item() == pytest.approx(1)
    assert output["label"] == ["good"]
    assert model({"text": "it is awful"})["label"] == ["bad"]


def test_answers_are_those_of_the_server(shelf: Path) -> None:
    model = load(shelf / "v1.0")
    rows = [{"text": TEXT}, {"text": "awful"}]
    served = artifact.load(shelf / "v1.0" / "checkpoint").predict_rows(rows)
    assert torch.equal(model(rows)["probabilities"].detach(), torch.from_numpy(served))
    model(rows)["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


PLACES: list[tuple[str, Callable[[Path], str]]] = [
    ("exported folder", lambda shelf: str(shelf / "v1.0")),
    ("file URI", lambda shelf: (shelf / "v1.0").as_uri()),
    ("checkpoint", lambda shelf: str(shelf / "v1.0" / "checkpoint")),
    ("what a training saved", lambda shelf: str(shelf.parent / "run")),
    ("name below $MIZZEN_MODELS", lambda shelf: "v1.0"),
]


@pytest.mark.parametrize(("name", "place"), PLACES, ids=[name for name, _ in PLACES])
def test_a_model_is_found(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: Callable[[Path], str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIZZEN_MODELS", str(shelf))
    model = load(place(shelf))
    assert type(model) is TextClassifier and model.classes == ("bad", "good") and not model.training


def test_what_is_not_there_is_told_with_what_is(shelf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no model 'v2.0': looked for it in v2.0 and models/v2.0; set \$MIZZEN_MODELS"):
        load("v2.0")
    monkeypatch.setenv("MIZZEN_MODELS", str(shelf))
    with pytest.raises(UserError, match=r"models has v1.0"):
        load("v2.0")


def test_another_kind_of_model_is_named(shelf: Path) -> None:
    with pytest.raises(UserError, match=r"is a model for text-classification: use TextClassifier\.load"):
        ImageClassifier.load(shelf / "v1.0")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("checkpoint/model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        ("checkpoint/config.json", b"{}", "is not what was exported"),
        ("checkpoint/more.pkl", b"\x80\x04.", "is not among the files"),
    ],
)
def test_files_that_changed_are_refused(shelf: Path, tmp_path: Path, file: str, content: bytes, said: str) -> None:
    shutil.copytree(shelf / "v1.0", tmp_path / "v1.0")
    (tmp_path / "v1.0" / file).write_bytes(content)
    with pytest.raises(UserError, match=said):
        load(tmp_path / "v1.0")


def test_a_folder_that_is_broken_is_named(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "v1.0" / "checkpoint", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"broken holds no model that can be read"):
        load(tmp_path / "broken")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": TEXT, "lenght": 3}, "unknown column 'lenght'"),
        ({"length": 3}, "lacks the column 'text'"),
        ({"text": 7}, "column 'text' must be a string"),
    ],
)
def test_rows_are_checked_as_when_served(shelf: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError, match=said):
        load(shelf / "v1.0")(row)


def test_the_target_may_stay_in_rows(shelf: Path) -> None:
    assert load(shelf / "v1.0")([{"text": TEXT, "label": "bad"}])["label"] == ["good"]
    with pytest.raises(ValueError, match="at least one row"):
        load(shelf / "v1.0")([])


def test_a_number_is_answered_in_its_own_unit(tmp_path: Path) -> None:
    from mizzen.data.pipeline import Pipeline

    pipeline = Pipeline({"length": "Int64", "b": "Float64"}, (), Target("price", ()), (Feature("length"), Feature("b")))
    recipe = Recipe.by_name("mlp", {"hidden_dim": 4}, DataShape.of(pipeline))
    recipe = Recipe(recipe.data, model="mlp", config=recipe.config, target_mean=100.0, target_deviation=10.0)
    artifact.write(tmp_path, recipe, recipe.build().state_dict(), pipeline)
    model = load(tmp_path)
    rows = [{"length": 1, "b": 2.0}, {"length": 7, "b": 2.0}]
    value = model(rows)["value"]
    assert type(model) is TableModel and value.shape == (2,) and value[0] != value[1], "a column that is read stays"
    assert torch.equal(value.detach(), torch.from_numpy(model.trained.predict_rows(rows)[:, 0]))
    assert isinstance(Model.load(tmp_path), TableModel)


def test_names_come_without_torch() -> None:
    code = "import mizzen.models, sys; print(sorted({'torch', 'polars', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'Text'"):
        _ = __import__("mizzen.models").models.Text
