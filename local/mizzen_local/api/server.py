"""Starting and stopping the server: state directory, certificates, kubeconfig, sockets, ASGI application."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import ipaddress
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
import yaml

from mizzen_local.api import bootstrap, metrics, pki
from mizzen_local.api.app import App
from mizzen_local.api.auth import Authenticator
from mizzen_local.api.direct import DirectClient
from mizzen_local.api.kubelets import Access, Kubelets
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.rbac import Authorizer
from mizzen_local.api.store import Store
from mizzen_local.api.websockets import KubernetesWebSocketProtocol

SERVICE_RANGE = "127.20.0.0/16"
_DRAIN_SECONDS = 2


class StartError(Exception):
    """The server cannot start; the message is one line for a person."""


class PortTaken(StartError):  # noqa: N818
    """Another program listens on the port."""


class StateLocked(StartError):  # noqa: N818
    """Another server uses the state directory."""


@dataclass(frozen=True)
class ApiServer:
    """A running API server; in-process controllers use `client`."""

    url: str
    port: int
    kubeconfig: Path
    token: str
    machinery: Machinery
    app: App
    client: DirectClient
    stopped: asyncio.Task[None]


@asynccontextmanager
async def running(
    state_dir: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    service_range: str = SERVICE_RANGE,
    metrics_interval: float = metrics.RESOLUTION,
) -> AsyncIterator[ApiServer]:
    """Start the server; leaving the block stops it. `port` 0 picks a free one, which the kubeconfig then names.

    `state_dir/kubelet-token` is what the server shows to node agents; whoever starts them writes it.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240
    with _locked(state_dir / "lock"):
        listener = _listen(host, port)
        port = listener.getsockname()[1]
        service_address = str(ipaddress.ip_network(service_range)[1])
        listeners = [listener, *_service_listener(service_address)]
        addresses = list(dict.fromkeys([host, "127.0.0.1", service_address]))
        files = pki.ensure(state_dir / "pki", addresses)
        token = _admin_token(state_dir / "admin.token")
        store = Store(state_dir / "state.db")
        try:
            machinery = Machinery(store, service_range)
            bootstrap.populate(machinery, service_address, port)
            bootstrap.NamespaceDefaults(machinery, files.ca_pem)
            authn = Authenticator(machinery, token, files.signing_key)
            kubelets = Kubelets(machinery, Access(state_dir / "kubelet-token", files.ca))
            app = App(machinery, authn, Authorizer(machinery), kubelets, f"{host}:{port}", metrics_interval)
            kubeconfig = state_dir / "kubeconfig"
            write_kubeconfig(kubeconfig, f"https://{host}:{port}", files.ca_pem, token)
            server = _uvicorn(app, files)
            task = asyncio.create_task(server.serve(sockets=listeners))
            collecting = asyncio.create_task(app.metrics.run(), name="metrics")
            try:
                await _started(server, task)
                client = DirectClient(machinery, metrics=app.metrics)
                yield ApiServer(f"https://{host}:{port}", port, kubeconfig, token, machinery, app, client, task)
            finally:
                app.stopping.set()
                server.should_exit = True
                collecting.cancel()
                await asyncio.gather(task, collecting, return_exceptions=True)
                await kubelets.close()
        finally:
            store.close()
            for item in listeners:
                item.close()


async def serve(state_dir: Path, host: str = "127.0.0.1", port: int = 6443, service_range: str = SERVICE_RANGE) -> None:
    """Run until cancelled."""
    async with running(state_dir, host, port, service_range) as server:
        await server.stopped


def write_kubeconfig(path: Path, url: str, ca: str, token: str, name: str = "mizzen") -> None:
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(ca.encode()).decode()}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": f"{name}-admin", "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": f"{name}-admin", "namespace": "default"}}],
        "current-context": name,
    }
    pki.write_private(path, yaml.safe_dump(document, sort_keys=False).encode())


class _locked:  # noqa: N801
    """An exclusive lock on the state directory, held until the process ends or the block is left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def __enter__(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise StateLocked(
                f"another server is using {self._path.parent}: stop it, or choose another --state-dir"
            ) from None

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    return listener


def _service_listener(address: str) -> list[socket.socket]:
    """The `kubernetes` Service's own address, where the system lets us: pods find the server there without a proxy."""
    try:
        return [_listen(address, 443)]
    except StartError:
        return []


def _admin_token(path: Path) -> str:
    if not path.exists():
        pki.write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text()


def _uvicorn(app: App, files: pki.Pki) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        ssl_certfile=str(files.certificate),
        ssl_keyfile=str(files.key),
        loop="none",
        http="httptools",
        ws=KubernetesWebSocketProtocol,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=300,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign, assignment]
    return server


def _no_signals() -> object:
    """Signals belong to whoever started us."""
    from contextlib import nullcontext

    return nullcontext()


async def _started(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    while not server.started:
        if task.done():
            await task
            raise StartError("the server stopped before it had started")
        await asyncio.sleep(0.005)
