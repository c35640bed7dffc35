"""How a workload is watched: the operator pulls `/progress`, Prometheus `/metrics`; workers ask `/ray` and `/leave`."""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from mizzen_api import contract
from mizzen_api.workload import Progress

log = logging.getLogger(__name__)

PATH_LEAVE = "/leave"  # a worker's pod that is told to stop asks whether it may
PATH_RAY = "/ray"  # workers ask where the head's GCS listens
MAX_QUESTION_BYTES = 4096


class ProgressBoard:
    """The one Progress of this process. Written by the work, read by the server; all methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress = Progress()
        self.registry = CollectorRegistry()
        self._gauges: dict[tuple[str, tuple[str, ...]], Gauge] = {}
        self.on_leave: Callable[[str], bool] | None = None  # by a pod's address: whether nothing needs it any more
        self.ray_address: str | None = None
        self.incarnation = secrets.token_hex(8)  # of this process: another may come at the same address

    @property
    def progress(self) -> Progress:
        with self._lock:
            return self._progress.model_copy(deep=True)

    def update(self, **fields: Any) -> None:
        """Replace fields of the Progress, for example `training=report`."""
        with self._lock:
            self._progress = self._progress.model_copy(update=fields, deep=True)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a metric of the contract."""
        key = (name, tuple(labels))
        with self._lock:
            if key not in self._gauges:
                self._gauges[key] = Gauge(name, contract.METRICS[name], tuple(labels), registry=self.registry)
            gauge = self._gauges[key]
        (gauge.labels(**labels) if labels else gauge).set(value)


class ProgressServer:
    """Serves a ProgressBoard on one address from a daemon thread. Use as a context manager."""

    def __init__(self, board: ProgressBoard, host: str, port: int = contract.PORT_PROGRESS) -> None:
        self.board = board
        self._server = ThreadingHTTPServer((host, port), _handler(board))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="progress", daemon=True
        )

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> ProgressServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def cluster_token() -> str:
    """The token that pods of one job share; empty where none is mounted."""
    path = os.environ.get(contract.ENV_RAY_AUTH_TOKEN_PATH)
    return Path(path).read_text().strip() if path and Path(path).exists() else ""


def _handler(board: ProgressBoard) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10  # a client that says nothing must not hold a thread

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == contract.PATH_PROGRESS:
                text = board.progress.model_dump_json(by_alias=True, exclude_none=True)
                self._answer(200, text.encode(), "application/json")
            elif path == contract.PATH_METRICS:
                self._answer(200, generate_latest(board.registry), CONTENT_TYPE_LATEST)
            elif path == PATH_RAY:
                status = 200 if board.ray_address else 503  # 503: the head is on its way
                answer = {"address": board.ray_address, "incarnation": board.incarnation}
                self._answer(status, json.dumps(answer).encode(), "application/json")
            else:
                self._answer(404, b"", "text/plain")

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.path != PATH_LEAVE or board.on_leave is None or not 0 < length <= MAX_QUESTION_BYTES:
                self.close_connection = True  # the body stays unread
                self._answer(404, b"", "text/plain")
                return
            body = self.rfile.read(length)
            if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {cluster_token()}"):
                self._answer(401, b"", "text/plain")
                return
            try:
                answer = {"left": board.on_leave(str(json.loads(body)["address"]))}
            except (ValueError, KeyError, TypeError) as error:
                log.warning("a question that cannot be read: %r", error)
                self._answer(400, b"", "text/plain")
                return
            self._answer(200, json.dumps(answer).encode(), "application/json")

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Handler
