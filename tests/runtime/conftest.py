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


OPINIONS = {
    "bad": ["awful", "broken", "a waste", "very sad", "the worst"],
    "good": ["excellent", "great", "a pleasure", "very happy", "the best"],
}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that holds v1.0, exported: texts to two classes."""
    import polars as pl

    from mizzen.data import DataPipeline, Tokenizer
    from mizzen.registry.transfer import export
    from mizzen.train import DistributedTrainer

    ends = ["", "today", "again", "really", "for us", "indeed"]
    rows = [
        {"text": f"This product is {word} {end}".strip(), "label": label}
        for label, words in OPINIONS.items()
        for word in words
        for end in ends
    ]
    data = DataPipeline(pl.DataFrame(rows), [Tokenizer(column="text", vocab_size=120, max_length=12)], "label")
    trainer = DistributedTrainer("cpu", epochs=12, batch_size=16, learning_rate=1e-2, threads=1)
    folder = tmp_path_factory.mktemp("shelf")
    result = trainer.fit("text-transformer", data, config={"embedding_dim": 16, "num_layers": 1, "attention_heads": 2})
    export(str(result.save(folder / "run")), folder / "models" / "v1.0")
    return folder / "models"


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A published version of 900 rows."""
    root = tmp_path_factory.mktemp("artifacts")
    source = root / "corpus.csv"
    source.write_text(corpus(900))
    return materialize(dataset_spec(source), root.as_uri(), "default", "corpus")
