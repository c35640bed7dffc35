"""Where a plan's model comes from: an import path, a registered version, a teacher."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from mizzen.data import DataPipeline
from mizzen.data.materialize import Version, materialize
from mizzen.data.store import DatasetVersion
from mizzen.errors import UserError
from mizzen.models import artifact
from mizzen.models.shapes import DataShape
from mizzen.train.loop import Loop
from mizzen_api.conditions import Reason
from mizzen_api.trainingjob_trainer import Distillation
from tests.runtime.conftest import corpus, dataset_spec
from tests.runtime.train.toys import plan

NET = """
import torch
from torch import nn

def build(config, data):
    width = config["width"]
    return nn.Sequential(nn.Linear(data.num_features, width), nn.ReLU(), nn.Linear(width, data.outputs))

def fails(config, data):
    return config["nothing"]

def answer(config, data):
    return 42
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's files, on the path."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "usernet.py").write_text(NET)
    (folder / "broken.py").write_text("import torch\nimport no_such_package\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "usernet", raising=False)
    return folder


def numbers(
    tmp_path: Path, names: tuple[str, ...] = ("a", "b"), classes: tuple[str, ...] = ("no", "yes")
) -> DatasetVersion:
    """The class is whether a + b is above 0, whatever the columns' order and the classes' names are."""
    rng = random.Random(1)
    rows = [{name: rng.gauss(0, 1) for name in ("a", "b")} for _ in range(300)]
    table = pl.DataFrame([{**{n: row[n] for n in names}, "y": classes[row["a"] + row["b"] > 0]} for row in rows])
    return DataPipeline(table, [], "y").materialize(tmp_path / "-".join((*names, *classes)))


def trained(loop: Loop) -> Loop:
    for _ in loop.steps():
        pass
    return loop


@pytest.mark.usefixtures("code")
def test_a_model_of_ones_own_takes_its_code_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"model": "", "entrypoint": "usernet:build", "settings": {"width": 16}}
    loop = trained(Loop(plan(**changes, epochs=8), dataset=numbers(tmp_path)))
    assert loop.evaluate("test")["accuracy"] > 0.9
    loop.save(tmp_path / "m")
    rows = [{"a": 2.0, "b": 1.0}, {"a": -2.0, "b": 0.5}]
    expected = artifact.load(tmp_path / "m").predict_rows(rows)
    monkeypatch.delitem(sys.modules, "usernet")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not entry.endswith("/code")])
    elsewhere = artifact.load(tmp_path / "m")  # where the user's files are not installed
    assert elsewhere.predict_rows(rows).tolist() == expected.tolist()
    assert expected.argmax(axis=1).tolist() == [1, 0]


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize(
    ("entrypoint", "said"),
    [
        ("broken:build", r"ModuleNotFoundError: No module named 'no_such_package'.*line 2"),
        ("usernet:missing", r"usernet.*missing"),
        ("usernet:fails", r"KeyError: 'nothing'"),
        ("usernet:answer", r"usernet:answer gave a int and no torch\.nn\.Module"),
    ],
)
def test_an_entrypoint_that_fails_is_told_by_its_last_line(entrypoint: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as error:
        Loop(plan(model="", entrypoint=entrypoint, settings={"width": 4}), dataset=numbers(tmp_path))
    assert error.value.reason == Reason.INVALID_PARAMETERS


@pytest.mark.parametrize("name", ["text-bag", "text-transformer"])
def test_fine_tuning_carries_words_and_classes_over_by_name(name: str, version: Version, tmp_path: Path) -> None:
    """Another version of the Dataset numbers its tokens anew."""
    changes = {"model": name, "settings": {}, "epochs": 4, "learning_rate": 1e-2 if name == "text-bag" else 3e-3}
    first = trained(Loop(plan(**changes), dataset=DatasetVersion(version.uri)))
    assert (known := first.evaluate("test")["accuracy"]) > 0.8
    first.save(tmp_path / "m")
    (tmp_path / "next.csv").write_text(corpus(500, seed=9).replace("so-so", "a-middling"))
    other = materialize(dataset_spec(tmp_path / "next.csv"), (tmp_path / "artifacts").as_uri(), "default", "next")
    dataset = DatasetVersion(other.uri)
    assert dataset.pipeline.tokens.tokenizer_json != first.rows_at_rest.pipeline.tokens.tokenizer_json
    second = Loop(plan(model="", model_uri=str(tmp_path / "m"), settings={}), dataset=dataset)
    assert second.recipe.model == name
    # Before any step, and with one class of three whose name is new.
    assert second.evaluate("test")["accuracy"] > 0.55 * known
    scrambled = Loop(plan(model=name, settings={}), dataset=dataset)
    shapes = zip(scrambled.module.parameters(), first.module.parameters(), strict=True)
    assert all(mine.shape == its.shape for mine, its in shapes)
    scrambled.module.load_state_dict(first.module.state_dict())
    assert second.evaluate("test")["loss"] < scrambled.evaluate("test")["loss"]
    assert trained(second).evaluate("test")["accuracy"] > 0.8


def test_fine_tuning_carries_columns_over_by_name(tmp_path: Path) -> None:
    first = trained(Loop(plan(epochs=8), dataset=numbers(tmp_path)))
    first.save(tmp_path / "m")
    turned = numbers(tmp_path, ("b", "a"), ("0-yes-not", "1-yes"))
    second = Loop(plan(model="", model_uri=str(tmp_path / "m"), settings={}), dataset=turned)
    mine, its = second.module.state_dict(), first.module.state_dict()
    assert torch.equal(mine["stem.weight"], its["stem.weight"][:, [1, 0]])


def test_a_version_for_something_else_is_told(tmp_path: Path, version: Version) -> None:
    loop = Loop(plan(model="text-bag", settings={}), dataset=DatasetVersion(version.uri))
    loop.save(tmp_path / "m")
    with pytest.raises(
        UserError, match="was trained for text-classification, and the Dataset is one for table-classif"
    ):
        Loop(plan(model="", model_uri=str(tmp_path / "m"), settings={}), dataset=numbers(tmp_path))


def test_a_student_learns_from_a_registered_teacher(version: Version, tmp_path: Path) -> None:
    dataset = DatasetVersion(version.uri)
    teacher = trained(Loop(plan(model="text-transformer", settings={}, epochs=3, learning_rate=3e-3), dataset=dataset))
    teacher.save(tmp_path / "m")
    settings = Distillation.model_construct(
        teacher_uri=str(tmp_path / "m"), temperature=2.0, weight=1.0, hidden_states=0.5
    )
    small = {"embedding_dim": 16, "num_layers": 1, "attention_heads": 2}
    student = Loop(plan(model="text-transformer", settings=small, epochs=3, distillation=settings), dataset=dataset)
    trained(student)
    assert student.evaluate("test")["accuracy"] > 0.7, "by the teacher's word alone"
    assert any(name.startswith("model/student.") for name in student.tensors())
    assert any(name.startswith("model/maps.") for name in student.tensors()), "a resumed run goes on with them"
    student.save(tmp_path / "s")
    assert set(artifact.load(tmp_path / "s").module.state_dict()) == set(student.module.state_dict())


def test_a_teacher_that_reads_other_columns_is_told(tmp_path: Path) -> None:
    Loop(plan(), dataset=numbers(tmp_path)).save(tmp_path / "m")
    turned = numbers(tmp_path, ("b", "a"), ("0-yes-not", "1-yes"))
    settings = Distillation.model_construct(
        teacher_uri=str(tmp_path / "m"), temperature=2.0, weight=0.5, hidden_states=0.0
    )
    with pytest.raises(UserError, match=r"the columns of teacher .* are not those of the Dataset"):
        Loop(plan(distillation=settings), dataset=turned)


def test_shapes_say_what_a_model_is_called_with() -> None:
    text = DataShape("text", ("a", "b"), vocab_size=50, max_length=7)
    ids, lengths = text.example()
    assert (ids.shape, lengths.tolist(), text.task, text.outputs) == ((2, 7), [7, 7], "text-classification", 2)
    image = DataShape("image", image=(3, 8, 6))
    assert (image.example()[0].shape, image.task, image.outputs) == ((2, 3, 8, 6), "image-regression", 1)
    assert DataShape.from_dict(text.to_dict()) == text
