"""Fixtures for all tests: the embedded cluster, started once for a whole run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class EmbeddedCluster:
    """A running embedded cluster without the chart."""

    state: Path
    port: int

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    def mizzen_local(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One of the commands up, down, status on this cluster's state."""
        code = "from mizzen_local.cli import main; main()"
        command = [sys.executable, "-c", code, args[0], "--state-dir", str(self.state), *args[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        command = [str(Path(sys.executable).with_name("kubectl")), "--kubeconfig", str(self.kubeconfig), *args]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "KUBECTL_KUBERC": "false"},
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *manifests: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(manifest) for manifest in manifests))

    def get(self, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *args, "-o", "json"))
        return found

    def wait(self, what: str, look: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Until `look` gives something true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.05)
        pytest.fail(f"waited {seconds} s in vain for {what}")


@pytest.fixture(scope="session")
def embedded_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    """API server, controllers and one node of 8 CPUs; ended with the test run."""
    cluster = EmbeddedCluster(tmp_path_factory.mktemp("cluster") / "state", free_port())
    try:
        size = ("--cpus", "8", "--memory", "16Gi", "--metrics-interval", "1")
        cluster.mizzen_local(
            "up", "--no-chart", "--port", str(cluster.port), *size, "--extended", "mizzen.dev/accelerator=2"
        )
        yield cluster
    finally:
        cluster.mizzen_local("down", "--purge", check=False)
