"""The HTTP face of one model: routes, limits, errors and metrics. command.py runs it, batcher.py does the work."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mizzen.data.pipeline import RowError
from mizzen.serve.batcher import Batcher
from mizzen.serve.errors import BadRequest, NotFound, NotReady, ServeError, TimedOut, TooLarge, Unusable
from mizzen.serve.metrics import ServerMetrics
from mizzen.serve.predictor import Predictor
from mizzen.serve.protocol import HEADER_LENGTH, MAX_ROWS, infer_response, outputs_of, parse_infer, parse_json
from mizzen.serve.traffic import TrafficProfile
from mizzen_api.contract import HEADER_VARIANT, PATH_LIVE, PATH_METRICS, PATH_READY

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the server is told, and its limits."""

    model_name: str
    model_version: str = "1"
    variant: str = "predictor"
    max_batch_size: int = 32
    max_latency_ms: float = 5
    max_waiting_rows: int | None = None
    max_body_bytes: int = 4 * 2**20
    timeout_s: float = 30


@dataclass
class ModelServer:
    """The state behind the routes. Not ready before `serve` got a model, nor after `drain`."""

    settings: Settings
    metrics: ServerMetrics = field(init=False)
    predictor: Predictor | None = None
    batcher: Batcher | None = None
    traffic: TrafficProfile | None = None
    draining: bool = False

    def __post_init__(self) -> None:
        self.metrics = ServerMetrics(self.settings.variant, self.settings.model_version)

    @property
    def ready(self) -> bool:
        return self.batcher is not None and not self.draining

    def serve(self, predictor: Predictor) -> None:
        """Begin to answer; the model is warm. Call it on the event loop."""
        self.predictor = predictor
        self.batcher = Batcher(
            predictor.predict,
            max_batch_size=self.settings.max_batch_size,
            max_latency_ms=self.settings.max_latency_ms,
            max_waiting=self.settings.max_waiting_rows,
            on_batch=self.metrics.batch_size.observe,
        )
        self.batcher.start()
        if predictor.profiled:
            self.traffic = TrafficProfile(predictor.frame)
            self.traffic.start()

    def profile(self) -> bytes | None:
        """What requests looked like, as JSON; None while the model is loading, or of images."""
        return self.traffic.document() if self.traffic else None

    def drain(self) -> None:
        self.draining = True

    def model(self) -> Predictor:
        if self.predictor is None:
            raise NotReady("the model is loading; try again in a second")
        return self.predictor

    async def probabilities(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """Probabilities (N, C) through the batcher. A server that drains still answers what reaches it."""
        model = self.model()
        assert self.batcher is not None
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                found = await self.batcher.submit(rows)
        except TimeoutError:
            raise TimedOut(f"no answer within {self.settings.timeout_s:g} s") from None
        except RowError as error:
            raise BadRequest(str(error)) from None
        if not np.isfinite(found).all():
            raise Unusable("the model's probabilities are not finite numbers: serve another version of it")
        for index in found.argmax(axis=1) if model.classes else ():
            self.metrics.predicted(model.classes[index])
        if self.traffic:
            self.traffic.offer(rows)
        return found


def create_app(server: ModelServer, on_start: Callable[[], Awaitable[None]] | None = None) -> FastAPI:
    """Routes over `server`. `on_start` loads the model; it runs beside the server, so that /live answers meanwhile."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.ensure_future(on_start()) if on_start else None
        yield
        if loading:
            loading.cancel()
        if server.batcher:
            await server.batcher.stop()
        if server.traffic:
            await asyncio.to_thread(server.traffic.stop)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(ServeError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    _add_health(app, server)
    _add_model(app, server)
    _add_inference(app, server)

    app.add_middleware(_WhoAnswers, server=server)
    return app


class JsonResponse(Response):
    """JSON without a copy in between."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class _WhoAnswers:
    """Adds the variant to each answer. Plain ASGI: Starlette's own middleware starts a task for every request."""

    def __init__(self, app: ASGIApp, server: ModelServer) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER_VARIANT] = self._server.settings.variant
                if self._server.draining:
                    headers["Connection"] = "close"  # proxies must not reuse a connection that is about to end
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _refused(_request: Request, error: Exception) -> Response:
    if isinstance(error, ServeError):
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
        return JsonResponse({"error": str(error)}, error.status, headers)
    assert isinstance(error, HTTPException)
    return JsonResponse({"error": str(error.detail)}, error.status_code, error.headers)


def _add_health(app: FastAPI, server: ModelServer) -> None:
    @app.get(PATH_LIVE)
    async def live() -> Response:
        return JsonResponse({"live": True})

    @app.get(PATH_READY)
    async def ready() -> Response:
        return JsonResponse({"ready": server.ready}, 200 if server.ready else 503)

    @app.get(PATH_METRICS)
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_model(app: FastAPI, server: ModelServer) -> None:
    @app.get("/v2")
    async def about() -> Response:
        from mizzen import __version__

        return JsonResponse({"name": "mizzen", "version": __version__, "extensions": ["binary_tensor_data"]})

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}")
    async def metadata(name: str, version: str | None = None) -> Response:
        _check(server, name, version)
        model = server.model()
        return JsonResponse(
            {
                "name": name,
                "versions": [server.settings.model_version],
                "platform": "mizzen_pytorch",
                "inputs": [{"name": column, "datatype": "BYTES", "shape": [-1]} for column in model.columns],
                "outputs": outputs_of(model.classes),
            }
        )

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, version: str | None = None) -> Response:
        _check(server, name, version)
        return JsonResponse({"name": name, "ready": server.ready}, 200 if server.ready else 503)


def _add_inference(app: FastAPI, server: ModelServer) -> None:
    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer")
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        async def answer() -> Response:
            _check(server, name, version)
            model, body = server.model(), await _body(request, server.settings.max_body_bytes)
            wanted = parse_infer(body, request.headers.get(HEADER_LENGTH), model.columns)
            found = await server.probabilities(wanted.rows)
            content, head = infer_response(wanted, (name, server.settings.model_version), found, model.classes)
            if head is None:
                return Response(content, media_type="application/json")
            return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(head)})

        return await _measured(server, answer)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        async def answer() -> Response:
            model = server.model()
            document = parse_json(await _body(request, server.settings.max_body_bytes))
            instances = document.get("instances", [document])
            rows = _rows(instances, model)
            found = await server.probabilities(rows)
            about = {"variant": server.settings.variant, "modelVersion": server.settings.model_version}
            predictions = [_prediction(row, model) for row in found]
            if "instances" in document:
                return JsonResponse({"predictions": predictions, **about})
            return JsonResponse({**predictions[0], **about})

        return await _measured(server, answer)


def _prediction(row: np.ndarray, model: Predictor) -> dict[str, Any]:
    if not model.classes:
        return {"value": float(row[0])}
    probabilities = {name: float(p) for name, p in zip(model.classes, row, strict=True)}
    return {"label": model.classes[int(row.argmax())], "probabilities": probabilities}


def _rows(instances: object, model: Predictor) -> list[dict[str, Any]]:
    """Rows of /predict: objects with the model's columns, or plain texts where it has one column.

    That texts are texts is checked here, where the position is known; numbers and the rest by the pipeline.
    """
    columns = model.columns
    if not isinstance(instances, list) or not instances:
        raise BadRequest("instances: must be a list of at least one row")
    if len(instances) > MAX_ROWS:
        raise TooLarge(f"instances: at most {MAX_ROWS} rows in one request")
    rows = []
    for position, instance in enumerate(instances):
        row = {columns[0]: instance} if isinstance(instance, str) and len(columns) == 1 else instance
        if not isinstance(row, dict):
            raise BadRequest(f"instances[{position}]: must be an object with {', '.join(columns)}")
        for column in columns:
            if column in model.texts and not isinstance(row.get(column), str):
                raise BadRequest(f"instances[{position}].{column}: must be a string")
            if column not in row:
                raise BadRequest(f"instances[{position}].{column}: is missing; null stands for a missing value")
        rows.append({column: row[column] for column in columns})
    return rows


def _check(server: ModelServer, name: str, version: str | None) -> None:
    if name != server.settings.model_name:
        raise NotFound(f"model {name!r} is not here; this server has {server.settings.model_name!r}")
    if version not in {None, server.settings.model_version}:
        raise NotFound(f"version {version!r} is not here; this server has {server.settings.model_version!r}")


async def _body(request: Request, limit: int) -> bytes:
    """The body, never more than `limit` bytes of it in memory."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(f"the body is larger than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


async def _measured(server: ModelServer, answer: Callable[[], Awaitable[Response]]) -> Response:
    started, code = time.perf_counter(), 500
    server.metrics.in_flight.inc()
    try:
        response = await answer()
        code = response.status_code
        return response
    except ServeError as error:
        code = error.status
        raise
    except Exception:
        log.exception("the model failed on a request")
        return JsonResponse({"error": "the model failed on this request; the server's log says why"}, 500)
    finally:
        server.metrics.in_flight.dec()
        server.metrics.answered(code, time.perf_counter() - started)
