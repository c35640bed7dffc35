"""Jobs: how many pods run, what counts, and when a Job is done or has failed, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mizzen_local.controllers import jobindexes, jobplan
from mizzen_local.controllers.jobindexes import FAILURES, INDEX, format_indexes, parse_indexes
from mizzen_local.controllers.jobplan import TRACKING
from mizzen_local.objects import rfc3339

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(name: str, phase: str = "Running", *, ready: bool = True, **meta: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": rfc3339(NOW)}]
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "ns", "labels": {"app": "x"}, **meta},
        "spec": {"containers": [{"name": "c"}], "nodeName": "n"},
        "status": {"phase": phase, "podIP": "127.30.0.9", "conditions": conditions if phase == "Running" else []},
    }


def ended(name: str, code: int, ago: float = 100.0, **meta: Any) -> dict[str, Any]:
    finished = rfc3339(NOW - timedelta(seconds=ago))
    found = pod(name, "Succeeded" if code == 0 else "Failed", finalizers=[TRACKING], **meta)
    state = {"terminated": {"exitCode": code, "finishedAt": finished}}
    found["status"]["containerStatuses"] = [{"name": "c", "state": state}]
    return found


def job(**spec: Any) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}
    return {
        "metadata": {"name": "j", "uid": "uid-j", "namespace": "ns"},
        "spec": {"completions": 1, "parallelism": 1, "template": template, **spec},
        "status": {"startTime": rfc3339(NOW - timedelta(seconds=50))},
    }


def condition_types(status: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["reason"] for c in status["conditions"] if c["status"] == "True"}


@pytest.mark.parametrize(
    ("text", "indexes"), [("", set()), ("0-2,4", {0, 1, 2, 4}), ("3", {3}), ("1,3", {1, 3}), ("4,5", {4, 5})]
)
def test_completed_indexes(text: str, indexes: set[int]) -> None:
    assert parse_indexes(text) == indexes and format_indexes(indexes) == text


def test_a_job_starts_as_many_pods_as_may_run_together() -> None:
    assert len(jobplan.plan(job(completions=5, parallelism=2), [], NOW).create) == 2
    assert len(jobplan.plan(job(completions=5, parallelism=2), [pod("a")], NOW).create) == 1
    assert jobplan.plan(job(completions=5, parallelism=2, suspend=True), [pod("a")], NOW).delete


def test_a_job_completes_only_after_its_pods_are_counted() -> None:
    subject, done = job(), ended("a", 0)
    first = jobplan.plan(subject, [done], NOW)
    assert "SuccessCriteriaMet" in condition_types(first.status) and "Complete" not in condition_types(first.status)
    subject["status"] = first.status
    assert jobplan.releasable(subject, [done]) == [done]
    done["metadata"]["finalizers"] = []
    second = jobplan.plan(subject, [done], NOW)
    assert condition_types(second.status)["Complete"] == "CompletionsReached" and second.status["succeeded"] == 1
    subject["status"] = second.status
    assert jobplan.plan(subject, [], NOW).status["succeeded"] == 1


def test_a_failed_pod_is_replaced_after_a_back_off() -> None:
    waiting = jobplan.plan(job(), [ended("a", 1, ago=1)], NOW, backoff_base=4.0)
    assert not waiting.create and waiting.look_again == 3.0
    assert jobplan.plan(job(), [ended("a", 1, ago=2)], NOW).create == (None,)
    twice = jobplan.plan(job(), [ended("a", 1, ago=9), ended("b", 1, ago=1)], NOW)
    assert not twice.create and twice.look_again == 1.0


@pytest.mark.parametrize(
    ("spec", "pods", "reason"),
    [
        ({"backoffLimit": 1}, [ended("a", 1), ended("b", 1)], "BackoffLimitExceeded"),
        ({"activeDeadlineSeconds": 10}, [pod("a")], "DeadlineExceeded"),
        (
            {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}},
            [ended("a", 42)],
            "PodFailurePolicy",
        ),
    ],
)
def test_jobs_fail(spec: dict[str, Any], pods: list[Any], reason: str) -> None:
    assert condition_types(jobplan.plan(job(**spec), pods, NOW).status) == {"FailureTarget": reason}


def test_disrupted_pods_may_be_ignored() -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    subject = job(backoffLimit=0, podFailurePolicy={"rules": [rule]})
    lost = ended("a", 137)
    lost["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    decided = jobplan.plan(subject, [lost], NOW)
    assert decided.status["uncountedTerminatedPods"]["failed"] == [] and decided.create == (None,)


def test_an_indexed_job_fills_the_free_indexes() -> None:
    taken = {INDEX: "1"}
    subject = job(completions=3, parallelism=3, completionMode="Indexed")
    assert jobplan.plan(subject, [pod("a", annotations=taken)], NOW).create == (0, 2)
    done = jobplan.plan(subject, [ended("a", 0, annotations=taken)], NOW)
    assert done.status["completedIndexes"] == "1" and done.create == (0, 2)


def test_a_finished_job_is_deleted_after_its_time_to_live() -> None:
    subject = job(ttlSecondsAfterFinished=60)
    subject["status"]["conditions"] = [
        {"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(NOW), "reason": "x", "message": ""}
    ]
    assert not jobplan.plan(subject, [], NOW + timedelta(seconds=30)).delete_job
    assert jobplan.plan(subject, [], NOW + timedelta(seconds=60)).delete_job


# -- failures of indexes, and success before all are done

FAIL_INDEX = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [9]}}


def indexed(name: str, code: int, index: int, failures: int = 0, ago: float = 100.0) -> dict[str, Any]:
    return ended(name, code, ago, annotations={INDEX: str(index), FAILURES: str(failures)})


@pytest.mark.parametrize(
    ("spec", "pods", "failed", "create", "reason"),
    [
        ({}, [indexed("a", 1, 0)], "", {0: (1, 0), 1: (0, 0), 2: (0, 0)}, ""),
        ({}, [indexed("a", 1, 0, 1)], "0", {1: (0, 0), 2: (0, 0)}, ""),
        ({}, [indexed("a", 1, 0, ago=0)], "", {1: (0, 0), 2: (0, 0)}, ""),  # its successor waits
        ({"maxFailedIndexes": 0}, [indexed("a", 1, 0, 1)], "0", {}, "MaxFailedIndexesExceeded"),
        (
            {},
            [indexed("a", 1, 0, 1), indexed("b", 0, 1), indexed("c", 0, 2)],
            "0",
            {},
            "FailedIndexes",
        ),
        (
            {
                "podFailurePolicy": {
                    "rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [9]}}]
                }
            },
            [indexed("a", 9, 2)],
            "2",
            {0: (0, 0), 1: (0, 0)},
            "",
        ),
    ],
)
def test_indexes_fail_one_by_one(
    spec: dict[str, Any], pods: list[Any], failed: str, create: dict[int, Any], reason: str
) -> None:
    subject = job(completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1, **spec)
    subject["spec"]["backoffLimit"] = 2**31 - 1
    found = jobplan.plan(subject, pods, NOW)
    assert found.status["failedIndexes"] == failed
    assert found.failures == create and found.create == tuple(create)
    assert condition_types(found.status) == ({"FailureTarget": reason} if reason else {})


@pytest.mark.parametrize(
    ("rules", "succeeded", "message"),
    [
        ([{"succeededIndexes": "0"}], {0}, "Matched rules at index 0"),
        ([{"succeededIndexes": "0-2"}], {0, 1}, ""),
        ([{"succeededIndexes": "0-2", "succeededCount": 2}], {0, 1}, "Matched rules at index 0"),
        ([{"succeededIndexes": "5"}, {"succeededCount": 1}], {3}, "Matched rules at index 1"),
        ([{"succeededCount": 1}], set(), ""),
    ],
)
def test_success_policies(rules: list[Any], succeeded: set[int], message: str) -> None:
    assert jobindexes.success_policy(job(successPolicy={"rules": rules}), succeeded) == message


def test_pods_that_end_with_a_failed_job_count_as_failed() -> None:
    failed = jobplan.plan(job(activeDeadlineSeconds=10), [pod("a")], NOW)
    assert failed.counts and len(failed.delete) == 1
    assert not jobplan.plan(job(suspend=True), [pod("a")], NOW).counts
    subject = job(completions=1, parallelism=2)
    done = jobplan.plan(subject, [ended("a", 0), pod("b")], NOW)
    assert not done.counts and len(done.delete) == 1
    (condition,) = done.status["conditions"]
    assert condition["lastProbeTime"] == condition["lastTransitionTime"]
