"""Runs of MLflow: one for each resource, found again after a restart, and written in batches."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mizzen.registry.client import PATIENCE_SECONDS, patiently
from mizzen.registry.revision import code_revision
from mizzen_api import contract
from mizzen_api.workload import ResolvedDataset, WorkloadConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG_PARENT = "mlflow.parentRunId"
TAG_RUN_NAME = "mlflow.runName"
DIGEST_LENGTH = 36  # what MLflow keeps of a digest
SCHEMA_LENGTH = 1_048_575
MAX_BATCH = 900  # the server takes 1000 metrics in one request


def run_tags(config: WorkloadConfig, config_hash: str) -> dict[str, str]:
    """Where a run comes from: the resource, and the triple of data, code and settings."""
    assert config.dataset is not None
    return {
        contract.TAG_NAMESPACE: config.namespace,
        contract.TAG_KIND: config.kind,
        contract.TAG_NAME: config.name,
        contract.TAG_UID: config.uid,
        contract.TAG_DATASET_FINGERPRINT: config.dataset.fingerprint,
        contract.TAG_CODE_REVISION: code_revision(),
        contract.TAG_CONFIG_HASH: config_hash,
    }


def ensure_experiment(client: MlflowClient, name: str, patience: float = PATIENCE_SECONDS) -> str:
    """The experiment's id; two jobs may ask for it at the same time."""
    from mlflow.exceptions import MlflowException

    def ensure() -> str:
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            again = client.get_experiment_by_name(name)
            assert again is not None
            return str(again.experiment_id)

    return patiently(ensure, f"find experiment {name}", patience)


def ensure_run(
    client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str], patience: float = PATIENCE_SECONDS
) -> str:
    """The id of the run with this uid and config hash, made if it is not there: a restarted head goes on with it.

    Two heads that start at the same moment may make two; all that ask later go on with the older one.
    """

    def ensure() -> str:
        keys = (contract.TAG_UID, contract.TAG_CONFIG_HASH)
        query = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in keys)
        oldest = ["attributes.start_time ASC"]
        there = client.search_runs(
            [experiment], f"{query} and tags.`{TAG_RUN_NAME}` = '{name}'", max_results=1, order_by=oldest
        )
        for found in there:
            return str(found.info.run_id)
        return str(client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)

    return patiently(ensure, f"find run {name}", patience)


@dataclass
class RunLog:
    """Parameters and metrics of one run, gathered and sent in batches."""

    client: MlflowClient
    run_id: str
    patience: float = PATIENCE_SECONDS
    _metrics: list[Any] = field(default_factory=list)

    def parameters(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:6000]) for key, value in values.items()]
        patiently(lambda: self.client.log_batch(self.run_id, params=params), "log parameters", self.patience)

    def dataset(self, used: ResolvedDataset, manifest: Mapping[str, Any], context: str = "training") -> None:
        """The Dataset's version as an input of the run: MLflow then leads from a model to its data and back."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        columns = [{"name": name, "type": kind} for name, kind in manifest.get("schema", {}).items()]
        entry = Dataset(
            name=f"{used.name} v{used.version}",
            digest=used.fingerprint.removeprefix("sha256:")[:DIGEST_LENGTH],
            source_type="mizzen",
            source=json.dumps({"uri": used.uri, "fingerprint": used.fingerprint}),
            schema=json.dumps({"mizzen": columns})[:SCHEMA_LENGTH],
            profile=json.dumps({"rows": manifest.get("rows", {})}),
        )
        inputs = [DatasetInput(entry, [InputTag("mlflow.data.context", context)])]
        patiently(lambda: self.client.log_inputs(self.run_id, datasets=inputs), "log the dataset", self.patience)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._metrics += [Metric(key, float(value), now, step) for key, value in values.items()]

    def flush(self) -> None:
        while self._metrics:
            batch = self._metrics[:MAX_BATCH]
            self._send(batch)
            del self._metrics[: len(batch)]

    def _send(self, batch: list[Any]) -> None:
        patiently(lambda: self.client.log_batch(self.run_id, metrics=batch), "log metrics", self.patience)

    def end(self, status: str = "FINISHED") -> None:
        self.flush()
        patiently(lambda: self.client.set_terminated(self.run_id, status), "end the run", self.patience)
