"""Edits of the number of workers reach a running driver."""

from __future__ import annotations

import queue
import time
from pathlib import Path

import pytest

from mizzen.workload.following import following_scaling
from mizzen_api import contract
from mizzen_api.workload import WorkloadConfig


def write(path: Path, least: int, most: int) -> None:
    """As a kubelet does: the new file takes the old one's place at once."""
    spec = {
        "datasetRef": {"name": "d"},
        "model": {"name": "text-bag"},
        "register": {"name": "m"},
        "scaling": {"minWorkers": least, "maxWorkers": most},
    }
    body = {"kind": "TrainingJob", "namespace": "n", "name": "t", "uid": "u", "artifacts_uri": "file:///a"}
    config = WorkloadConfig.model_validate(body | {"training_spec": spec})
    new = path.with_suffix(".new")
    new.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    new.replace(path)


def test_a_change_is_told_once_and_a_broken_file_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.json"
    monkeypatch.setenv(contract.ENV_CONFIG, str(path))
    write(path, 1, 4)
    told: queue.Queue[tuple[int, int]] = queue.Queue()
    with following_scaling((1, 2), lambda least, most: told.put((least, most)), poll_seconds=0.01):
        assert told.get(timeout=10) == (1, 4), "edited before anybody followed"
        path.write_text("{")
        deadline = time.monotonic() + 10
        while "is not a workload configuration" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        write(path, 1, 4)
        write(path, 2, 4)
        assert told.get(timeout=10) == (2, 4)
    assert told.empty()
