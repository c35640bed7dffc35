"""Jobs and CronJobs: how many pods run, what counts as done or failed, and what comes due."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cluster.client import Http, eventually
from tests.cluster.objects import Object, job

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
