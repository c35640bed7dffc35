"""Drift against the traffic of real model servers: all of them merged; a warning where there is nothing to merge."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mizzen.data.command import run
from mizzen.workload.progress import ProgressBoard
from mizzen_api.workload import DatasetReport, LiveReference, WorkloadConfig

from ..conftest import corpus, dataset_spec

pytestmark = pytest.mark.slow
SERVED = Path(__file__).parents[1] / "serve" / "served.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    def __init__(self) -> None:
        self.port, internal = free_port(), free_port()
        self.internal = f"127.0.0.1:{internal}"
        self.process = subprocess.Popen(
            [sys.executable, str(SERVED), "127.0.0.1", str(self.port), f"internal={internal}"],
            stderr=subprocess.DEVNULL, env=dict(os.environ),
        )  # fmt: skip

    def ask(self, texts: list[str]) -> None:
        for start in range(0, len(texts), 500):
            body = json.dumps({"instances": texts[start : start + 500]}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/predict", body)
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200

    def seen(self) -> int:
        try:
            with urllib.request.urlopen(f"http://{self.internal}/profile", timeout=10) as answer:
                return int(json.load(answer)["rows"])
        except OSError:
            return -1

    def until(self, rows: int) -> None:
        deadline = time.monotonic() + 30
        while (seen := self.seen()) < rows:
            assert self.process.poll() is None
            assert time.monotonic() < deadline, f"{seen} of {rows} rows are profiled"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    started = [Server(), Server()]
    for server in started:
        server.until(0)
    yield started
    for server in started:
        server.process.terminate()
    for server in started:
        assert server.process.wait(timeout=20) == 0


def materialized(folder: Path, addresses: list[str], **drift: Any) -> DatasetReport:
    (folder / "in.csv").write_text(corpus(300))
    config = WorkloadConfig(
        kind="Dataset",
        namespace="ns",
        name="reviews",
        uid="u",
        artifacts_uri=str(folder / "artifacts"),
        dataset_spec=dataset_spec(folder / "in.csv", drift={"reference": "modelservice", **drift}),
        live_reference=LiveReference(name="reviews", addresses=addresses),
    )
    board = ProgressBoard()
    run(config, board)
    assert board.progress.dataset is not None
    assert board.progress.dataset.fingerprint, "the version is published in any case"
    return board.progress.dataset


def test_a_version_is_compared_with_what_all_servers_are_asked(tmp_path: Path, servers: list[Server]) -> None:
    addresses = [server.internal for server in servers]
    report = materialized(tmp_path, addresses)
    assert report.drift is None
    assert "none of 2 servers of ModelService 'reviews' tells of a request" in report.drift_note
    texts = [line.split(",", 1)[1].strip('"') for line in corpus(400, seed=2).splitlines()[1:]]
    servers[0].ask(texts[:60])
    servers[0].until(60)
    report = materialized(tmp_path, addresses)
    assert "'reviews' has seen 60 rows lately, and spec.drift.minRows is 100" in report.drift_note
    servers[1].ask(texts[60:])
    servers[1].until(340)
    report = materialized(tmp_path, addresses)
    assert report.drift_note == ""
    assert report.drift is not None
    assert (report.drift.features, report.drift.drifted_features) == (1, 0), "like texts, from other rows"
    assert report.drift.reference == "ModelService reviews"
    for server in servers:
        server.ask(["WHY IS THIS SHOUTED AT SUCH LENGTH, AND ABOUT NOTHING THAT ANYBODY KNOWS? " * 4] * 500)
        server.until(560)
    report = materialized(tmp_path, [*addresses, f"127.0.0.1:{free_port()}"])  # one has just gone away
    assert report.drift is not None
    assert (report.drift.drifted_features, report.drift.worst) == (1, "text")


def test_no_server_is_no_failure(tmp_path: Path) -> None:
    report = materialized(tmp_path, [])
    assert report.drift_note == "ModelService 'reviews' has no server that is ready"
    report = materialized(tmp_path, [f"127.0.0.1:{free_port()}"])
    assert "Connection refused" in report.drift_note
