"""A dataset version in MLflow: one run for each, with its report and profile as artifacts.

MLflow is a copy for people. The version is published before, and stands whether MLflow answers or not.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.data.homes import home_of
from mizzen.data.notes import MLFLOW, Notes
from mizzen.data.store import DatasetVersion
from mizzen.errors import MizzenError
from mizzen.registry.client import connect, patiently
from mizzen.registry.revision import code_revision
from mizzen.registry.runs import RunLog, ensure_experiment, ensure_run
from mizzen_api import contract
from mizzen_api.workload import ResolvedDataset, WorkloadConfig

if TYPE_CHECKING:
    from mizzen.data.materialize import Version

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0  # the Dataset is Ready after this; what is missing then is made up for by the next reading
PAPERS = (
    contract.DATASET_REPORT,
    contract.DATASET_REPORT_JSON,
    contract.DATASET_PROFILE,
    contract.DATASET_EXPECTATIONS,
    contract.DATASET_DRIFT,
    contract.DATASET_MANIFEST,
)


def log_version(config: WorkloadConfig, version: Version) -> tuple[str | None, str]:
    """The run's id, or why there is none. Raises nothing: a version must not fail for want of its copy."""
    if not config.mlflow_uri:
        return None, ""
    known = Notes(home_of(config.artifacts_uri, config.namespace, config.name), MLFLOW)
    key = f"{config.mlflow_uri} {config.uid} {version.fingerprint}"
    try:
        run = known.get(key) or _logged(config, version)
        known.put(key, run)
    except (MizzenError, OSError) as error:
        log.warning("the report of %s is not in MLflow: %s", version.fingerprint, error)
        return None, str(error)
    return run, ""


def _logged(config: WorkloadConfig, version: Version) -> str:
    patience = PATIENCE_SECONDS
    client = connect(config.mlflow_uri)
    tags = {
        contract.TAG_NAMESPACE: config.namespace,
        contract.TAG_KIND: config.kind,
        contract.TAG_NAME: config.name,
        contract.TAG_UID: config.uid,
        contract.TAG_DATASET_FINGERPRINT: version.fingerprint,
        contract.TAG_CODE_REVISION: code_revision(),
        contract.TAG_CONFIG_HASH: version.fingerprint,  # one run for each version, found again after a restart
    }
    experiment = ensure_experiment(client, f"{config.namespace}/{config.name}", patience)
    run_id = ensure_run(client, experiment, f"{config.name} v{version.number}", tags, patience)
    made = DatasetVersion(version.uri)
    manifest = made.manifest
    runlog = RunLog(client, run_id, patience)
    runlog.parameters({"target": manifest["target"], "sources": len(manifest["sources"])})
    runlog.metrics(_metrics(version, manifest), version.number)
    used = ResolvedDataset(name=config.name, uri=version.uri, fingerprint=version.fingerprint, version=version.number)
    runlog.dataset(used, manifest, "materialized")
    for name in PAPERS:
        if (file := made.paper(name)) is not None:
            _upload(runlog, file)
    runlog.end()
    return run_id


def _upload(runlog: RunLog, file: Path) -> None:
    patiently(lambda: runlog.client.log_artifact(runlog.run_id, str(file)), f"upload {file.name}", runlog.patience)


def _metrics(version: Version, manifest: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {f"rows_{part}": rows for part, rows in manifest["rows"].items()}
    found |= {"rows": version.rows, "bad_rows": version.bad_rows, "dropped_rows": version.dropped_rows}
    if version.drift is not None and version.drift.score is not None:
        found |= {"drift_score": version.drift.score, "drifted_features": version.drift.drifted_features}
    if version.expectations is not None:
        found |= {
            "expectations_passed": version.expectations.passed,
            "expectations_warned": version.expectations.warned,
        }
    return found
