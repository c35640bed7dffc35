"""An API server alone: in a process of its own for real clients, and its machinery in memory for rules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mizzen_local.api import bootstrap
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.store import Store


@dataclass
class ApiProcess:
    """A running `python -m mizzen_local.api`."""

    state: Path
    port: int = 0
    process: subprocess.Popen[str] | None = field(default=None)

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def server(self) -> str:
        return str(yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])

    @property
    def token(self) -> str:
        return (self.state / "admin.token").read_text()

    @property
    def ca(self) -> Path:
        return self.state / "pki" / "ca.crt"

    def start(self) -> None:
        command = [sys.executable, "-m", "mizzen_local.api", "--state", str(self.state), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout
        first = self.process.stdout.readline()
        assert first.startswith("serving "), first + self.process.stdout.read()
        self.port = int(first.rsplit(":", 1)[1])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None and self.process.stdout is not None
        self.process.send_signal(number)
        code = self.process.wait(10)
        self.process.stdout.close()
        return code

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Output of kubectl; with `check=False` also what it wrote as errors."""
        command = [str(Path(sys.executable).with_name("kubectl")), "--kubeconfig", str(self.kubeconfig), *args]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=20, check=False,
            env={**os.environ, "HOME": str(self.state), "KUBECTL_KUBERC": "false"},
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *manifests: dict[str, Any], args: tuple[str, ...] = (), check: bool = True) -> str:
        return self.kubectl("apply", *args, "-f", "-", stdin=yaml.safe_dump_all(manifests), check=check)


def until(what: str, look: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Poll until `look` gives something true."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < deadline:
        if found := look():
            return found
        pause.wait(0.02)
    pytest.fail(f"waited {seconds} s in vain for {what}")


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    return until


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """One server for all tests that only add to it; each test uses a namespace of its own."""
    server = ApiProcess(tmp_path_factory.mktemp("api"))
    server.start()
    yield server
    server.end()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ApiProcess]:
    """A server that the test may kill."""
    server = ApiProcess(tmp_path / "state")
    server.start()
    yield server
    if server.process is not None and server.process.poll() is None:
        server.end()


@pytest.fixture
def machinery(tmp_path: Path) -> Iterator[Machinery]:
    """The server's rules without the network, with the objects of an empty cluster."""
    store = Store(tmp_path / "state.db")
    found = Machinery(store)
    bootstrap.populate(found, "127.20.0.1", 6443)
    bootstrap.NamespaceDefaults(found, "CA")
    yield found
    store.close()
