"""The frame around a workload: what it leaves for the operator when it may not write."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mizzen.workload.outcome import run_workload
from mizzen.workload.progress import ProgressBoard
from mizzen_api import contract
from mizzen_api.conditions import Reason
from mizzen_api.workload import Progress, WorkloadConfig


@pytest.fixture
def termination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A pod's environment; the file where its last words go."""
    config = WorkloadConfig(kind="Dataset", namespace="n", name="d", uid="u", artifacts_uri=f"file://{tmp_path}")
    (tmp_path / "config.json").write_text(config.model_dump_json(by_alias=True))
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setenv(contract.ENV_CONFIG, str(tmp_path / "config.json"))
    monkeypatch.setenv(contract.ENV_POD_IP, "127.77.3.1")
    monkeypatch.setenv("MIZZEN_TERMINATION_LOG", str(log))
    before = signal.getsignal(signal.SIGTERM)
    yield log
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/artifacts/runs"), "Permission denied: /artifacts/runs: let user "),
        (PermissionError("Traceback ...\n  line 3\nAccess Denied"), "Access Denied: let user "),
        (OSError(30, "Read-only file system", "/artifacts"), "Read-only file system: /artifacts: let user "),
        (PermissionError(), "permission denied: let user "),
    ],
)
def test_a_store_without_permission_is_for_a_person_to_mend(termination: Path, error: Exception, words: str) -> None:
    def work(config: WorkloadConfig, board: ProgressBoard) -> str:
        raise error

    assert run_workload("Dataset", work) == contract.EXIT_USER_ERROR
    progress = Progress.from_termination_message(termination.read_text())
    assert progress is not None
    assert progress.reason is Reason.ARTIFACTS_FORBIDDEN
    assert progress.message.startswith(words)
