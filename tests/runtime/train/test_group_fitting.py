"""What reaches the group while it trains: the pod's end, workers that leave, and edits of the wanted sizes."""

from __future__ import annotations

import os
import queue
import signal
from pathlib import Path

import pytest

from mizzen.train import fitting
from mizzen.train.group.messages import News, Notice, Scale, Stop
from mizzen.train.group.nodes import Slots
from mizzen.workload.progress import ProgressBoard
from mizzen_api import contract
from mizzen_api.trainingjob import TrainingJobSpec
from mizzen_api.workload import WorkloadConfig


class Told:
    """Stands where the group does: what it was told, and who is still in it."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.members = {"10.0.0.7"}

    def tell(self, news: News) -> None:
        self.news.put(news)

    def has_left(self, address: str) -> bool:
        return address not in self.members


def config(least: int, most: int) -> WorkloadConfig:
    spec = {
        "datasetRef": {"name": "d"},
        "model": {"name": "text-bag"},
        "register": {"name": "m"},
        "scaling": {"minWorkers": least, "maxWorkers": most},
    }
    return WorkloadConfig(
        kind="TrainingJob",
        namespace="n",
        name="t",
        uid="u",
        artifacts_uri="file:///nowhere",
        training_spec=TrainingJobSpec.model_validate(spec),
    )


def test_the_end_of_the_pod_asks_for_a_checkpoint_and_raises_nothing() -> None:
    told, former = Told(), signal.getsignal(signal.SIGTERM)
    with fitting._stopped_in_time(told):  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.news.get(timeout=5) == Stop()
    assert signal.getsignal(signal.SIGTERM) is former


def test_a_worker_that_asks_to_leave_may_when_nothing_of_the_training_is_there() -> None:
    told, board = Told(), ProgressBoard()
    with fitting._leaving_workers(told, board):  # type: ignore[arg-type]
        assert board.on_leave is not None
        assert not board.on_leave("10.0.0.7")
        assert told.news.get(timeout=5) == Notice("10.0.0.7")
        told.members.clear()
        assert board.on_leave("10.0.0.7")
    assert board.on_leave is None


def test_edits_of_the_sizes_reach_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.json"
    monkeypatch.setenv(contract.ENV_CONFIG, str(file))
    file.write_text("{ half of it")  # as it is just being replaced
    told = Told()
    with fitting._followed(told, config(1, 2), Slots(per_node=4)):  # type: ignore[arg-type]
        draft = tmp_path / "draft"
        draft.write_text(config(2, 5).model_dump_json(by_alias=True))
        draft.rename(file)
        assert told.news.get(timeout=60) == Scale(8, 20)
