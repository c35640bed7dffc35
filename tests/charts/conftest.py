"""The chart, rendered offline by Helm's own SDK."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "mizzen"
Manifest = dict[str, Any]


def objects(values: Manifest | None = None) -> list[Manifest]:
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="mizzen", namespace="mizzen-system")
    texts = (text for name, text in sorted(files.items()) if not name.endswith(".txt"))
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


@pytest.fixture(scope="session")
def render() -> Callable[..., list[Manifest]]:
    return objects


@pytest.fixture(scope="session")
def chart_folder() -> Path:
    return CHART
