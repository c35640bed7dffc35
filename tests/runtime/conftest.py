"""Builders that the runtime's tests share: a small corpus that a model learns in seconds, and its version."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mizzen.data.materialize import Version, materialize
from mizzen_api.dataset import DatasetSpec

WORDS = {
    "bad": ["awful", "hate", "broken", "worst", "sad"],
    "good": ["great", "love", "works", "best", "happy"],
    "so-so": ["okay", "average", "fine", "usual", "plain"],
}
FILLERS = ["the", "a", "it", "is", "was", "this", "my", "car", "phone", "today", "again", "with", "and", "you", "we"]


def corpus(rows: int, seed: int = 1) -> str:
    """CSV of `rows` texts whose class shows in one word out of some."""
    rng = random.Random(seed)
    lines = ["label,text"]
    for number in range(rows):
        label = rng.choice(list(WORDS))
        words = [*rng.choices(FILLERS, k=rng.randint(2, 12)), rng.choice(WORDS[label]), f"n{number}"]
        rng.shuffle(words)
        lines.append(f'{label},"{", ".join(words)}"')
    return "\n".join(lines) + "\n"


def dataset_spec(path: Path, **changes: object) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "sources": [{"uri": str(path)}],
            "transforms": [{"tokenize": {"column": "text", "vocabSize": 600, "maxLength": 24}}],
            "target": "label",
            **changes,
        }
    )


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A published version of 900 rows."""
    root = tmp_path_factory.mktemp("artifacts")
    source = root / "corpus.csv"
    source.write_text(corpus(900))
    return materialize(dataset_spec(source), root.as_uri(), "default", "corpus")
