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

from mizzen.data.pipeline import Pipeline, RowError
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


NET = """
from torch import nn

class Net(nn.Sequential):
    WAY = "{way}"

def build(config, data):
    from {inner} import last
    return Net(nn.Linear(data.num_features, 4), last(), nn.Linear(4, data.outputs))
"""


@pytest.mark.parametrize("package", [False, True], ids=["module", "package"])
def test_versions_keep_code_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: bool) -> None:
    """The same import path in two versions, made by files that are no more."""
    name = "mizzen_test_pack" if package else "mizzen_test_net"
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for way, last in (("one", "Tanh"), ("two", "ReLU")):
        write_net(tmp_path / f"source-{way}", name, way, last, package=package)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / f"source-{way}")
            write_version(tmp_path / way, f"{name}{'.net' * package}:build")
        for part in [part for part in sys.modules if part.partition(".")[0] == name]:
            del sys.modules[part]
    one, two, again = (load(tmp_path / way) for way in ("one", "two", "one"))
    assert [model.module.WAY for model in (one, two, again)] == ["one", "two", "one"]
    assert [type(model.module[1]).__name__ for model in (one, two, again)] == ["Tanh", "ReLU", "Tanh"]
    assert str(tmp_path / "two" / "code") not in sys.path, "what was swapped in is gone"
    assert two([{"a": 1.0}])["logits"].shape == (1, 2)


def write_net(source: Path, name: str, way: str, last: str, *, package: bool) -> None:
    folder = source / name if package else source
    folder.mkdir(parents=True, exist_ok=True)
    if package:
        (folder / "__init__.py").touch()
        (folder / "parts.py").write_text(f"from torch.nn import {last} as last\n")
        (folder / "net.py").write_text(NET.format(way=way, inner=f"{name}.parts"))
    else:
        text = NET.format(way=way, inner="torch.nn").replace("import last", f"import {last} as last")
        (folder / f"{name}.py").write_text(text)


def write_version(folder: Path, entrypoint: str) -> None:
    """The source is on the path."""
    pipeline = Pipeline({"a": "Float64"}, (), Target("y", ("n", "p")), (Feature("a"),))
    recipe = Recipe(DataShape.of(pipeline), entrypoint=entrypoint)
    artifact.write(folder, recipe, recipe.build().state_dict(), pipeline)


def test_a_module_that_was_trained_as_an_object_is_given_again(tmp_path: Path) -> None:
    pipeline = Pipeline({"a": "Float64"}, (), Target("y", ("n", "p")), (Feature("a"),))
    module = torch.nn.Linear(1, 2)
    artifact.write(tmp_path, Recipe(DataShape.of(pipeline)), module.state_dict(), pipeline)
    with pytest.raises(UserError, match="holds the weights of a module that was given as an object: give load one"):
        load(tmp_path)
    loaded = load(tmp_path, module=torch.nn.Linear(1, 2))
    assert torch.equal(loaded({"a": 2.0})["logits"], module(torch.tensor([[2.0]])))


def test_names_come_without_torch() -> None:
    code = "import mizzen.models, sys; print(sorted({'torch', 'polars', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'Text'"):
        _ = __import__("mizzen.models").models.Text
