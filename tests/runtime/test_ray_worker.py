"""A worker pod never ends well: its Job would count as complete, and nobody would replace the workers that are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mizzen.workload.progress import ProgressBoard, ProgressServer
from mizzen.workload.worker import Head, ask_to_leave, head_at
from mizzen_api import contract
from mizzen_api.workload import RayCluster, WorkloadConfig


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_says_so(tmp_path: Path) -> None:
    config = WorkloadConfig(
        kind="TrainingJob",
        namespace="n",
        name="t",
        uid="u",
        artifacts_uri=f"file://{tmp_path}",
        ray=RayCluster(address="127.77.3.2:6379", workers=1),  # nobody is there
    )
    (tmp_path / "config.json").write_text(config.model_dump_json(by_alias=True))
    environment = {**os.environ, contract.ENV_CONFIG: str(tmp_path / "config.json"), contract.ENV_POD_IP: "127.77.3.3"}
    code = "import sys; from mizzen.workload import worker as w; "
    code += "w.head_at = lambda host: print('asked', flush=True); sys.exit(w.main())"
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "asked\n"
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=20) == contract.EXIT_STOPPED
        finally:
            worker.kill()


def test_a_head_that_was_started_anew_is_another() -> None:
    host = "127.77.3.4"
    assert head_at(host) is None
    board = ProgressBoard()
    with ProgressServer(board, host):
        assert head_at(host) is None, "it is not ready"
        board.ray_address = f"{host}:6379"
        first = head_at(host)
        assert first == Head(f"{host}:6379", board.incarnation)
    second = ProgressBoard()
    second.ray_address = board.ray_address
    with ProgressServer(second, host):
        assert head_at(host) not in (None, first)


def test_a_pod_that_is_told_to_stop_asks_until_it_may_go() -> None:
    host = "127.77.3.5"
    assert ask_to_leave(host, "10.0.0.7") is None, "nobody is there to be asked"
    board = ProgressBoard()
    asked: list[str] = []
    with ProgressServer(board, host):
        assert ask_to_leave(host, "10.0.0.7") is None, "what runs needs no notice"
        board.on_leave = lambda address: asked.append(address) or len(asked) > 1  # type: ignore[func-returns-value]
        assert ask_to_leave(host, "10.0.0.7") is False
        assert ask_to_leave(host, "10.0.0.7") is True
    assert asked == ["10.0.0.7"] * 2
