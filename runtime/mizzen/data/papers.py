"""The papers of a version: manifest, pipeline, profile, outcome of the expectations, drift and report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mizzen
from mizzen.data import pipeline as pipelines
from mizzen.data.expectations import Outcome
from mizzen.data.making import Making
from mizzen.data.pipeline import Pipeline, matrix_names
from mizzen.data.references import Measured
from mizzen.data.report import render, report_of
from mizzen_api import contract
from mizzen_api.dataset import DriftStatus, ExpectationCounts

if TYPE_CHECKING:
    from mizzen.data.sources import Origin


@dataclass(frozen=True)
class Papers:
    """What is known of a version once its parts are written."""

    made: Making
    pipeline: Pipeline
    fingerprint: str
    outcome: Outcome
    drift: Measured
    bad_rows: int
    first_bad_rows: Sequence[str]  # each with its place and what is wrong
    origins: Sequence[Origin]
    name: str


def write(draft: Path, papers: Papers) -> None:
    """The manifest comes last: it marks the version whole."""
    (draft / contract.DATASET_PIPELINE).write_text(papers.pipeline.to_json())
    (draft / contract.DATASET_PROFILE).write_text(papers.made.profile.to_json())
    if papers.outcome.results:
        (draft / contract.DATASET_EXPECTATIONS).write_text(papers.outcome.to_json())
    report, drifted = papers.drift.report, None
    if report is not None:
        (draft / contract.DATASET_DRIFT).write_text(report.to_json())
        drifted = {"reference": papers.drift.reference, **json.loads(report.to_json())}
    document = manifest(papers)
    pipeline = json.loads(papers.pipeline.to_json())
    render(report_of(papers.name, document, pipeline, papers.made.profile, papers.outcome, drifted)).write(draft)
    (draft / contract.DATASET_MANIFEST).write_text(json.dumps(document, indent=1, ensure_ascii=False))


def manifest(papers: Papers) -> dict[str, Any]:
    made, pipeline = papers.made, papers.pipeline
    document: dict[str, Any] = {
        "fingerprint": papers.fingerprint,
        "rows": made.rows,
        "classes": list(pipeline.classes),
        "classCounts": made.class_counts,
        "target": made.spec.target,
        "columns": list(pipeline.columns),
        "schema": {name: pipelines.dtype_text(dtype) for name, dtype in made.raw.schema.items()},
        "features": matrix_names(pipeline.features),
        "sources": [{"uri": one.uri, "rows": one.rows, "digest": one.digest} for one in papers.origins],
        "badRows": papers.bad_rows,
        "firstBadRows": list(papers.first_bad_rows),
        "droppedRows": papers.outcome.dropped,
        "codeVersion": mizzen.__version__,
        "pipelineFormat": pipelines.FORMAT,
    }
    counts, drifted = expectation_counts(papers.outcome), drift_status(papers.drift)
    if counts is not None:
        document["expectations"] = counts.to_wire()
    if drifted is not None:
        document["drift"] = drifted.to_wire()
    if made.spec.drift is not None:
        document["driftSettings"] = made.spec.drift.to_wire()
    return document


def expectation_counts(outcome: Outcome) -> ExpectationCounts | None:
    if not outcome.results:
        return None
    found = [result.outcome for result in outcome.results]
    return ExpectationCounts(passed=found.count("Passed"), warned=found.count("Warned"), dropped=found.count("Dropped"))


def drift_status(measured: Measured) -> DriftStatus | None:
    report = measured.report
    if report is None:
        return None
    compared = [feature for feature in report.features if feature.statistic is not None]
    moved = [feature for feature in compared if feature.drifted]
    worst = max(compared, key=lambda feature: (feature.statistic or 0.0) / (feature.threshold or 1.0), default=None)
    return DriftStatus(
        drifted=report.drifted,
        features=len(compared),
        drifted_features=len(moved),
        score=report.share,
        reference=measured.reference,
        worst=worst.column if worst is not None else None,
    )
