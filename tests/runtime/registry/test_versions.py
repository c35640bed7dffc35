"""One version for one training, whoever registers it, how often, and whatever dies meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mizzen.errors import RegistryUnreachable, UserError
from mizzen.registry import client as patience
from mizzen.registry.client import connect, patiently
from mizzen.registry.runs import RunLog
from mizzen.registry.versions import GateError, download, register
from mizzen_api import contract
from mizzen_api.trainingjob import Gate, ModelVersion, Register
from tests.conftest import free_port

from .registering import METRICS, run_of, tags_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    patch.setenv(contract.ENV_MLFLOW, uri)
    MlflowClient(uri, uri).search_experiments()  # makes the tables
    yield uri
    patch.undo()


@pytest.fixture
def model(shelf: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shelf / "v1.0" / "checkpoint", tmp_path / "final")


def registered(client: MlflowClient, model: Path, uid: str, target: Register, accuracy: float = 0.9) -> ModelVersion:
    run_id = run_of(client, uid)
    run = RunLog(client, run_id)
    run.metrics({"test_accuracy": accuracy}, 1)
    run.flush()
    return register(client, target, model, run_id, tags_of(uid), {"test_accuracy": accuracy})


def versions(client: MlflowClient, name: str) -> list[int]:
    return sorted(int(found.version) for found in client.search_model_versions(f"name = '{name}'"))


def test_a_version_has_its_triple_and_what_its_gates_said(tracking: str, model: Path) -> None:
    client = MlflowClient(tracking, tracking)
    target = Register(name="told", alias="champion", gates=[Gate(min=0.5)])
    first = registered(client, model, "told-1", target)
    assert registered(client, model, "told-1", target) == first and versions(client, "told") == [1]
    found = client.get_model_version_by_alias("told", "champion")
    assert found.tags == tags_of("told-1") | {
        "mizzen.gates": "passed: gate accuracy: 0.9000 is not below the minimum 0.5"
    }
    assert client.get_run(found.run_id).data.metrics == {"test_accuracy": 0.9}


def test_the_alias_moves_to_what_is_not_worse(tracking: str, model: Path) -> None:
    client = MlflowClient(tracking, tracking)
    gate = Gate(not_worse_than="champion", tolerance=0.01)
    target = Register(name="better", alias="champion", gates=[gate])
    registered(client, model, "better-1", target, accuracy=0.9)
    with pytest.raises(GateError, match=r"0\.8000 is worse than 0\.9000 of models:/better/1 \(champion\)") as error:
        registered(client, model, "better-2", target, accuracy=0.8)
    assert error.value.version.uri == "models:/better/2"
    assert int(client.get_model_version_by_alias("better", "champion").version) == 1
    third = registered(client, model, "better-3", target, accuracy=0.895)
    assert registered(client, model, "better-3", target, accuracy=0.895) == third, "it is compared with itself"
    assert int(client.get_model_version_by_alias("better", "champion").version) == 3


def test_what_is_registered_at_the_same_time_is_one_version(tracking: str, model: Path, tmp_path: Path) -> None:
    """Each sees none before it makes its own."""
    heads = 4
    start = threading.Barrier(heads)
    run_id = run_of(MlflowClient(tracking, tracking), "race")

    class Racing(MlflowClient):
        seen = 0

        def search_model_versions(self, *args: Any, **kwargs: Any) -> Any:
            found = super().search_model_versions(*args, **kwargs)
            self.seen += 1
            if self.seen == 2:  # the look just before a version is made
                start.wait(30)
            return found

    def head(number: int) -> ModelVersion:
        own = shutil.copytree(model, tmp_path / f"head-{number}")
        return register(Racing(tracking, tracking), Register(name="race"), own, run_id, tags_of("race"), METRICS)

    with ThreadPoolExecutor(heads) as pool:
        made = list(pool.map(head, range(heads)))
    client = MlflowClient(tracking, tracking)
    assert {version.version for version in made} == set(versions(client, "race")) == {1}
    assert (download("models:/race/1", tmp_path / "cache") / contract.MODEL_WEIGHTS).is_file()


POINTS = {
    "upload": "after:log_artifacts",
    "version": "after:create_model_version",
    "alias": "before:set_registered_model_alias",
}


@pytest.fixture(scope="module")
def killed(tracking: str, shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Processes that were killed with -9, each at one point; by it the versions that they left."""
    folder = shutil.copytree(shelf / "v1.0" / "checkpoint", tmp_path_factory.mktemp("killed") / "final")
    script = str(Path(__file__).with_name("registering.py"))
    command = [sys.executable, script, tracking, str(folder), *(f"{uid}={point}" for uid, point in POINTS.items())]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:  # ends when the last child does
            if line.startswith("halted "):
                os.kill(int(line.split()[1]), signal.SIGKILL)
    return {uid: versions(MlflowClient(tracking, tracking), uid) for uid in POINTS}


@pytest.mark.parametrize(("uid", "left"), [("upload", []), ("version", [1]), ("alias", [1])])
def test_a_killed_registration_leaves_no_half_version(
    tracking: str, model: Path, tmp_path: Path, killed: dict[str, list[int]], uid: str, left: list[int]
) -> None:
    client = MlflowClient(tracking, tracking)
    assert killed[uid] == left
    again = register(client, Register(name=uid, alias="champion"), model, run_of(client, uid), tags_of(uid), METRICS)
    assert again.version == 1 and versions(client, uid) == [1], "the next attempt ends what was begun"
    assert int(client.get_model_version_by_alias(uid, "champion").version) == 1
    got = download(f"models:/{uid}@champion", tmp_path / "cache")
    weights = contract.MODEL_WEIGHTS
    assert (got / weights).read_bytes() == (model / weights).read_bytes()


def test_a_server_that_is_away_is_waited_for(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking: str
) -> None:
    """Registration begins before the server listens."""
    monkeypatch.setattr(patience, "LONGEST_DELAY", 0.5)
    uri = f"http://127.0.0.1:{(port := free_port())}"
    client = connect(uri)
    command = [
        str(Path(sys.executable).with_name("mlflow")), "server", "--workers=1", "--host=127.0.0.1", f"--port={port}",
        f"--backend-store-uri=sqlite:///{tmp_path / 'db'}", f"--artifacts-destination={tmp_path / 'files'}",
    ]  # fmt: skip
    with ThreadPoolExecutor(1) as pool, (tmp_path / "log").open("w") as log:
        asked = pool.submit(registered, client, model, "late", Register(name="late", alias="champion"))
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            made = asked.result(120)
            assert (made.uri, made.alias) == ("models:/late/1", "champion")
            got = download(made.uri, tmp_path / "cache", uri)
            assert (got / contract.MODEL_WEIGHTS).read_bytes() == (model / contract.MODEL_WEIGHTS).read_bytes()
        finally:
            os.killpg(server.pid, 9)
            server.wait(10)
    connect(tracking)


def test_patience_ends() -> None:
    started = time.monotonic()

    def away() -> None:
        raise ConnectionError("refused")

    with pytest.raises(RegistryUnreachable, match=r"MLflow did not answer for 1 s \(look\): refused"):
        patiently(away, "look", patience=1.0)
    assert time.monotonic() - started < 30


def test_what_is_not_there_is_the_users_to_mend(tracking: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"MLflow refused \(resolve models:/nothing@x\)"):
        download("models:/nothing@x", tmp_path)
    with pytest.raises(UserError, match=r"MLflow refused \(download models:/nothing/7\)"):
        download("models:/nothing/7", tmp_path)
