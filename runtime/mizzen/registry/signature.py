"""What a registered version takes and gives, in MLflow's words: its signature, and one row as an example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mizzen.files import write_whole
from mizzen_api import contract

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from mizzen.data.pipeline import Pipeline
    from mizzen.data.store import DatasetVersion

EXAMPLE_FILE = "input_example.json"
EXAMPLE_INFO = {"artifact_path": EXAMPLE_FILE, "type": "dataframe", "pandas_orient": "split"}

# From the beginning of a column's type, as pipeline.json writes it, to MLflow's type and a value of it.
_KINDS: dict[str, tuple[str, Any]] = {
    "Int": ("long", 0),
    "UInt": ("long", 0),
    "Float": ("double", 0.0),
    "Boolean": ("boolean", False),
    "Date": ("datetime", "2026-01-01T00:00:00"),
    "Binary": ("binary", ""),
}
_TEXT = ("string", "text")


def signature_of(pipeline: Pipeline) -> ModelSignature:
    """Raw columns in; a class's name, or a number, out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    columns = [ColSpec(_kind(dtype)[0], name, required=False) for name, dtype in pipeline.inputs.items()]
    return ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec("string" if pipeline.classes else "double")]))


def example_of(pipeline: Pipeline, profile: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One row: of each column the most frequent value that the Dataset's profile has whole, else a stand-in."""
    known = (profile or {}).get("columns", {})
    return {name: _frequent(known.get(name, {}), dtype) for name, dtype in pipeline.inputs.items()}


def write_example(folder: Path, row: Mapping[str, Any]) -> None:
    """As a pandas frame in the orient `split`, which is how MLflow reads it back. It is there whole or not at all."""
    document = {"columns": list(row), "data": [list(row.values())]}
    write_whole(folder / EXAMPLE_FILE, json.dumps(document, ensure_ascii=False))


def profile_of(version: DatasetVersion) -> dict[str, Any] | None:
    """What profile.json of a version says, where there is one."""
    path = version.paper(contract.DATASET_PROFILE)
    found: dict[str, Any] | None = json.loads(path.read_bytes()) if path is not None else None
    return found


def _kind(dtype: str) -> tuple[str, Any]:
    return next((kind for start, kind in _KINDS.items() if dtype.startswith(start)), _TEXT)


def _frequent(column: Mapping[str, Any], dtype: str) -> Any:
    mlflow_type, empty = _kind(dtype)
    known: Mapping[str, int] = column.get("frequent", {}).get("counts", {})
    counts = {value: count for value, count in known.items() if "… " not in value}  # long ones are cut
    if not counts or mlflow_type in {"binary", "datetime"}:
        return empty
    value = max(counts, key=lambda found: (counts[found], found))
    if mlflow_type == "boolean":
        return value == "true"
    try:
        return type(empty)(value)
    except ValueError:
        return empty
