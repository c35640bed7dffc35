"""`mizzen serve`: bind at once, load and warm the model beside, serve it, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Annotated

import numpy as np
import typer
import uvicorn

from mizzen.errors import MizzenError
from mizzen.serve.app import ModelServer, Settings, create_app
from mizzen.serve.predictor import Predictor, load_predictor
from mizzen.serve.traffic import InternalServer
from mizzen.workload.config import pod_ip
from mizzen.workload.outcome import set_up_logging, write_outcome
from mizzen_api.conditions import Reason
from mizzen_api.contract import ENV_POD_NAME, PORT_HTTP, PORT_PROGRESS
from mizzen_api.workload import Progress

log = logging.getLogger("mizzen.serve")

DRAIN_SECONDS = 2.0  # how long proxies have to learn that this server is not ready any more
EXIT_UNLOADABLE = 1
WARM_UP_TEXT = "warm up"


def serve(
    model_uri: Annotated[str, typer.Option(help="models:/NAME/VERSION, or a folder.")],
    model_name: Annotated[str, typer.Option(help="Name in /v2/models/NAME.")] = "model",
    variant: Annotated[str, typer.Option(help="Variant of the ModelService.")] = "predictor",
    max_batch_size: Annotated[int, typer.Option(min=1, help="Rows of one run of the model at most.")] = 32,
    max_latency_ms: Annotated[float, typer.Option(min=0, help="How long the first row of a batch waits.")] = 5,
    host: Annotated[str, typer.Option(help="Address to bind to; $MIZZEN_POD_IP by default.")] = "",
    port: Annotated[int, typer.Option(help="Port to bind to.")] = PORT_HTTP,
    internal_port: Annotated[int, typer.Option(help="Port of GET /profile, which no route leads to.")] = PORT_PROGRESS,
) -> None:
    """Serve one model version over HTTP until SIGTERM."""
    set_up_logging()
    settings = Settings(
        model_name=model_name,
        model_version=version_of(model_uri),
        variant=variant,
        max_batch_size=max_batch_size,
        max_latency_ms=max_latency_ms,
    )
    raise typer.Exit(run(settings, lambda: load_predictor(model_uri), host or pod_ip(), port, model_uri, internal_port))


def version_of(model_uri: str) -> str:
    """The version that answers carry: the number of models:/NAME/NUMBER, else the last part of the URI."""
    return model_uri.rstrip("/").replace("@", "/").rpartition("/")[2] or "1"


def run(
    settings: Settings,
    load: Callable[[], Predictor],
    host: str,
    port: int,
    model_uri: str,
    internal_port: int | None = None,
) -> int:
    """Serve until a signal, or until the model proves unloadable. Returns the exit code."""
    server = ModelServer(settings)
    exit_code = 0

    async def load_and_serve() -> None:
        nonlocal exit_code
        try:
            predictor = await asyncio.to_thread(_warm, load, settings.max_batch_size)
            server.serve(predictor)
            log.info("model %s is ready: %s", model_uri, ", ".join(predictor.classes))
        except Exception as error:
            log.exception("model %s cannot be loaded", model_uri)
            exit_code = EXIT_UNLOADABLE
            write_outcome(unloadable(model_uri, error))
            http.should_exit = True

    config = uvicorn.Config(
        create_app(server, load_and_serve),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=25,  # below the 30 s that Kubernetes grants
        timeout_keep_alive=75,  # above that of usual proxies: they close first, and no request is lost between
    )
    http = _DrainingServer(config, server)
    with _internal(server, host, internal_port):
        http.run()
    return exit_code


def _internal(server: ModelServer, host: str, port: int | None) -> AbstractContextManager[object]:
    """A port that is taken costs the profile, not the model."""
    if port is None:
        return nullcontext()
    try:
        return InternalServer(server.profile, host, port)
    except OSError as error:
        log.warning("no profile of the requests is served: port %d of %s: %s", port, host, error.strerror)
        return nullcontext()


def unloadable(model_uri: str, error: Exception) -> Progress:
    """The last words of a server without a model; the operator puts them into the ModelService's condition."""
    reason = Reason.MODEL_UNLOADABLE
    if isinstance(error, MizzenError) and error.reason == Reason.REGISTRY_UNREACHABLE:
        reason = error.reason
    return Progress(state="Failed", reason=reason, message=f"model {model_uri} cannot be loaded: {error}")


def _warm(load: Callable[[], Predictor], max_batch_size: int) -> Predictor:
    """Load, and run the smallest and the largest batch once: first runs allocate and compile.

    A model that diverged ends here, where the version before it goes on answering.
    """
    from mizzen.data.profiles import Profile

    predictor = load()
    row = dict.fromkeys(predictor.columns, WARM_UP_TEXT)
    for rows in (1, max_batch_size):
        if not np.isfinite(predictor.predict([row] * rows)).all():
            raise ValueError("its probabilities are not finite numbers")
    Profile.of(predictor.frame([row]))
    return predictor


class _DrainingServer(uvicorn.Server):
    """On SIGTERM it first says that it is not ready, goes on answering, and only then closes its socket."""

    def __init__(self, config: uvicorn.Config, server: ModelServer) -> None:
        super().__init__(config)
        self._model_server = server

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """uvicorn's own would also raise the signal again at the end: an orderly end is exit code 0."""
        if self._model_server.draining:  # a second signal
            self.force_exit = self.should_exit = True
            return
        self._model_server.drain()
        patience = DRAIN_SECONDS if ENV_POD_NAME in os.environ else 0  # nobody routes to a person's terminal
        log.info("draining for %g s", patience)
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, patience, self._close)

    def _close(self) -> None:
        self.should_exit = True
