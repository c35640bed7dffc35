"""The materialising pod: from its configuration to a published version, with progress on the way."""

from __future__ import annotations

from mizzen.data.materialize import materialize
from mizzen.workload.progress import ProgressBoard
from mizzen_api import contract
from mizzen_api.workload import DatasetReport, WorkloadConfig


def run(config: WorkloadConfig, board: ProgressBoard) -> str:
    """Materialise what the configuration describes."""
    assert config.dataset_spec is not None, "the operator sets datasetSpec for a Dataset"

    def on_progress(percentage: int, rows: int) -> None:
        board.update(dataset=DatasetReport(progress_percentage=percentage, rows=rows))
        board.gauge(contract.METRIC_DATASET_ROWS, rows)

    version = materialize(config.dataset_spec, config.artifacts_uri, config.namespace, config.name, on_progress)
    board.update(
        dataset=DatasetReport(
            progress_percentage=100,
            rows=version.rows,
            fingerprint=version.fingerprint,
            uri=version.uri,
            classes=list(version.classes),
        )
    )
    verb = "reused" if version.reused else "materialised"
    return f"{verb} {version.rows} rows as {version.fingerprint[:19]}…"
