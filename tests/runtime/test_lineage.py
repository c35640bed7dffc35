"""A run in MLflow names the version of the data that it read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mizzen.data.materialize import Version
from mizzen.data.store import DatasetVersion
from mizzen.registry.runs import RunLog, ensure_experiment, ensure_run
from mizzen_api import contract
from mizzen_api.workload import ResolvedDataset


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_a_run_names_its_dataset_once(tmp_path: Path, version: Version) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    tags = {contract.TAG_UID: "u", contract.TAG_CONFIG_HASH: "c"}
    log = RunLog(client, ensure_run(client, ensure_experiment(client, "default/corpus"), "corpus", tags))
    used = ResolvedDataset(name="corpus", uri=version.uri, fingerprint=version.fingerprint, version=3)
    for _ in range(2):  # a restarted head says it again
        log.dataset(used, DatasetVersion(version.uri).manifest)
    (found,) = client.get_run(log.run_id).inputs.dataset_inputs
    assert found.dataset.name == "corpus v3"
    assert version.fingerprint.removeprefix("sha256:").startswith(found.dataset.digest)
    assert json.loads(found.dataset.source)["uri"] == version.uri
    assert sum(json.loads(found.dataset.profile)["rows"].values()) == 900
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
