"""A model folder, as training writes it, behind the server."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from starlette.testclient import TestClient

from mizzen.data import CategoricalEncoder, DataPipeline, FeatureScaler
from mizzen.data.making import pipeline_of
from mizzen.data.sdk import ImageTransform
from mizzen.data.steps.base import Target
from mizzen.data.steps.text import TokenizeStep
from mizzen.models import artifact, catalog
from mizzen.models.text_bag import TextBagConfig
from mizzen.serve.app import ModelServer, Settings, create_app
from mizzen.serve.predictor import load_predictor
from mizzen.train import DistributedTrainer
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


@contextmanager
def client_of(folder: Path) -> Iterator[TestClient]:
    server = ModelServer(Settings(model_name="m"))

    async def load() -> None:
        server.serve(load_predictor(str(folder)))

    with TestClient(create_app(server, load)) as client:
        while not server.ready:
            client.get("/v2/health/ready")
        yield client


def test_rows_of_a_table_are_answered_with_a_value(tmp_path: Path) -> None:
    numbers = [float(number) for number in range(60)]
    table = pl.DataFrame({"rooms": numbers, "kind": ["a", "b", "c"] * 20, "price": [2 * n for n in numbers]})
    steps = [CategoricalEncoder(columns=["kind"], handle_unknown="ignore"), FeatureScaler(columns=["rooms"])]
    dataset = DataPipeline(table, steps, "price", target_type="number")
    DistributedTrainer("cpu", threads=1, epochs=2).fit("mlp", dataset).save(tmp_path / "m")
    with client_of(tmp_path / "m") as client:
        answer = client.post("/predict", json={"instances": [{"rooms": 3, "kind": "a"}, {"rooms": 4.5, "kind": "z"}]})
        assert [set(one) for one in answer.json()["predictions"]] == [{"value"}] * 2
        refused = client.post("/predict", json={"rooms": "three", "kind": "a"})
        assert refused.status_code == 400
        assert refused.json()["error"] == "row 0: column 'rooms' must be a number, not str"
        assert "instances[0].rooms: is missing" in client.post("/predict", json={"kind": "a"}).json()["error"]
        assert client.get("/v2/models/m").json()["outputs"] == [{"name": "value", "datatype": "FP32", "shape": [-1, 1]}]


def test_images_come_as_base64(tmp_path: Path) -> None:
    files = []
    for number in range(60):
        buffer = io.BytesIO()
        Image.new("L", (8, 8), 255 - number if number % 2 else number).save(buffer, "PNG")
        files.append(buffer.getvalue())
    table = pl.DataFrame({"image": files, "shade": ["light" if n % 2 else "dark" for n in range(60)]})
    dataset = DataPipeline(table, [ImageTransform(column="image", height=8, width=8, channels=1)], "shade")
    trainer = DistributedTrainer("cpu", threads=1, epochs=10, batch_size=16)
    trainer.fit("cnn", dataset, config={"width": 4}).save(tmp_path / "m")
    with client_of(tmp_path / "m") as client:
        answers = client.post("/predict", json={"instances": [base64.b64encode(file).decode() for file in files[8:10]]})
        assert [one["label"] for one in answers.json()["predictions"]] == ["dark", "light"]
        refused = client.post("/predict", json={"image": "no base64!"})
        assert refused.status_code == 400
        assert "row 0: column 'image' must be base64" in refused.json()["error"]
