"""StatefulSets: which pod comes next, which goes next, and what the status counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mizzen_local.controllers import statefulplan
from mizzen_local.objects import rfc3339

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = "web-old", "web-new"
WELL, UNWELL, GOING, OVER = "well", "unwell", "going", "over"


def pod(number: int, state: str = WELL, revision: str = NEW) -> Object:
    ready = {"type": "Ready", "status": str(state != UNWELL), "lastTransitionTime": rfc3339(NOW)}
    metadata: Object = {"name": f"web-{number}", "uid": f"uid-{number}", "labels": {statefulplan.REVISION: revision}}
    if state == GOING:
        metadata["deletionTimestamp"] = rfc3339(NOW)
    return {
        "metadata": metadata,
        "spec": {},
        "status": {"phase": "Failed" if state == OVER else "Running", "conditions": [ready]},
    }


def web(replicas: int = 3, **spec: Any) -> Object:
    metadata = {"name": "web", "namespace": "ns", "uid": "u", "generation": 2}
    return {"metadata": metadata, "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, **spec}}


def look(subject: Object, pods: list[Object], current: str = NEW) -> tuple[list[tuple[int, str]], list[str]]:
    found = statefulplan.plan(subject, pods, current, NEW, NOW)
    return list(found.create), [entry["metadata"]["name"] for entry in found.delete]


PARALLEL = {"podManagementPolicy": "Parallel"}
KEPT = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}
BY_HAND = {"updateStrategy": {"type": "OnDelete"}}


@pytest.mark.parametrize(
    ("subject", "pods", "create", "delete"),
    [
        (web(), [], [(0, NEW)], []),
        (web(), [pod(0, UNWELL)], [], []),
        (web(), [pod(0)], [(1, NEW)], []),
        (web(), [pod(1), pod(2)], [(0, NEW)], []),
        (web(), [pod(0), pod(1, GOING)], [], []),
        (web(), [pod(0, OVER), pod(1)], [], ["web-0"]),
        (web(**PARALLEL), [pod(1, UNWELL)], [(0, NEW), (2, NEW)], []),
        (web(1), [pod(0), pod(1), pod(2)], [], ["web-2"]),
        (web(1), [pod(0), pod(1), pod(2, GOING)], [], []),
        (web(1), [pod(0, UNWELL), pod(1)], [], []),
        (web(1), [pod(0), pod(1, UNWELL)], [], ["web-1"]),  # the one that is unwell may go
        (web(1, **PARALLEL), [pod(0), pod(1), pod(2)], [], ["web-2", "web-1"]),
        (web(2, ordinals={"start": 5}), [pod(5)], [(6, NEW)], []),
    ],
)
def test_pods_come_and_go_in_order(
    subject: Object, pods: list[Object], create: list[tuple[int, str]], delete: list[str]
) -> None:
    assert look(subject, pods) == (create, delete)


@pytest.mark.parametrize(
    ("subject", "pods", "create", "delete"),
    [
        (web(), [pod(0, revision=OLD), pod(1, revision=OLD), pod(2, revision=OLD)], [], ["web-2"]),
        (web(), [pod(0, revision=OLD), pod(1, revision=OLD)], [(2, NEW)], []),
        (web(), [pod(0, revision=OLD), pod(1, revision=OLD), pod(2, UNWELL)], [], []),
        (web(), [pod(0, revision=OLD), pod(1, revision=OLD), pod(2)], [], ["web-1"]),
        (web(**KEPT), [pod(0, revision=OLD), pod(1, revision=OLD), pod(2)], [], []),
        (web(**KEPT), [pod(0, revision=OLD)], [(1, OLD)], []),
        (web(**BY_HAND), [pod(0, revision=OLD), pod(1, revision=OLD), pod(2, revision=OLD)], [], []),
    ],
)
def test_updates_go_backwards(
    subject: Object, pods: list[Object], create: list[tuple[int, str]], delete: list[str]
) -> None:
    assert look(subject, pods, OLD) == (create, delete)


def test_the_status_counts_revisions() -> None:
    pods = [pod(0, revision=OLD), pod(1, UNWELL), pod(2)]
    assert statefulplan.plan(web(), pods, OLD, NEW, NOW).status == {
        "observedGeneration": 2, "replicas": 3, "readyReplicas": 2, "currentReplicas": 1, "updatedReplicas": 2,
        "currentRevision": OLD, "updateRevision": NEW, "collisionCount": 0, "availableReplicas": 2,
    }  # fmt: skip
    done = statefulplan.plan(web(), [pod(0), pod(1), pod(2)], OLD, NEW, NOW).status
    assert (done["currentRevision"], done["currentReplicas"]) == (NEW, 3)


def test_a_pod_has_a_stable_name_and_its_own_claims() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"x": 1}}
    subject = web(serviceName="web", volumeClaimTemplates=[claim])
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "more", "emptyDir": {}}]
    made = statefulplan.pod_of(subject, 4, {"spec": {"containers": [], "volumes": volumes}}, NEW)
    assert made["metadata"]["name"] == made["spec"]["hostname"] == "web-4" and made["spec"]["subdomain"] == "web"
    assert made["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-4"}},
        {"name": "more", "emptyDir": {}},
    ]
    (wanted,) = statefulplan.claims_of(subject, made)
    assert (wanted["metadata"]["name"], wanted["metadata"]["labels"]) == ("data-web-4", {"a": "b"})
