"""Models that the checks look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mizzen.data.pipeline import Pipeline
from mizzen.data.steps.base import Feature, Target
from mizzen.models import Model, artifact, load
from mizzen.models.building import Recipe
from mizzen.models.shapes import DataShape


@pytest.fixture
def model(shelf: Path) -> Model:
    """Texts to two classes, trained. A new one for each test."""
    return load(shelf / "v1.0")


@pytest.fixture
def prices(tmp_path: Path) -> Model:
    """Two columns to a price of 100 more or less 10; not trained."""
    inputs = {"rooms": "Int64", "place": "String", "size": "Float64"}
    pipeline = Pipeline(inputs, (), Target("price", ()), (Feature("rooms"), Feature("size")))
    by_name = Recipe.by_name("mlp", {"hidden_dim": 8}, DataShape.of(pipeline))
    recipe = replace(by_name, target_mean=100.0, target_deviation=10.0)
    torch.manual_seed(1)
    artifact.write(tmp_path, recipe, recipe.build().state_dict(), pipeline)
    return load(tmp_path)
