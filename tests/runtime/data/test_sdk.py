"""The SDK as users type it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mizzen.data import CategoricalEncoder, DataPipeline, FeatureScaler, Imputer, Tokenizer
from mizzen.errors import UserError

from .builders import table


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Who looked at what, and what it was."""
    random = np.random.default_rng(3)
    catalog = [{"product_id": i, "category": f"c{i % 4}", "price": 5.0 + i} for i in range(20)]
    behaviour = pl.DataFrame(
        {
            "user": range(400),
            "product_id": random.integers(0, 20, 400),
            "seconds": random.exponential(30, 400),
            "device": random.choice(["phone", "laptop"], 400),
            "purchase_flag": random.integers(0, 2, 400),
        }
    )
    behaviour.write_csv(tmp_path / "user_behavior.csv")
    (tmp_path / "product_catalog.json").write_text(json.dumps(catalog))
    return tmp_path / "user_behavior.csv", tmp_path / "product_catalog.json"


def test_the_first_example_runs_as_written(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files[0].parent)
    pipeline = DataPipeline(
        sources=["user_behavior.csv", "product_catalog.json"],
        transforms=[FeatureScaler(method="minmax"), CategoricalEncoder(handle_unknown="ignore")],
        target="purchase_flag",
    )
    processed = pipeline.fit_transform()
    assert len(processed) == 400
    assert processed.classes == ("0", "1")
    assert {"price", "seconds", "device=phone", "category=c3"} <= set(processed.feature_names)
    assert processed.X().shape == (processed.train.height, len(processed.feature_names))
    assert processed.train["seconds"].min() == 0.0
    assert processed.train["seconds"].max() == 1.0
    assert set(processed.y("test")) <= {0, 1}
    assert "ProcessedData(train 320" in repr(processed)


def test_features_that_are_no_numbers_are_counted() -> None:
    texts = pl.DataFrame({"text": [f"word {n}" for n in range(400)], "label": ["a", "b"] * 200})
    processed = DataPipeline(texts, [Tokenizer(column="text", vocab_size=64, max_length=4)], "label").fit_transform()
    assert "; 1 feature; " in repr(processed)


def test_the_sdk_and_the_kind_make_the_same(files: tuple[Path, Path], tmp_path: Path) -> None:
    from mizzen.data.materialize import materialize
    from mizzen_api.dataset import DatasetSpec

    behaviour, catalog = files
    steps = [{"scale": {"method": "minmax"}}, {"encode": {}}]
    sources = [{"uri": str(behaviour)}, {"uri": str(catalog), "join": {"on": ["product_id"]}}]
    spec = DatasetSpec.model_validate({"sources": sources, "transforms": steps, "target": "purchase_flag"})
    kind = materialize(spec, str(tmp_path / "kind"), "ns", "d")
    mine = DataPipeline([str(behaviour), str(catalog)], [FeatureScaler(method="minmax"), CategoricalEncoder()],
                        "purchase_flag")  # fmt: skip
    made = mine.materialize(tmp_path / "sdk")
    assert made.manifest["fingerprint"] == kind.fingerprint
    again = mine.materialize(tmp_path / "sdk")
    assert again.folder == made.folder


@pytest.mark.parametrize("of", [lambda frame: frame, lambda frame: frame.lazy(), lambda frame: frame.to_pandas()])
def test_frames_are_sources_too(of: Callable[[pl.DataFrame], object]) -> None:
    frame = table(300).drop("seen")
    steps = [Imputer(), FeatureScaler(), CategoricalEncoder(columns=["country"])]
    processed = DataPipeline(of(frame), steps, "label").fit_transform()
    assert len(processed) == 300
    assert not np.isnan(processed.X()).any()
    assert set(processed.train["label"]) == {"old", "young"}


def test_a_number_as_target() -> None:
    frame = table(300).select("age", "visits", "price").drop_nulls()
    processed = DataPipeline(frame, [FeatureScaler(columns=["visits"])], "price").fit_transform()
    assert processed.classes == ()
    assert processed.y().dtype == np.float64
    assert processed.feature_names == ["visits"]


def test_text_and_numbers_together() -> None:
    steps = [Tokenizer(column="text", vocab_size=300, max_length=8), FeatureScaler(columns=["price"])]
    processed = DataPipeline(table(200), steps, "label").fit_transform()
    found = processed.arrays("validation")
    assert found["ids"].shape == (processed.validation.height, 8)
    assert found["features"].shape == (processed.validation.height, 1)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="needs a target"):
        DataPipeline(table(10))
    with pytest.raises(UserError, match="no target column 'price2'"):
        DataPipeline(table(10), target="price2").fit_transform()
    with pytest.raises(TypeError, match="is no step"):
        DataPipeline(table(10), ["scale"], "label")  # type: ignore[list-item]


def test_the_import_is_light() -> None:
    code = "import sys, mizzen.data; print({'polars', 'torch', 'pyarrow', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
