"""A model folder, as training writes it, behind the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient

from mizzen.data.making import pipeline_of
from mizzen.data.steps.base import Target
from mizzen.data.steps.text import TokenizeStep
from mizzen.models import artifact, catalog
from mizzen.models.text_bag import TextBagConfig
from mizzen.serve.app import ModelServer, Settings, create_app
from mizzen.serve.predictor import load_predictor
from mizzen_api.dataset import Tokenize

TEXTS = ["what a wonderful day", "this is awful", "it is a day"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    frame = pl.DataFrame({"text": TEXTS})
    fit = TokenizeStep(Tokenize(column="text", vocab_size=300, max_length=8)).begin(frame)
    fit.update(frame)
    fitted = pipeline_of([fit.finish()], frame, Target("mood", ("bad", "good")))
    (root / "pipeline.json").write_text(fitted.to_json())
    config = TextBagConfig(fitted.vocab_size, num_classes=2, max_length=8, embedding_dim=8)
    artifact.save(root / "model", "text-bag", config, catalog.build("text-bag", config), root / "pipeline.json")
    return root / "model"


def test_a_folder_is_served(folder: Path) -> None:
    server = ModelServer(Settings(model_name="mood"))
    predictor = load_predictor(str(folder))

    async def load() -> None:
        server.serve(predictor)

    with TestClient(create_app(server, load)) as client:
        while not server.ready:
            client.get("/v2/health/ready")
        answer = client.post("/predict", json={"text": TEXTS[0]}).json()
    assert set(answer["probabilities"]) == {"bad", "good"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    expected = predictor.predict([{"text": TEXTS[0]}])
    assert list(answer["probabilities"].values()) == pytest.approx(expected[0].tolist())


def test_a_batch_changes_no_answer(folder: Path) -> None:
    predictor = load_predictor(str(folder))
    alone = np.concatenate([predictor.predict([{"text": text}]) for text in TEXTS])
    assert predictor.predict([{"text": text} for text in TEXTS]) == pytest.approx(alone, abs=1e-6)
