"""Which engine makes a version: by the size of the files, where nobody says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mizzen.data.engine import PodEngine, choose
from mizzen.data.frames import FrameSource
from mizzen.data.making import LocalRunner
from mizzen.data.sources import open_sources
from mizzen.workload.progress import ProgressBoard
from mizzen.workload.quantities import amount
from mizzen_api.dataset import DatasetSpec
from mizzen_api.dataset_sources import Source


def spec(**changes: Any) -> DatasetSpec:
    return DatasetSpec.model_validate({"sources": [{"uri": "x.csv"}], "target": "y", **changes})


@pytest.mark.parametrize(
    ("engine", "least", "expected"),
    [("auto", "1Ki", "ray"), ("auto", "1Mi", "polars"), ("ray", "1Mi", "ray"), ("polars", "1", "polars")],
)
def test_auto_goes_by_the_size_of_all_files(tmp_path: Path, engine: str, least: str, expected: str) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("n,y\n" + "1,2\n" * 130)  # 524 bytes: one alone is below 1 KiB
    source = open_sources([Source(uri=str(tmp_path / "*.csv"))])
    assert source.size() == 1048
    assert choose(spec(engine=engine, scaling={"minSourceSize": least}), source) == expected


def test_what_a_query_gives_is_not_known_before(tmp_path: Path) -> None:
    query = Source.model_validate({"sql": {"query": "SELECT 1", "secretRef": {"name": "shop"}}})
    source = open_sources([query], secrets={"shop": f"sqlite:///{tmp_path}/shop.db"})
    assert source.size() is None
    assert choose(spec(engine="auto", scaling={"minSourceSize": "1"}), source) == "polars"


def test_a_pod_that_needs_no_ray_starts_none() -> None:
    told: list[str] = []
    with PodEngine(spec(engine="auto"), None, ProgressBoard(), told.append) as engine:
        assert isinstance(engine(FrameSource(pl.DataFrame({"y": [1]}))), LocalRunner)
    assert told == ["polars"]


@pytest.mark.parametrize(
    ("quantity", "number"), [("500m", 0.5), ("2", 2), ("1Ki", 1024), ("1.5G", 1.5e9), ("1e3", 1e3)]
)
def test_quantities_are_those_of_kubernetes(quantity: str, number: float) -> None:
    assert amount(quantity) == number


def test_what_is_no_quantity_is_said() -> None:
    with pytest.raises(ValueError, match="'many' is no quantity"):
        amount("many")
