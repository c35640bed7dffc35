"""Jobs and CronJobs: how many pods run, what counts as done or failed, and what comes due."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cluster.client import Http, eventually
from tests.cluster.objects import FOREVER, Object, conditions, job

JOBS = "batch/v1/jobs"
CRON_JOBS = "batch/v1/cronjobs"


def cron(name: str, schedule: str = "* * * * *", **spec: Any) -> Object:
    template = {"metadata": {"labels": {"cron": name}}, "spec": job(name, "exit 0")["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": schedule, "jobTemplate": template, **spec},
    }


async def made_by(http: Http, name: str) -> list[Object]:
    listed = await http.get(JOBS, labelSelector=f"cron={name}")
    found: list[Object] = listed["items"]
    return found


async def test_a_cron_job_starts_a_job_when_it_is_due(http: Http) -> None:
    made = await http.create(CRON_JOBS, cron("tick", "@every 1s"))
    assert made["status"] == {}
    assert {key: made["spec"][key] for key in ("concurrencyPolicy", "suspend")} == {
        "concurrencyPolicy": "Allow",
        "suspend": False,
    }
    (started,) = await eventually("a job", lambda: made_by(http, "tick"))
    assert re.fullmatch(r"tick-\d{8}", started["metadata"]["name"])
    assert "batch.kubernetes.io/cronjob-scheduled-timestamp" in started["metadata"]["annotations"]
    (owner,) = started["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("CronJob", made["metadata"]["uid"], True)
    found = await http.until(CRON_JOBS, "tick", "its time", lambda c: "lastScheduleTime" in c["status"])
    active = found["status"].get("active", [])
    assert [entry["name"] for entry in active] in ([], [started["metadata"]["name"]])
    await http.delete(CRON_JOBS, "tick", propagationPolicy="Background")
    await eventually("its jobs to go", lambda: _none(http, "tick"))


async def _none(http: Http, name: str) -> bool:
    return not await made_by(http, name)


async def test_a_suspended_cron_job_waits(http: Http) -> None:
    await http.create(CRON_JOBS, cron("later", "@every 1s", suspend=True))
    await http.create(CRON_JOBS, cron("sooner", "@every 2s"))
    await eventually("the other's job", lambda: made_by(http, "sooner"))
    assert not await made_by(http, "later")
    await http.patch(CRON_JOBS, "later", {"spec": {"suspend": False}})
    await eventually("a job", lambda: made_by(http, "later"))
    await http.delete(CRON_JOBS, "later")
    await http.delete(CRON_JOBS, "sooner")


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        ({"schedule": "* * *"}, "spec.schedule", "expected exactly 5 fields, found 3: [* * *]"),
        ({"schedule": "61 * * * *"}, "spec.schedule", "end of range (61) above maximum (59): 61"),
        ({"schedule": "@often"}, "spec.schedule", "unrecognized descriptor: @often"),
        ({"schedule": "TZ=UTC * * * * *"}, "spec.schedule", "cannot use TZ or CRON_TZ in schedule, use timeZone field"),
        ({"timeZone": "Nowhere"}, "spec.timeZone", "unknown time zone Nowhere"),
        ({"concurrencyPolicy": "Perhaps"}, "spec.concurrencyPolicy", 'supported values: "Allow", "Forbid", "Replace"'),
        ({"startingDeadlineSeconds": -1}, "spec.startingDeadlineSeconds", "must be greater than or equal to 0"),
    ],
)
async def test_what_a_cron_job_may_not_say(http: Http, spec: Object, field: str, why: str) -> None:
    answer = await http.call("POST", http.path(CRON_JOBS), cron("wrong", **spec))
    assert answer.code == 422
    causes = {cause["field"]: cause["message"] for cause in answer.body["details"]["causes"]}
    assert why in causes[field]


async def test_a_name_of_a_cron_job_leaves_room_for_the_minute(http: Http) -> None:
    answer = await http.call("POST", http.path(CRON_JOBS), cron("x" * 53))
    assert answer.code == 422 and "must be no more than 52 characters" in answer.message


# -- jobs whose pods run


def reached(*kinds: str) -> Any:
    """Whether all these conditions are true."""
    return lambda found: all(conditions(found).get(kind, {}).get("status") == "True" for kind in kinds)


async def pods_of(http: Http, name: str) -> list[Object]:
    listed = await http.get("pods", labelSelector=f"batch.kubernetes.io/job-name={name}")
    found: list[Object] = listed["items"]
    return found


def told(found: Object, kind: str) -> tuple[str, str]:
    condition = conditions(found)[kind]
    return condition["reason"], condition["message"]


async def test_a_job_completes(http: Http) -> None:
    made = await http.create(JOBS, job("plain", "exit 0", completions=3, parallelism=2))
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    found = await http.until(JOBS, "plain", "its end", reached("Complete"))
    status = found["status"]
    assert told(found, "Complete") == ("CompletionsReached", "Reached expected number of succeeded pods")
    assert told(found, "SuccessCriteriaMet") == told(found, "Complete")
    assert status["succeeded"] == 3 and "failed" not in status and "active" not in status
    assert status["completionTime"] >= status["startTime"] and status["uncountedTerminatedPods"] == {}
    assert status["ready"] == 0 and status["terminating"] == 0
    pods = await pods_of(http, "plain")
    assert len(pods) == 3 and not any(pod["metadata"].get("finalizers") for pod in pods)


async def test_an_indexed_job_gives_each_pod_its_number(http: Http) -> None:
    body = job("indexed", "test $JOB_COMPLETION_INDEX != 1", completions=3, parallelism=3)
    body["spec"] |= {"completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 2}
    await http.create(JOBS, body)
    found = await http.until(JOBS, "indexed", "its end", reached("Failed"))
    assert told(found, "Failed") == ("FailedIndexes", "Job has failed indexes")
    assert (found["status"]["completedIndexes"], found["status"]["failedIndexes"]) == ("0,2", "1")
    pods = await pods_of(http, "indexed")
    assert {pod["spec"]["hostname"] for pod in pods} == {"indexed-0", "indexed-1", "indexed-2"}
    assert all(pod["metadata"]["name"].startswith(pod["spec"]["hostname"] + "-") for pod in pods)
    notes = {"batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/job-index-failure-count"}
    assert all(notes <= set(pod["metadata"]["annotations"]) for pod in pods)


async def test_a_job_may_be_done_before_all_are(http: Http) -> None:
    script = f"test $JOB_COMPLETION_INDEX = 0 && exit 0; {FOREVER}"
    body = job("leader", script, completions=2, parallelism=2, completionMode="Indexed")
    body["spec"]["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    await http.create(JOBS, body)
    found = await http.until(JOBS, "leader", "its end", reached("Complete"))
    assert told(found, "Complete") == ("SuccessPolicy", "Matched rules at index 0")
    assert found["status"]["completedIndexes"] == "0" and found["status"]["succeeded"] == 1


@pytest.mark.parametrize(
    ("name", "script", "spec", "reason", "message"),
    [
        ("limit", "exit 1", {"backoffLimit": 0}, "BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        (
            "deadline", FOREVER, {"activeDeadlineSeconds": 1}, "DeadlineExceeded",
            "Job was active longer than specified deadline",
        ),
        (
            "policy", "exit 42",
            {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}},
            "PodFailurePolicy", "failed with exit code 42 matching FailJob rule at index 0",
        ),
    ],
)  # fmt: skip
async def test_how_jobs_fail(http: Http, name: str, script: str, spec: Object, reason: str, message: str) -> None:
    await http.create(JOBS, job(name, script, **spec))
    found = await http.until(JOBS, name, "its end", reached("Failed"))
    assert conditions(found)["Failed"]["reason"] == conditions(found)["FailureTarget"]["reason"] == reason
    assert conditions(found)["Failed"]["message"].endswith(message)
    assert "completionTime" not in found["status"] and "active" not in found["status"]
    assert found["status"]["failed"] == 1


async def test_failures_may_be_ignored(http: Http) -> None:
    """A disrupted pod costs nothing."""
    ignore = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    body = job("ignoring", "while :; do sleep 0.1; done", backoffLimit=0, podFailurePolicy={"rules": [ignore]})
    await http.create(JOBS, body)
    await http.until(JOBS, "ignoring", "a running pod", lambda j: j["status"].get("ready") == 1)
    (pod,) = await pods_of(http, "ignoring")
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    await http.ok("POST", http.path("pods", name, "eviction"), eviction)

    async def another() -> bool:
        return any(p["metadata"]["uid"] != pod["metadata"]["uid"] for p in await pods_of(http, "ignoring"))

    await eventually("another pod", another)
    found = await http.get(JOBS, "ignoring")
    assert "failed" not in found["status"] and not reached("Failed")(found)
    await http.delete(JOBS, "ignoring", propagationPolicy="Background")


async def test_a_suspended_job_has_no_pods(http: Http) -> None:
    await http.create(JOBS, job("paused", FOREVER, suspend=True))
    found = await http.until(JOBS, "paused", "its rest", reached("Suspended"))
    assert told(found, "Suspended") == ("JobSuspended", "Job suspended")
    assert "startTime" not in found["status"] and not await pods_of(http, "paused")
    await http.patch(JOBS, "paused", {"spec": {"suspend": False}})
    found = await http.until(JOBS, "paused", "a running pod", lambda j: j["status"].get("ready") == 1)
    assert told(found, "Suspended") == ("JobResumed", "Job resumed") and found["status"]["active"] == 1
    await http.patch(JOBS, "paused", {"spec": {"suspend": True}})
    found = await http.until(JOBS, "paused", "its rest", reached("Suspended"))
    await eventually("its pods to go", lambda: _no_pods(http, "paused"))
    assert "failed" not in (await http.get(JOBS, "paused"))["status"]
    await http.delete(JOBS, "paused", propagationPolicy="Background")


async def _no_pods(http: Http, name: str) -> bool:
    return not await pods_of(http, name)


async def test_a_finished_job_goes_after_its_time(http: Http) -> None:
    await http.create(JOBS, job("brief", "exit 0", ttlSecondsAfterFinished=0))
    await http.until_gone(JOBS, "brief")
    await eventually("its pods to go", lambda: _no_pods(http, "brief"))


async def test_a_cron_job_accounts_for_its_jobs(http: Http) -> None:
    await http.create(CRON_JOBS, cron("counted", "@every 1s"))
    found = await http.until(CRON_JOBS, "counted", "a success", lambda c: "lastSuccessfulTime" in c["status"])
    assert not found["status"].get("active")
    await http.delete(CRON_JOBS, "counted", propagationPolicy="Background")
