"""From a version's manifest, pipeline, profile, results and drift to the report's values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.data.expectations.results import Outcome, cut
from mizzen.data.report.view import Bins, Column, Drift, FeatureDrift, Part, Report, Source, Step, Unit
from mizzen.data.report.wording import number
from mizzen_api import contract

if TYPE_CHECKING:
    from mizzen.data.profiles import ColumnProfile, Profile
    from mizzen.data.sketches.numbers import NumberSketch

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOP_VALUES = 20
NOTE = 160
LABEL = "label"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}


def report_of(
    name: str,
    manifest: Mapping[str, Any],
    pipeline: Mapping[str, Any],
    profile: Profile | None = None,
    outcome: Outcome | None = None,
    drift: Mapping[str, Any] | None = None,
) -> Report:
    """`manifest`, `pipeline` and `drift` are the JSON documents of a version; what they lack, the report leaves out."""
    target = str(manifest.get("target", ""))
    counts: Mapping[str, Mapping[str, int]] = manifest.get("classCounts", {})
    return Report(
        name=name,
        fingerprint=manifest["fingerprint"],
        target=target,
        parts=tuple(Part(part, rows, dict(counts.get(part, {}))) for part, rows in manifest["rows"].items()),
        columns=columns_of(manifest.get("schema", {}), profile, target),
        sources=tuple(source_of(source) for source in manifest.get("sources", ())),
        steps=tuple(step_of(step) for step in pipeline.get("steps", ())),
        features=tuple(manifest.get("features", ())),
        expectations=outcome,
        drift=drift_of(drift) if drift else None,
        bad_rows=int(manifest.get("badRows", 0)),
        code_version=str(manifest.get("codeVersion", "")),
    )


def columns_of(schema: Mapping[str, str], profile: Profile | None, target: str) -> tuple[Column, ...]:
    if profile is None:
        return tuple(Column(name, dtype, 0, is_target=name == target) for name, dtype in schema.items())
    return tuple(column_of(name, column, name == target) for name, column in profile.columns.items())


def column_of(name: str, profile: ColumnProfile, is_target: bool = False) -> Column:
    unit, scale = _unit(profile.dtype)
    numbers = profile.numbers if profile.numbers is not None and profile.numbers.rows else None
    lengths = profile.lengths if profile.lengths is not None and profile.lengths.rows else None
    top: tuple[tuple[str, int], ...] = ()
    if profile.frequent is not None:
        ordered = sorted(profile.frequent.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        top = tuple((cut(value), count) for value, count in ordered[:TOP_VALUES])
        if profile.distinct is not None and profile.distinct > profile.present / 2:
            top = ()  # almost every row has a value of its own: the most frequent ones say nothing
    return Column(
        name=name,
        dtype=profile.dtype,
        rows=profile.rows,
        missing=profile.missing + profile.nan,
        distinct=profile.distinct,
        unit=unit,
        low=numbers.low * scale if numbers else None,
        high=numbers.high * scale if numbers else None,
        mean=numbers.mean * scale if numbers else None,
        std=numbers.std * scale if numbers and numbers.rows > 1 else None,
        quantiles=_quantiles(numbers, scale) if numbers else (),
        bins=_bins(numbers, scale) if numbers else None,
        lengths=_bins(lengths, 1.0) if lengths and not top else None,
        top=top,
        is_target=is_target,
    )


def _unit(dtype: str) -> tuple[Unit, float]:
    """The unit of a column's numbers, and what turns those of the profile into it."""
    if dtype == "Date":
        return Unit.DATE, 1.0
    step = next((scale for name, scale in _SECONDS.items() if f"'{name}'" in dtype), 1.0)
    if dtype.startswith("Datetime"):
        return Unit.TIME, step
    if dtype.startswith("Duration"):
        return Unit.SPAN, step
    return (Unit.SPAN, 1e-9) if dtype == "Time" else (Unit.NUMBER, 1.0)


def _quantiles(numbers: NumberSketch, scale: float) -> tuple[tuple[float, float], ...]:
    import numpy as np

    values = numbers.cdf().quantile(np.array(QUANTILES))
    return tuple((share, float(value) * scale) for share, value in zip(QUANTILES, values, strict=True))


def _bins(numbers: NumberSketch, scale: float) -> Bins | None:
    found = numbers.histogram()
    if found is None:
        return None
    edges = tuple(float(edge) * scale for edge in found.edges)
    return Bins(edges, tuple(int(count) for count in found.counts))


def source_of(source: Any) -> Source:
    """A source is a URI, or says more about itself."""
    if isinstance(source, str):
        return Source(source)
    return Source(str(source.get("uri", "")), source.get("rows"), str(source.get("digest", "")))


def step_of(step: Mapping[str, Any]) -> Step:
    """The settings and figures of a step that are short enough to be read."""
    hidden = {"kind", "columns", "column"}
    said = [f"{key} {_brief(value)}" for key, value in step.items() if key not in hidden and _brief(value)]
    note = ", ".join(said)
    columns = step.get("columns") or ([step["column"]] if "column" in step else [])
    note = note if len(note) <= NOTE else f"{note[:NOTE]}…"
    return Step(str(step.get("kind", "step")), tuple(map(str, columns)), note)


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, str):
        return value if 0 < len(value) <= 40 else ""
    if isinstance(value, Sequence) and value and all(isinstance(one, float | int) for one in value) and len(value) <= 8:
        return " ".join(_brief(one) for one in value)
    if isinstance(value, Sequence | Mapping) and any(one is not None for one in value):
        return f"of {len(value)}"
    return ""


def drift_of(drift: Mapping[str, Any]) -> Drift:
    """From the JSON of mizzen.data.drift.DriftReport; `reference` beside it names what it was compared with."""
    apart = drift.get("multivariate") or {}
    return Drift(
        reference=str(drift.get("reference", "the reference")),
        drifted=bool(drift["drifted"]),
        message=str(drift.get("message", "")),
        features=tuple(_feature_drift(feature) for feature in drift.get("features", ())),
        auc=apart.get("auc"),
        auc_threshold=apart.get("threshold"),
    )


def _feature_drift(feature: Mapping[str, Any]) -> FeatureDrift:
    return FeatureDrift(
        column=str(feature["column"]),
        drifted=bool(feature["drifted"]),
        method=str(feature.get("method", "")),
        statistic=feature.get("statistic"),
        threshold=feature.get("threshold"),
        statistics={str(name): float(value) for name, value in feature.get("statistics", {}).items()},
        unseen=tuple(map(cut, feature.get("unseen", ()))),
        note=str(feature.get("note", "")),
    )


def class_counts(folder: Path, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Rows of each class in each split, from the label columns of a version's files."""
    import polars as pl

    if not classes:
        return {}
    counts: dict[str, dict[str, int]] = {}
    for split in contract.SPLITS:
        file = folder / contract.DATASET_DATA / f"{split}.parquet"
        if file.is_file():
            found = dict(pl.scan_parquet(file).group_by(LABEL).len().collect().iter_rows())
            counts[split] = {name: int(found.get(number, 0)) for number, name in enumerate(classes)}
    return counts


def read_report(folder: Path, name: str, reference: str = "the reference") -> Report:
    """The report of a version whose other files are written; `reference` names what its drift was measured against."""
    from mizzen.data.profiles import Profile

    def document(file: str) -> Any:
        path = folder / file
        return json.loads(path.read_bytes()) if path.is_file() else None

    manifest = document(contract.DATASET_MANIFEST)
    expectations, profile = folder / contract.DATASET_EXPECTATIONS, folder / contract.DATASET_PROFILE
    drift = document(contract.DATASET_DRIFT)
    return report_of(
        name,
        {"classCounts": class_counts(folder, manifest.get("classes", ())), **manifest},
        document(contract.DATASET_PIPELINE) or {},
        Profile.from_json(profile.read_bytes()) if profile.is_file() else None,
        Outcome.from_json(expectations.read_bytes()) if expectations.is_file() else None,
        {"reference": reference, **drift} if drift else None,
    )
