"""The materialising pod: from its configuration to a published version, with progress on the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mizzen.data.engine import PodEngine
from mizzen.data.materialize import Request, Version, make
from mizzen.data.references import Reference
from mizzen.errors import SystemError_
from mizzen.workload.progress import ProgressBoard
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.dataset import DatasetSpec
from mizzen_api.dataset_sources import ACCESS_KEYS
from mizzen_api.workload import DatasetReport, WorkloadConfig


def run(config: WorkloadConfig, board: ProgressBoard) -> str:
    """Materialise what the configuration describes."""
    from mizzen.registry.datasets import log_version

    assert config.dataset_spec is not None, "the operator sets datasetSpec for a Dataset"
    began = time.monotonic()
    now = DatasetReport()

    def tell(**changes: Any) -> None:
        nonlocal now
        now = now.model_copy(update=changes)
        board.update(dataset=now)

    def on_progress(percentage: int, rows: int) -> None:
        rate = rows / max(1e-3, time.monotonic() - began)
        tell(progress_percentage=percentage, rows=rows, rows_per_second=rate)
        board.gauge(contract.METRIC_DATASET_ROWS, rows)

    request = Request(
        config.dataset_spec,
        config.artifacts_uri,
        config.namespace,
        config.name,
        secrets=read_secrets(config.dataset_spec),
        previous=config.previous.uri if config.previous else None,
        reference=_reference(config),
        newest=config.newest,
    )
    with PodEngine(config.dataset_spec, config.ray, board, lambda engine: tell(engine=engine)) as engine:
        version = make(request, on_progress, engine)
    rate = version.rows / max(1e-3, time.monotonic() - began)
    run, missing = log_version(config, version)
    found = {"engine": now.engine, "mlflow_run": run, "mlflow_note": missing}
    board.update(dataset=report_of(version, rate).model_copy(update=found))
    verb = "reused" if version.reused else "materialised"
    return f"{verb} {version.rows} rows as {version.fingerprint[:19]}…"


def _reference(config: WorkloadConfig) -> Reference | None:
    if config.live_reference is not None:
        return Reference(f"ModelService {config.live_reference.name}", service=config.live_reference)
    return Reference(config.reference.name, config.reference.uri) if config.reference else None


def report_of(version: Version, rows_per_second: float) -> DatasetReport:
    return DatasetReport(
        progress_percentage=100,
        rows=version.rows,
        fingerprint=version.fingerprint,
        uri=version.uri,
        classes=list(version.classes),
        bad_rows=version.bad_rows,
        dropped_rows=version.dropped_rows,
        rows_per_second=rows_per_second,
        expectations=version.expectations,
        drift=version.drift,
        drift_note=version.drift_note,
    )


def read_secrets(spec: DatasetSpec, folder: Path = Path(contract.SECRETS_DIR)) -> dict[str, str]:
    """The values that sources ask for, as NAME/KEY; the operator mounts them as files."""
    found = {}
    for source in spec.sources:
        if source.sql is not None:
            reference = source.sql.secret_ref
            found[f"{reference.name}/{reference.key}"] = _value(folder, reference.name, reference.key)
        elif source.secret_ref is not None:
            name = source.secret_ref.name
            there = [key for key in ACCESS_KEYS if (folder / name / key).exists()]
            found |= {f"{name}/{key}": _value(folder, name, key) for key in there}
    return found


def _value(folder: Path, name: str, key: str) -> str:
    try:
        return (folder / name / key).read_text().strip()
    except OSError as error:
        message = f"the key {key!r} of Secret {name!r} is not mounted: {error.strerror}"
        raise SystemError_(message, Reason.SOURCE_UNREADABLE) from error
