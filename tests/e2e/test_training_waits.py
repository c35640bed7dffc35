"""What keeps a training from starting is in its condition within seconds, and goes once it is mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import manifests
from tests.e2e.platform_under_test import Platform, until

pytestmark = pytest.mark.cluster

NAMESPACE = "tight"
EXAMPLE = Path(__file__).parents[2] / "examples" / "own-model" / "training.yaml"
WITHIN = 30  # seconds; the platform's own timers are of one to three


def named(kind: str, name: str, **body: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **body}


def here(manifest: dict[str, Any]) -> dict[str, Any]:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": NAMESPACE}}


@pytest.fixture(scope="module")
def data(platform: Platform) -> str:
    """The name of a Dataset in a namespace of its own, where a quota harms nobody else."""
    platform.kubectl("create", "namespace", NAMESPACE)
    folder = platform.state / "volumes" / NAMESPACE / "mizzen-artifacts" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    manifests.write_csv(folder / "few.csv", manifests.tweets(400))
    platform.apply(here(manifests.dataset("few", "file:///artifacts/raw/few.csv")))
    until(lambda: condition(platform, "dataset/few", "Ready")["status"] == "True" or None, 90)
    return "few"


def condition(platform: Platform, resource: str, kind: str = "Succeeded") -> dict[str, Any]:
    conditions = platform.get(resource, "-n", NAMESPACE).get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {"status": "", "reason": "", "message": ""})


def says(platform: Platform, reason: str, *words: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        found = condition(platform, "trainingjob/waits")
        told = found["reason"] == reason and all(word in found["message"] for word in words)
        return found["message"] if told else None

    return probe


def uid(platform: Platform, job: str) -> str:
    return str(platform.get(f"job/{job}", "-n", NAMESPACE)["metadata"]["uid"])


def heads(platform: Platform) -> list[str]:
    """Names of the head's pods that run."""
    pods = platform.pods("mizzen.dev/name=waits,mizzen.dev/role=head", NAMESPACE)
    return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"]


def evict(platform: Platform) -> str:
    """What a drain does, done to the head; returns the pod's name."""
    (name,) = until(lambda: heads(platform) or None, WITHIN)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    platform.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
    return name


def test_code_image_and_quota_one_after_the_other(platform: Platform, data: str) -> None:
    job = here(
        manifests.training(
            "waits",
            data,
            {"entrypoint": "net:build", "config": {"width": 16}},
            "waits",
            code={"configMapRef": {"name": "net"}},
            image="registry.invalid/nobody/made:this",
            runPolicy={"backoffLimit": 0},
            scaling={"maxWorkers": 1, "resourcesPerWorker": {"cpu": "200m", "memory": "1Gi"}},
        )
    )
    platform.apply(job)
    until(says(platform, "CodeNotFound", "'net'", "create it"), WITHIN)

    code, _ = yaml.safe_load_all(EXAMPLE.read_text())
    platform.apply(here(code))
    until(says(platform, "Pending", "The head waits", "ImagePull"), WITHIN)

    # Room for the head (512Mi), not for a worker.
    platform.apply(named("ResourceQuota", "small", spec={"hard": {"requests.memory": "900Mi"}}))
    del job["spec"]["image"]
    platform.apply(job)
    until(says(platform, "WorkersPending", "0 of at least 1 workers", "exceeded quota: small"), WITHIN)

    # A head that is evicted is no failure: the backoffLimit of none holds.
    evicted = evict(platform)
    until(lambda: [pod for pod in heads(platform) if pod != evicted] or None, WITHIN)
    until(says(platform, "WorkersPending", "exceeded quota: small"), WITHIN)

    # As Kueue would take quota away and give it back.
    platform.kubectl("patch", "job/waits-train-head", "-n", NAMESPACE, "-p", '{"spec": {"suspend": true}}')
    until(says(platform, "Queued", "Job waits-train-head"), WITHIN)
    platform.kubectl("patch", "job/waits-train-head", "-n", NAMESPACE, "-p", '{"spec": {"suspend": false}}')
    until(lambda: heads(platform) or None, WITHIN)

    head = uid(platform, "waits-train-head")
    job["spec"]["scaling"]["maxWorkers"] = 2
    platform.apply(job)
    wanted = lambda: platform.get("job/waits-train-workers", "-n", NAMESPACE)["spec"]["parallelism"]  # noqa: E731
    until(lambda: wanted() == 2 or None, WITHIN)
    assert uid(platform, "waits-train-head") == head, "the head runs on"

    platform.kubectl("delete", "resourcequota", "small", "-n", NAMESPACE)
    until(lambda: condition(platform, "trainingjob/waits")["status"] != "Unknown" or None, 150)
    ended = condition(platform, "trainingjob/waits")
    assert ended["status"] == "True", ended
    status = platform.get("trainingjob/waits", "-n", NAMESPACE)["status"]
    assert status["accelerator"] == "cpu"
    assert status["modelVersion"]["uri"] == "models:/waits/1"


def test_code_that_cannot_be_imported_ends_the_job_with_the_line_to_mend(platform: Platform, data: str) -> None:
    platform.apply(named("ConfigMap", "broken", data={"broken.py": "import os\nimport nobody_has_this\n"}))
    job = manifests.training(
        "broken", data, {"entrypoint": "broken:build"}, "broken", code={"configMapRef": {"name": "broken"}}
    )
    platform.apply(here(job))
    until(lambda: condition(platform, "trainingjob/broken")["status"] == "False" or None, WITHIN)
    ended = condition(platform, "trainingjob/broken")
    assert ended["reason"] == "InvalidParameters"
    assert "No module named 'nobody_has_this' (broken.py, line 2)" in ended["message"]
    platform.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
