"""From a killed node to the next optimizer step: Mizzen's group beside Ray Train as it comes, fixed and elastic.

Two nodes of one Ray cluster on loopback addresses, each a `ray start` with Ray's own settings; all processes of one are
killed at once, and a new node joins 18 seconds later. Steps take half a second, checkpoints come every ten steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness import Options, Row

T = TypeVar("T")
HERE = Path(__file__).parent
HEAD, NETWORK = "127.66.0.1", "127.66.0."
STEPS_BEFORE, EVERY = 25, 10
REPLACED_AFTER = 18.0
SOONER = 3.0
PATIENCE = 180.0
ENVIRONMENT = {
    **os.environ,
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "PYTHONPATH": str(HERE),
}


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill to the next optimizer step, and to one that was not done before; steps done again."""

    next_step: float
    new_step: float
    lost: int


def recovery(options: Options) -> list[Row]:  # noqa: ARG001
    rows = []
    ours = _measured("ours")
    rows.append(Row("a node is killed: next step", "s", ours.next_step))
    rows.append(Row("steps that were lost", "steps", ours.lost, EVERY))
    for which in ("fixed", "elastic"):
        peer = _measured(which)
        name = f"Ray Train, {which}"
        rows += [
            Row(f"{name}: next step", "s", ours.next_step, peer=peer.next_step, peer_name=name),
            Row(f"{name}: next new step", "s", ours.new_step, peer=peer.new_step, peer_name=name),
            Row(f"{name}: lost", "steps", ours.lost, peer=peer.lost, peer_name=name),
            Row(f"{name}: times sooner", "×", peer.next_step / ours.next_step, SOONER, "min"),
        ]
    return rows


def _measured(which: str) -> Recovery:
    with tempfile.TemporaryDirectory(prefix="mizzen-bench-") as folder, _nodes() as nodes:
        log = Path(folder) / "steps.jsonl"
        script = "train_recovery_ours.py" if which == "ours" else "train_recovery_peer.py"
        kind = [] if which == "ours" else [which]
        command = [sys.executable, str(HERE / script), nodes.address, HEAD, *kind, str(log), folder]
        nodes.started.append(subprocess.Popen(command, env=ENVIRONMENT, stderr=(Path(folder) / "stderr").open("wb")))
        before = _until("two workers", lambda: _both(_steps(log)))
        nodes.kill(3)
        killed = time.time()
        _until("a step, or a new node", lambda: _after(log, killed, 0) or time.time() - killed > REPLACED_AFTER)
        remaining = REPLACED_AFTER - (time.time() - killed)
        following = _after(log, killed, 0)
        if not following:
            time.sleep(max(0.0, remaining))
            nodes.start(4)
        following = following or _until("the next step", lambda: _after(log, killed, 0))
        new = _until("a new step", lambda: _after(log, killed, before[1] + 1))
        return Recovery(following[0] - killed, new[0] - killed, max(0, before[1] - following[1] + 1))


class _Nodes:
    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind((HEAD, 0))
            self.address = f"{HEAD}:{free.getsockname()[1]}"
        self.started: list[subprocess.Popen[bytes]] = []
        self._by_number: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int) -> None:
        where = [f"--node-ip-address={NETWORK}{number}", "--object-store-memory=80000000", "--block"]
        if number == 1:
            where += [
                "--head",
                f"--port={self.address.rpartition(':')[2]}",
                "--num-cpus=0",
                "--include-dashboard=false",
            ]
        else:
            where += [f"--address={self.address}", "--num-cpus=1"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where]
        quiet = subprocess.DEVNULL
        started = subprocess.Popen(command, env=ENVIRONMENT, stdout=quiet, stderr=quiet, start_new_session=True)
        self.started.append(started)
        self._by_number[number] = started

    def kill(self, number: int) -> None:
        _kill_all(self._by_number[number].pid)


@contextlib.contextmanager
def _nodes() -> Iterator[_Nodes]:
    nodes = _Nodes()
    try:
        nodes.start(1)
        _until("the head", lambda: _answers(nodes.address))
        time.sleep(3.0)
        for number in (2, 3):
            nodes.start(number)
            time.sleep(4.0)  # nodes that start at once trip over each other's files
        yield nodes
    finally:
        for process in reversed(nodes.started):
            _kill_all(process.pid)
            process.wait()


def _kill_all(pid: int) -> None:
    """A process and all that descend from it, which have groups of their own."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    doomed = [pid]
    for one in doomed:
        doomed += children.get(one, [])
    for one in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
        return True
    return False


def _steps(log: Path) -> list[tuple[float, int, int]]:
    """Time, step and number of workers of each line."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [tuple(json.loads(line)) for line in lines if line.endswith("]")]


def _both(steps: list[tuple[float, int, int]]) -> tuple[float, int, int] | None:
    """The last step, once two workers have done enough of them, and some since the last checkpoint."""
    if len(steps) < STEPS_BEFORE or steps[-1][2] != 2 or steps[-1][1] % EVERY != EVERY // 2:
        return None
    return steps[-1]


def _after(log: Path, moment: float, step: int) -> tuple[float, int, int] | None:
    """The first line after the moment, of at least this step. What was under way in that moment does not count."""
    return next((line for line in _steps(log) if line[0] > moment + 0.1 and line[1] >= step), None)


def _until(what: str, look: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE:.0f} s in vain for {what}")
        time.sleep(0.02)
    return found
