"""docs/data.md follows the kind Dataset: nothing is left out, and what is shown is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

import mizzen.data
from mizzen_api.conditions import Reason
from mizzen_api.dataset import DatasetSpec
from mizzen_api.dataset_drift import Drift, Method
from mizzen_api.dataset_expectations import Expectation
from mizzen_api.dataset_sources import Format
from mizzen_api.dataset_transforms import Transform

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()
# What only the SDK's own reference would repeat.
OBVIOUS = {"DatasetVersion", "DataPipeline", "ProcessedData"}


def fields(model: type[Any]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def of_dataset() -> set[str]:
    """Reasons that a Dataset's conditions carry: those that all kinds have, and its own."""
    source = (ROOT / "crds" / "mizzen_api" / "conditions.py").read_text()
    own = re.findall(r'= "(\w+)"', source.split("# Dataset\n")[1].split("# SearchJob")[0])
    shared = {Reason.PENDING, Reason.SUSPENDED, Reason.INVALID_PARAMETERS, Reason.BACKOFF_LIMIT_EXCEEDED}
    return {*own, *shared, Reason.INTERNAL_ERROR}


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("steps", fields(Transform)),
        ("steps of the SDK", set(mizzen.data.__all__) - OBVIOUS),
        ("constraints", fields(Expectation) - {"column", "columns"}),
        ("formats", set(get_args(Format))),
        ("methods of drift", set(get_args(Method))),
        ("reasons", {str(reason) for reason in of_dataset()}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_page_leaves_nothing_out(what: str, names: set[str]) -> None:
    assert names
    assert {name for name in names if f"`{name}`" not in PAGE} == set(), what


@pytest.mark.parametrize("model", [DatasetSpec, Drift])
def test_the_page_speaks_of_each_field(model: type[Any]) -> None:
    apart = {"modelServiceRef", "targetType"}  # docs/api.md has them
    assert {name for name in fields(model) - apart if not re.search(rf"\b{name}\b", PAGE)} == set()


def test_each_example_of_a_step_or_an_expectation_is_valid() -> None:
    steps = [yaml.safe_load("{" + text + "}") for text in re.findall(r"\| `(\w+: \{.*\})` \|$", PAGE, re.M)]
    for step in steps:
        assert Transform.model_validate(step).step
    assert {name for step in steps for name in step} == fields(Transform)
    expectations = [yaml.safe_load(text) for text in re.findall(r"\| `(\{.*\})` \|$", PAGE, re.M)]
    for expectation in expectations:
        Expectation.model_validate(expectation)
    shown = {name for expectation in expectations for name in expectation}
    assert fields(Expectation) - shown == {"tolerance", "maxRows"}


def test_each_piece_of_a_manifest_is_valid() -> None:
    pieces = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)]
    assert pieces
    for piece in pieces:
        DatasetSpec.model_validate({"sources": [{"uri": "x.csv"}], "target": "y", **piece})
