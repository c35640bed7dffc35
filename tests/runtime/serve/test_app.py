"""The routes of the model server, in process: protocol, errors, limits, metrics, batches, draining."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mizzen.serve.app import ModelServer, Settings, create_app
from mizzen.serve.command import _warm
from mizzen.serve.errors import ServeError
from mizzen.serve.protocol import HEADER_LENGTH, parse_infer
from mizzen_api import contract
from tests.runtime.serve.fakes import LengthPredictor

INFER = "/v2/models/tweets/infer"


class Service:
    def __init__(self, **changes: Any) -> None:
        given: dict[str, Any] = {"model_name": "tweets", "model_version": "4", "variant": "candidate", **changes}
        self.server = ModelServer(Settings(**given))
        self.model = LengthPredictor()

    async def load(self) -> None:
        self.server.serve(self.model)

    def client(self, *, loaded: bool = True) -> TestClient:
        return TestClient(create_app(self.server, self.load if loaded else None))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with service.client() as client:
        until_ready(client)
        yield client


def until_ready(client: TestClient) -> None:
    for _ in range(1000):
        if client.get("/v2/health/ready").status_code == 200:
            return
    raise AssertionError("never ready")


def body(*texts: str, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}], **more}


def test_infer_answers_in_the_protocols_shape(client: TestClient) -> None:
    answer = client.post(INFER, json=body("abc", "abcd", id="r1"))
    assert answer.status_code == 200
    assert answer.headers[contract.HEADER_VARIANT] == "candidate"
    document = answer.json()
    assert (document["id"], document["model_name"], document["model_version"]) == ("r1", "tweets", "4")
    label, probabilities = document["outputs"]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["negative", "neutral"]}
    assert probabilities["shape"] == [2, 3]
    assert probabilities["data"] == pytest.approx([0.8, 0.1, 0.1, 0.1, 0.8, 0.1])


def test_binary_in_and_out(client: TestClient) -> None:
    import orjson

    raw = b"".join(struct.pack("<I", len(t)) + t for t in (b"abc", "ü".encode()))
    head = orjson.dumps(
        {
            "inputs": [
                {"name": "text", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
            ],
            "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
        }
    )
    answer = client.post(INFER, content=head + raw, headers={HEADER_LENGTH: str(len(head))})
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[HEADER_LENGTH])
    assert orjson.loads(answer.content[:length])["outputs"][0]["parameters"] == {"binary_data_size": 4 + 8 + 4 + 7}
    assert answer.content[length:] == b"\x08\0\0\0negative\x07\0\0\0neutral"


def test_only_the_outputs_that_are_asked_for(client: TestClient) -> None:
    answer = client.post(INFER, json=body("abc", outputs=[{"name": "probabilities"}]))
    assert [output["name"] for output in answer.json()["outputs"]] == ["probabilities"]


def test_predict_takes_one_row_or_many(client: TestClient) -> None:
    one = client.post("/predict", json={"text": "abc"}).json()
    assert one["label"] == "negative"
    assert one["probabilities"] == pytest.approx({"negative": 0.8, "neutral": 0.1, "positive": 0.1})
    assert (one["variant"], one["modelVersion"]) == ("candidate", "4")
    many = client.post("/predict", json={"instances": [{"text": "abc"}, "abcde"]}).json()
    assert [p["label"] for p in many["predictions"]] == ["negative", "positive"]


def test_metadata_and_health(client: TestClient) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/models/tweets/versions/4/ready").json() == {"name": "tweets", "ready": True}
    assert client.get("/v2/models/tweets").json()["outputs"][1]["shape"] == [-1, 3]


@pytest.mark.parametrize(
    ("path", "content", "status", "message"),
    [
        (INFER, b"{", 400, "not JSON"),
        (INFER, b"[]", 400, "must be a JSON object"),
        (INFER, b"{}", 400, "inputs"),
        (INFER, b'{"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": [1]}]}', 400, "datatype"),
        (INFER, b'{"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a"]}]}', 400, "shape says"),
        (INFER, b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}', 400, "takes text"),
        (INFER, b'{"inputs": [{"name": "text", "shape": [9999], "datatype": "BYTES", "data": []}]}', 413, "at most"),
        ("/v2/models/other/infer", b"{}", 404, "'other' is not here"),
        ("/v2/models/tweets/versions/9/infer", b"{}", 404, "'9' is not here"),
        ("/predict", b'{"txt": "a"}', 400, "instances[0].text: must be a string"),
        ("/predict", b'{"instances": []}', 400, "at least one row"),
        ("/predict", b'{"text": "' + b"a" * 5_000_000 + b'"}', 413, "larger than"),
        ("/nowhere", b"", 404, "Not Found"),
    ],
)
def test_what_is_wrong_is_said_and_is_a_4xx(
    client: TestClient, path: str, content: bytes, status: int, message: str
) -> None:
    answer = client.post(path, content=content)
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_the_models_own_errors_stay_inside_and_leave_others_alone(client: TestClient, service: Service) -> None:
    service.model.go.clear()
    with ThreadPoolExecutor(3) as pool:
        busy = pool.submit(client.post, "/predict", json={"text": "a"})
        assert service.model.entered.wait(5)
        bad = pool.submit(client.post, "/predict", json={"text": "poison"})
        good = pool.submit(client.post, "/predict", json={"text": "abc"})
        service.model.go.set()
        assert busy.result().status_code == 200
        assert bad.result().status_code == 500
        assert "secret" not in bad.result().text
        assert good.result().json()["label"] == "negative"


@pytest.mark.parametrize(("url", "sent"), [("/predict", {"text": "diverged"}), (INFER, body("fine", "diverged"))])
def test_an_answer_that_is_no_number_is_an_error(client: TestClient, url: str, sent: dict[str, Any]) -> None:
    answer = client.post(url, json=sent)
    assert answer.status_code == 500
    assert answer.json() == {"error": "the model's probabilities are not finite numbers: serve another version of it"}
    assert client.post("/predict", json={"text": "fine"}).status_code == 200


def test_a_model_that_diverged_does_not_get_ready() -> None:
    class Diverged(LengthPredictor):
        def predict(self, rows: list[dict[str, Any]]) -> np.ndarray:
            return super().predict(rows) * np.nan

    with pytest.raises(ValueError, match="its probabilities are not finite numbers"):
        _warm(Diverged, 4)


def test_requests_that_wait_run_together() -> None:
    service = Service(max_batch_size=4, max_latency_ms=2000)
    with service.client() as client, ThreadPoolExecutor(4) as pool:
        until_ready(client)
        answers = list(pool.map(lambda text: client.post("/predict", json={"text": text}).json(), ["", "a", "bb", ""]))
    assert [a["label"] for a in answers] == ["negative", "neutral", "positive", "negative"]
    assert service.model.batches == [4]


def test_more_rows_than_a_batch_are_cut_into_batches() -> None:
    service = Service(max_batch_size=2, max_latency_ms=0)
    with service.client() as client:
        until_ready(client)
        answer = client.post("/predict", json={"instances": ["", "a", "bb", "", "a"]})
    assert [p["label"] for p in answer.json()["predictions"]] == [
        "negative",
        "neutral",
        "positive",
        "negative",
        "neutral",
    ]
    assert service.model.batches == [2, 2, 1]


def test_a_full_queue_is_503_with_retry_after() -> None:
    service = Service(max_waiting_rows=1)
    with service.client() as client, ThreadPoolExecutor(1) as pool:
        until_ready(client)
        service.model.go.clear()
        first = pool.submit(client.post, "/predict", json={"text": "a"})
        assert service.model.entered.wait(5)
        refused = client.post("/predict", json={"text": "b"})
        service.model.go.set()
        assert first.result().status_code == 200
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"


def test_a_slow_model_is_504() -> None:
    service = Service(timeout_s=0.05)
    with service.client() as client:
        until_ready(client)
        service.model.go.clear()
        assert client.post("/predict", json={"text": "a"}).status_code == 504
        service.model.go.set()


def test_alive_but_not_ready_while_the_model_loads(service: Service) -> None:
    with service.client(loaded=False) as client:
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        assert client.post("/predict", json={"text": "a"}).status_code == 503


def test_a_draining_server_answers_and_closes_connections(client: TestClient, service: Service) -> None:
    service.server.drain()
    assert client.get("/v2/health/ready").status_code == 503
    answer = client.post("/predict", json={"text": "a"})
    assert answer.status_code == 200
    assert answer.headers["Connection"] == "close"


def test_metrics_are_those_of_the_contract(client: TestClient) -> None:
    client.post("/predict", json={"text": "abc"})
    client.post("/predict", json={})
    text = client.get("/metrics").text
    own = 'model_version="4",variant="candidate"'
    for metric in ("REQUESTS", "REQUEST_SECONDS", "IN_FLIGHT", "BATCH_SIZE", "PREDICTIONS"):
        assert f"# HELP {getattr(contract, f'METRIC_{metric}')} " in text
    assert f'{contract.METRIC_REQUESTS}{{code="200",{own}}} 1.0' in text
    assert f'{contract.METRIC_REQUESTS}{{code="400",{own}}} 1.0' in text
    assert f'{contract.METRIC_PREDICTIONS}{{model_version="4",predicted="negative",variant="candidate"}} 1.0' in text
    assert f"{contract.METRIC_IN_FLIGHT}{{{own}}} 0.0" in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("text") | JSON,
        "shape": st.lists(st.integers(0, 3), max_size=2) | JSON,
        "datatype": st.just("BYTES") | JSON,
        "data": st.lists(st.text(max_size=3), max_size=3) | JSON,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 20) | JSON}) | JSON,
    },
)
BODY = st.fixed_dictionaries(
    {}, optional={"id": JSON, "inputs": st.lists(TENSOR, max_size=2) | JSON, "outputs": JSON, "parameters": JSON}
)


@settings(deadline=None, max_examples=300)
@given(BODY | JSON, st.binary(max_size=20), st.none() | st.integers(0, 200) | st.text(max_size=3))
def test_any_body_is_read_or_refused_in_words(document: Any, tail: bytes, length: int | str | None) -> None:
    import orjson

    head = orjson.dumps(document)
    header = str(len(head)) if length == 0 else None if length is None else str(length)
    try:
        request = parse_infer(head + tail, header, ("text",))
    except ServeError as refusal:
        assert refusal.status in {400, 413}
        assert str(refusal)
    else:
        assert request.rows
        assert all(isinstance(row["text"], str) for row in request.rows)


def test_the_fake_runs_in_the_models_own_thread(client: TestClient, service: Service) -> None:
    seen: list[str] = []
    predict = service.model.predict
    service.server.batcher._predict = lambda rows: (seen.append(threading.current_thread().name), predict(rows))[1]  # type: ignore[union-attr]
    client.post("/predict", json={"text": "abc"})
    assert seen == ["model_0"]
