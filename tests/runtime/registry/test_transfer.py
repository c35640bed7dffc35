"""A registered version as a folder for Git, and back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.models import Model

from mizzen.data.materialize import Version
from mizzen.data.store import DatasetVersion
from mizzen.errors import UserError
from mizzen.models import load
from mizzen.registry import layout
from mizzen.registry.runs import RunLog, ensure_experiment, ensure_run
from mizzen.registry.signature import example_of, profile_of
from mizzen.registry.transfer import export, export_command, import_, import_command
from mizzen.registry.versions import download, register
from mizzen.train.loop import Loop
from mizzen.train.plan import TrainPlan
from mizzen_api import contract
from mizzen_api.trainingjob import Register

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TAGS = {
    contract.TAG_UID: "a-uid",
    contract.TAG_CONFIG_HASH: "sha256:c0ffee",
    contract.TAG_CODE_REVISION: "0123abc",
}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry in SQLite: versions and their files, without a server."""
    folder = tmp_path_factory.mktemp("mlflow")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)  # where MLflow puts artifacts of a registry in a file
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    yield uri
    patch.undo()


@pytest.fixture(scope="module")
def registered(tracking: str, version: Version, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a version that a loop trained."""
    plan = TrainPlan("text-bag", {"embedding_dim": 8}, version.uri, version.fingerprint, 1e-2, epochs=1)
    loop = Loop(plan)
    assert list(loop.steps())
    folder = tmp_path_factory.mktemp("run") / "final"
    loop.save(folder)
    client = MlflowClient(tracking, tracking)
    tags = {**TAGS, contract.TAG_DATASET_FINGERPRINT: version.fingerprint}
    run = RunLog(client, ensure_run(client, ensure_experiment(client, "default/bag"), "bag", tags))
    run.parameters({"epochs": 1, "model": "text-bag"})
    metrics = {"test_accuracy": 1 / 3, "test_loss": 1e-17}
    run.metrics(metrics, 4)
    run.flush()
    profile = profile_of(DatasetVersion(version.uri))
    return register(client, Register(name="bag"), folder, run.run_id, tags, metrics, profile).uri


@pytest.fixture
def exported(registered: str, tmp_path: Path) -> Path:
    return export(registered, tmp_path / "models" / "v1.0")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_the_layout_for_git(exported: Path, version: Version) -> None:
    found = contents(exported)
    assert set(found) == {
        "config.yaml", "dataset_hash.txt", ".gitattributes",
        "checkpoint/model.safetensors", "checkpoint/config.json", "checkpoint/pipeline.json",
        "checkpoint/input_example.json",
    }  # fmt: skip
    assert found["dataset_hash.txt"].decode() == version.fingerprint + "\n"
    about = yaml.safe_load(found["config.yaml"])
    assert about["provenance"] == {
        "codeRevision": "0123abc", "configHash": "sha256:c0ffee", "datasetFingerprint": version.fingerprint,
    }  # fmt: skip
    assert about["metrics"] == {"test_accuracy": 1 / 3, "test_loss": 1e-17} and about["parameters"]["epochs"] == "1"


def test_there_and_back_is_the_same_to_the_bit(exported: Path, tmp_path: Path, tracking: str) -> None:
    first = import_(exported, "elsewhere", alias="candidate")
    again = import_(exported, "elsewhere")
    assert (first.uri, first.alias) == ("models:/elsewhere/1", "candidate") and again.version == first.version
    assert contents(export("models:/elsewhere@candidate", tmp_path / "back")) == contents(exported)
    moved = MlflowClient(tracking, tracking).get_model_version("elsewhere", "1")
    assert moved.tags[contract.TAG_CODE_REVISION] == "0123abc"


def test_a_version_tells_what_it_takes_and_gives(registered: str, tmp_path: Path, version: Version) -> None:
    import mlflow

    folder = download(registered, tmp_path)
    model = Model.load(str(folder))
    assert model.signature.inputs.to_dict() == [{"type": "string", "name": "text", "required": False}]
    assert model.signature.outputs.to_dict() == [{"type": "string", "required": True}]
    example = model.load_input_example(str(folder))
    assert list(example.columns) == ["text"] and example["text"][0] == "text"
    loaded = mlflow.pyfunc.load_model(registered)
    assert loaded.predict(example)[0] in {"bad", "good", "so-so"}


def test_an_example_has_what_is_frequent(registered: str, tmp_path: Path) -> None:
    from mizzen.data.pipeline import Pipeline

    pipeline = Pipeline.load(download(registered, tmp_path) / contract.MODEL_PIPELINE)
    assert example_of(pipeline) == {"text": "text"}
    counts = {"a long one … 3c6b32246cc7": 9, "good": 3, "bad": 2}
    assert example_of(pipeline, {"columns": {"text": {"frequent": {"counts": counts}}}}) == {"text": "good"}


def test_a_folder_is_exported_as_a_version_is(exported: Path, tmp_path: Path) -> None:
    """One that was exported keeps what it says; bare weights and pipeline say nothing."""
    assert contents(export(str(exported), tmp_path / "copy")) == contents(exported)
    plain = export((exported / "checkpoint").as_uri(), tmp_path / "plain")
    assert contents(plain / "checkpoint") == contents(exported / "checkpoint")
    assert layout.read(plain) == layout.Exported()


def test_what_fit_saved_keeps_its_triple_without_a_run(shelf: Path, tracking: str, tmp_path: Path) -> None:
    about = layout.read(shelf / "v1.0")
    assert about.provenance.keys() == {"datasetFingerprint", "codeRevision", "configHash"}
    assert about.metrics["test_accuracy"] > 0.9
    assert (about.parameters["model"], about.parameters["epochs"]) == ("text-transformer", "12")
    fingerprint = about.provenance["datasetFingerprint"]
    assert fingerprint.startswith("sha256:")
    assert (shelf / "v1.0" / "dataset_hash.txt").read_text().strip() == fingerprint
    version = import_(shelf / "v1.0", "fitted")
    found = MlflowClient(tracking, tracking).get_model_version("fitted", str(version.version))
    assert found.tags[contract.TAG_DATASET_FINGERPRINT] == fingerprint
    assert contents(export(version.uri, tmp_path / "back")) == contents(shelf / "v1.0")


@pytest.mark.parametrize("name", ["model.pkl", "weights.pt", "code/data.bin"])
def test_only_safetensors_json_and_code_are_exported(exported: Path, tmp_path: Path, name: str) -> None:
    path = exported / "checkpoint" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=rf"{path.name} does not belong to a model"):
        export(str(exported / "checkpoint"), tmp_path / "out")
    with pytest.raises(UserError, match=r"holds no config\.json"):
        export(str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_git_keeps_each_byte(exported: Path, tmp_path: Path) -> None:
    """Also where it is told to write the ends of lines as Windows does."""
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
    user = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true")

    def git(*words: str) -> None:
        subprocess.run(["git", *user, *words], check=True, capture_output=True, env=home, cwd=exported.parent)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "v1.0")
    git("clone", "-q", "-c", "core.autocrlf=true", ".", str(tmp_path / "clone"))
    cloned = tmp_path / "clone" / "v1.0"
    assert contents(cloned) == contents(exported) and layout.read(cloned) == layout.read(exported)


def test_a_version_is_loaded_by_its_uri(registered: str, exported: Path, tracking: str) -> None:
    by_uri, by_folder = load(registered), load(exported)
    row = {"text": "it works today, great"}
    assert torch.equal(by_uri(row)["logits"], by_folder(row)["logits"])
    assert load(registered, tracking_uri=tracking).classes == ("bad", "good", "so-so")
    with pytest.raises(UserError, match=r"MLflow refused \(find models:/bag/9\): Model Version .*not found"):
        load("models:/bag/9")


def test_a_name_that_was_given_anew_has_another_version(exported: Path, shelf: Path, tracking: str) -> None:
    """Versions count from 1 again: nothing may come from what was fetched before."""
    assert import_(exported, "anew").uri == "models:/anew/1"
    assert load("models:/anew/1").classes == ("bad", "good", "so-so")
    MlflowClient(tracking, tracking).delete_registered_model("anew")
    assert import_(shelf / "v1.0", "anew").uri == "models:/anew/1"
    assert load("models:/anew/1").classes == ("bad", "good")


def tamper(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("weights", lambda f: tamper(f / "checkpoint/model.safetensors"), r"model\.safetensors is not what was exported"),
    (
        "pointer",
        lambda f: (f / "checkpoint/model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid x\n"
        ),
        r"is a pointer of Git LFS and not the file: run `git lfs pull`",
    ),
    ("missing", lambda f: (f / "checkpoint/config.json").unlink(), r"checkpoint/config\.json is not there"),
    ("extra", lambda f: (f / "checkpoint/x.pkl").write_bytes(b"x"), r"x\.pkl is not among the files of config\.yaml"),
    ("hash", lambda f: (f / "dataset_hash.txt").write_text("sha256:0\n"), r"dataset_hash\.txt says sha256:0"),
    ("no config", lambda f: (f / "config.yaml").unlink(), r"config\.yaml is not there: name a folder"),
    ("no yaml", lambda f: (f / "config.yaml").write_text("a: ["), r"config\.yaml is no YAML"),
    ("other yaml", lambda f: (f / "config.yaml").write_text("a: 1"), r"must hold the mappings provenance"),
    (
        "outside",
        lambda f: (f / "config.yaml").write_text(
            (f / "config.yaml").read_text().replace("checkpoint/config.json", "checkpoint/../../etc")
        ),
        r"does not lie in checkpoint/",
    ),
]


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGE, ids=[name for name, _, _ in DAMAGE])
def test_a_damaged_folder_is_refused(
    exported: Path, tracking: str, name: str, damage: Callable[[Path], object], said: str
) -> None:
    damage(exported)
    with pytest.raises(UserError, match=said):
        import_(exported, "damaged")
    assert not MlflowClient(tracking, tracking).search_registered_models("name = 'damaged'")


def test_a_folder_that_is_there_is_replaced_only_when_told(
    exported: Path, registered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (exported / "config.yaml").write_text("mine")
    assert export_command(registered, exported, "", force=False) == 1
    assert "is there already: name another, or use --force" in capsys.readouterr().err
    assert (exported / "config.yaml").read_text() == "mine"
    assert export_command(registered, exported, "", force=True) == 0
    assert layout.read(exported).parameters["epochs"] == "1"
    assert [path.name for path in exported.parent.iterdir()] == ["v1.0"]


def test_the_commands_say_what_they_did(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_command(exported, "told", "candidate", "") == 0
    assert "is models:/told/1, with the alias candidate" in capsys.readouterr().out
    shutil.rmtree(exported / "checkpoint")
    assert import_command(exported, "told", "", "") == 1
    assert json.dumps(capsys.readouterr().err).count("\\n") == 1
