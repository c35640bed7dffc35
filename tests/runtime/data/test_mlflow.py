"""A version's report in MLflow: one run for each version, and a version without it where MLflow is away."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mizzen.data.command import run
from mizzen.registry import datasets
from mizzen.workload.progress import ProgressBoard
from mizzen_api.contract import TAG_DATASET_FINGERPRINT
from mizzen_api.workload import DatasetReport, WorkloadConfig

from ..conftest import corpus, dataset_spec

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def materialized(folder: Path, mlflow: str) -> DatasetReport:
    config = WorkloadConfig(
        kind="Dataset",
        namespace="team",
        name="reviews",
        uid="u-1",
        artifacts_uri=str(folder / "artifacts"),
        mlflow_uri=mlflow,
        dataset_spec=dataset_spec(folder / "in.csv", expectations=[{"minRows": 10}]),
    )
    board = ProgressBoard()
    run(config, board)
    assert board.progress.dataset is not None
    return board.progress.dataset


def test_each_version_has_one_run_with_its_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)  # where MLflow without a server keeps artifacts
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (tmp_path / "in.csv").write_text(corpus(120))
    first, again = materialized(tmp_path, tracking), materialized(tmp_path, tracking)
    assert first.mlflow_run
    assert first.mlflow_run == again.mlflow_run
    (tmp_path / "in.csv").write_text(corpus(150))
    second = materialized(tmp_path, tracking)
    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name("team/reviews")
    assert experiment is not None
    runs = {found.info.run_id: found for found in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {first.mlflow_run, second.mlflow_run}
    for report, rows, number in ((first, 120, 1), (second, 150, 2)):
        assert report.mlflow_run is not None
        found = runs[report.mlflow_run]
        assert (found.info.status, found.info.run_name) == ("FINISHED", f"reviews v{number}")
        assert found.data.metrics["rows"] == rows
        assert found.data.tags[TAG_DATASET_FINGERPRINT] == report.fingerprint
        assert {file.path for file in client.list_artifacts(report.mlflow_run)} == {
            "report.html", "report.json", "profile.json", "expectations.json", "manifest.json",
        }  # fmt: skip
        (used,) = found.inputs.dataset_inputs
        assert used.dataset.name == f"reviews v{number}"


def test_a_version_stands_where_mlflow_is_away_and_the_next_reading_makes_up_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "PATIENCE_SECONDS", 0.1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{closed.getsockname()[1]}"
    (tmp_path / "in.csv").write_text(corpus(120))
    report = materialized(tmp_path, away)
    assert report.fingerprint, "it is published all the same"
    assert report.mlflow_run is None
    assert "MLflow did not answer" in report.mlflow_note
    back = materialized(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert back.fingerprint == report.fingerprint
    assert (bool(back.mlflow_run), back.mlflow_note) == (True, "")
