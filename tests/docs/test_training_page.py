"""docs/training.md follows the kind TrainingJob: no setting is left out, and what is shown is valid."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mizzen_api import trainingjob_trainer as api
from mizzen_api.trainingjob import Checkpoint, ModelSource, Scaling, TrainingJobSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text()
BLOCKS = ROOT / "examples" / "training" / "blocks.yaml"
NEEDED = {"datasetRef": {"name": "d"}, "model": {"name": "text-bag"}, "register": {"name": "m"}}


@pytest.mark.parametrize(
    "model",
    [
        api.Trainer, api.Progressive, api.Compression, api.Fsdp, api.ParameterServer, api.Distillation,
        Scaling, Checkpoint, ModelSource,
    ],
)  # fmt: skip
def test_the_page_speaks_of_each_field(model: type[Any]) -> None:
    names = {field.alias or name for name, field in model.model_fields.items()}
    assert {name for name in names if not re.search(rf"\b{name}\b", PAGE)} == set()


def test_each_piece_of_a_manifest_is_valid() -> None:
    pieces = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)]
    assert pieces
    for piece in pieces:
        TrainingJobSpec.model_validate({**NEEDED, **piece})


def test_each_block_that_is_trained_in_small_is_valid_and_those_of_the_page_are_among_them() -> None:
    entries = yaml.safe_load(BLOCKS.read_text())
    for entry in entries:
        api.Trainer.model_validate(entry["trainer"])
    shown = re.findall(r"^\| ([^|]+) \| 0\.\d{4} \|", PAGE, re.M)
    assert shown
    assert set(shown) <= {entry["name"] for entry in entries}
