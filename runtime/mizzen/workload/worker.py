"""`mizzen ray-worker`: a worker pod. Finds the head, joins it as a Ray node, and joins again when the head is new."""

from __future__ import annotations

import http.client
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from mizzen.train.accelerators import granted, ray_arguments
from mizzen.workload import config as configuration
from mizzen.workload.outcome import EXIT_STOPPED, set_up_logging
from mizzen.workload.progress import PATH_LEAVE, PATH_RAY, cluster_token
from mizzen.workload.quantities import amount
from mizzen.workload.ray_head import OBJECT_STORE_BYTES, lean_environment
from mizzen_api import contract
from mizzen_api.workload import WorkloadConfig

log = logging.getLogger("mizzen.worker")

POLL_SECONDS = 0.5
LOST_AFTER = 6  # polls in a row without an answer
STOP_GRACE_SECONDS = 8.0
LEAVE_SECONDS = 90.0  # for a checkpoint just in time; the pod has two minutes


def main() -> int:
    """Work until SIGTERM. Never 0: a drained worker that counted as complete would not come back."""
    set_up_logging()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    config = configuration.load()
    assert config.ray is not None, "a worker's configuration names the head"
    lean_environment()
    host = config.ray.address.rpartition(":")[0]
    while not stop.is_set():
        head = _wait_for_head(host, stop)
        if head is not None:
            _stay(host, head, config, stop)
    return EXIT_STOPPED


@dataclass(frozen=True)
class Head:
    """A head that is there. One that was started anew has the same address and another incarnation."""

    address: str  # of its GCS
    incarnation: str


def head_at(host: str) -> Head | None:
    """The head that runs now; None while there is none, or while it is not ready."""
    connection = http.client.HTTPConnection(host, contract.PORT_PROGRESS, timeout=3)
    try:
        connection.request("GET", PATH_RAY)
        response = connection.getresponse()
        body = response.read()
        return Head(**json.loads(body)) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return None
    finally:
        connection.close()


def _wait_for_head(host: str, stop: threading.Event) -> Head | None:
    started = time.monotonic()
    told = started
    while not stop.is_set():
        if head := head_at(host):
            log.info("head %s is at %s (waited %.1f s)", host, head.address, time.monotonic() - started)
            return head
        if time.monotonic() - told > 15:
            log.info("waiting for the head %s: %s", host, _why_not(host))
            told = time.monotonic()
        stop.wait(POLL_SECONDS)
    return None


def _stay(host: str, head: Head, config: WorkloadConfig, stop: threading.Event) -> None:
    """Be a node of this head until it goes away, `ray start` ends, or we are told to stop."""
    ip = configuration.pod_ip()
    started = time.monotonic()
    node = subprocess.Popen(
        [
            sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={head.address}",
            f"--node-ip-address={ip}", f"--num-cpus={cpus(config)}", *ray_arguments(*granted(config)),
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            "--dashboard-agent-listen-port=0", "--metrics-export-port=0", "--disable-usage-stats", "--block",
        ],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    log.info("joining %s from %s", head.address, ip)
    missed = 0
    while not stop.is_set() and node.poll() is None:
        stop.wait(POLL_SECONDS)
        now = head_at(host)
        missed = 0 if now == head else missed + 1
        if missed >= LOST_AFTER or (now is not None and now != head):
            log.info("the head at %s is gone", head.address)
            break
    if stop.is_set():
        _leave_in_time(host, ip)
    if node.poll() is not None:
        log.info("ray ended with %s after %.0f s", node.returncode, time.monotonic() - started)
    _end(node, gently=stop.is_set())
    if not stop.is_set():
        stop.wait(POLL_SECONDS)


def _leave_in_time(host: str, ip: str) -> None:
    """Told to stop: ask the driver until nothing of the training is here any more, or until there is no time left."""
    started = time.monotonic()
    while time.monotonic() - started < LEAVE_SECONDS:
        answer = ask_to_leave(host, ip)
        if answer is None or answer:
            break
        time.sleep(0.2)
    log.info("left the training after %.1f s", time.monotonic() - started)


def ask_to_leave(host: str, ip: str) -> bool | None:
    """Whether this pod may go; None where nobody holds it: no driver, or one that runs something else."""
    connection = http.client.HTTPConnection(host, contract.PORT_PROGRESS, timeout=3)
    try:
        headers = {"Authorization": f"Bearer {cluster_token()}", "Content-Type": "application/json"}
        connection.request("POST", PATH_LEAVE, json.dumps({"address": ip}), headers)
        response = connection.getresponse()
        body = response.read()
        return bool(json.loads(body)["left"]) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()


def cpus(config: WorkloadConfig) -> int:
    """What the node offers to Ray: whole CPUs, at least one; one trial or one rank takes all of it."""
    del config
    return 1


def threads(quantity: str | None) -> int:
    """Threads for a Kubernetes quantity of CPU, at least one."""
    if not quantity:
        return 1
    return max(1, math.ceil(amount(quantity)))


def _end(node: subprocess.Popen[bytes], *, gently: bool) -> None:
    """Stop `ray start` and all that it started, in its own session. Without a head nobody need be told."""
    for number in (signal.SIGTERM, signal.SIGKILL) if gently else (signal.SIGKILL,):
        if not _signal_group(node.pid, number):
            break
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        while time.monotonic() < deadline and _signal_group(node.pid, 0):
            node.poll()
            time.sleep(0.05)
    node.wait()


def _signal_group(pid: int, number: int) -> bool:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    return True


def _why_not(host: str) -> str:
    try:
        socket.getaddrinfo(host, contract.PORT_PROGRESS)
    except OSError as error:
        return f"its name does not resolve ({error.strerror})"
    return f"nothing answers on port {contract.PORT_PROGRESS}, or Ray is not up yet"
