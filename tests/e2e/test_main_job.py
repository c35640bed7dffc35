"""The main job with each of its processes killed once while it runs: the same result, all the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import manifests
from tests.e2e.platform_under_test import Platform, post, until

pytestmark = pytest.mark.cluster

ROWS = 3000
OPERATOR = "app.kubernetes.io/component=operator"
HEAD = "mizzen.dev/name=chaos,mizzen.dev/role=head,mizzen.dev/kind="
WORKERS = "mizzen.dev/name=chaos,mizzen.dev/role=workers,mizzen.dev/kind="


def step(platform: Platform) -> int:
    status = platform.get("trainingjob/chaos").get("status", {})
    found: int = (status.get("trainerStatus") or {}).get("step", 0)
    return found


def test_the_main_job_survives_the_death_of_each_process(platform: Platform, raw: Path) -> None:
    manifests.write_csv(raw / "chaos.csv", manifests.tweets(ROWS))
    platform.apply(
        manifests.dataset("chaos", "file:///artifacts/raw/chaos.csv"),
        manifests.training("chaos-base", "chaos", {"name": "text-bag", "config": {"embedding_dim": 16}}, "chaos",
                           register={"name": "chaos", "alias": "champion"}),
        manifests.search("chaos", "chaos"),
        manifests.training(
            "chaos",
            "chaos",
            {"searchJobRef": {"name": "chaos"}},
            "chaos",
            trainer={"epochs": 12, "batchSize": 32},
            checkpoint={"everySteps": 20, "keep": 2},
            scaling={"minWorkers": 1, "maxWorkers": 2, "resourcesPerWorker": {"cpu": "200m", "memory": "512Mi"}},
            register={"name": "chaos", "alias": "candidate"},
        ),
        manifests.service(
            "chaos",
            "models:/chaos@champion",
            {"name": "candidate", "trafficPercent": 20, "predictor": manifests.predictor("models:/chaos@candidate")},
        ),
    )  # fmt: skip

    platform.kill_pod(OPERATOR, "mizzen-system")  # while the Dataset is made
    platform.wait("dataset/chaos", "Ready")

    until(lambda: platform.pods(HEAD + "SearchJob"), 120)
    platform.kill_control_plane()  # while the search runs: the API server, the controllers and the node agent
    platform.mizzen("up")
    platform.wait("searchjob/chaos", "Succeeded")

    until(lambda: step(platform) >= 40, 240)
    assert platform.exposed() == set(), "everything listens on loopback only"
    platform.kill_pod(WORKERS + "TrainingJob")
    reached = step(platform)
    until(lambda: step(platform) > reached + 40 or step(platform) == 0, 240)
    platform.kill_pod(HEAD + "TrainingJob")
    platform.wait("trainingjob/chaos", "Succeeded", timeout=300)
    platform.wait("trainingjob/chaos-base", "Succeeded")
    platform.wait("modelservice/chaos", "Ready")

    check_training(platform.get("trainingjob/chaos"))
    check_service(platform)


def check_training(job: dict[str, Any]) -> None:
    status = job["status"]
    trainer = status["trainerStatus"]
    steps = 12 * (ROWS * 8 // 10) / 32
    assert trainer["progressPercentage"] == 100
    assert abs(trainer["step"] - steps) <= 12 * 2, "a resumed run takes as many steps as an undisturbed one"
    assert trainer["metrics"]["test_accuracy"] > trainer["metrics"]["test_majority_rate"]
    assert status["modelVersion"]["alias"] == "candidate"
    assert status["observedGeneration"] == job["metadata"]["generation"]


def check_service(platform: Platform) -> None:
    url = platform.get("modelservice/chaos")["status"]["url"]

    def answers() -> Counter[str] | None:
        replies = [post(f"{url}/predict", {"text": "what a wonderful day"}) for _ in range(60)]
        if any(code != 200 for code, _, _ in replies):
            return None
        return Counter(headers["mizzen-variant"] for _, headers, _ in replies)

    assert set(until(answers, 60)) == {"predictor", "candidate"}
    platform.kill_pod("mizzen.dev/name=chaos,mizzen.dev/variant=predictor")
    counts = until(answers, 90)
    assert counts["predictor"] > counts["candidate"] > 0
    code, _, answer = post(f"{url}/predict", {"text": "the worst"})
    assert code == 200
    assert abs(sum(answer["probabilities"].values()) - 1) < 1e-3
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].__getitem__)
    code, _, answer = post(f"{url}/predict", {"txt": "no such field"})
    assert 400 <= code < 500
    assert "text" in answer["error"]
