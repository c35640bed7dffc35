"""A Ray cluster of several nodes on loopback addresses, whose parts can be taken away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.conftest import free_port

HEAD = "127.10.0.1"
OBJECT_STORE_BYTES = 80 * 1024 * 1024
T = TypeVar("T")


def until(look: Callable[[], T], seconds: float = 60.0) -> T:
    """What `look` gives, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.01)
    return found


class RayNodes:
    """A head in this process, and nodes of one CPU each as process groups of their own."""

    def __init__(self, port: int) -> None:
        self.address = f"{HEAD}:{port}"
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def add(self, number: int) -> str:
        """Start a node, and return its address once it has joined."""
        import ray

        ip = f"127.10.0.{number}"
        self._nodes[ip] = subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={self.address}",
                f"--node-ip-address={ip}", "--num-cpus=1", "--num-gpus=0",
                f"--object-store-memory={OBJECT_STORE_BYTES}", "--dashboard-agent-listen-port=0",
                "--metrics-export-port=0", "--disable-usage-stats", "--block",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until(lambda: any(node["Alive"] and node["NodeManagerAddress"] == ip for node in ray.nodes()))
        return ip

    def kill(self, ip: str, *processes: int) -> None:
        """The whole node at once, with processes that run on it."""
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node = self._nodes.pop(ip)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def close(self) -> None:
        for ip in list(self._nodes):
            self.kill(ip)


@contextlib.contextmanager
def cluster(*numbers: int) -> Iterator[RayNodes]:
    """Nodes one after the other: they share a folder, and would trip over each other in it."""
    from mizzen.workload.ray_head import lean_environment

    former = dict(os.environ)
    handler = signal.getsignal(signal.SIGTERM)
    port = free_port()
    root = str(Path(__file__).parents[3])
    os.environ |= {"PYTHONPATH": root, "RAY_GCS_SERVER_PORT": str(port)}
    lean_environment()
    import ray

    from mizzen.workload.ray_node import start_lean_head

    head: Any = start_lean_head(HEAD, port, OBJECT_STORE_BYTES)
    nodes = RayNodes(port)
    try:
        ray.init(address=nodes.address, _node_ip_address=HEAD, log_to_driver=False, logging_level="ERROR")
        for number in numbers:
            nodes.add(number)
        yield nodes
    finally:
        ray.shutdown()
        head.kill_all_processes(check_alive=False, allow_graceful=False)
        nodes.close()
        signal.signal(signal.SIGTERM, handler)
        os.environ.clear()
        os.environ.update(former)
