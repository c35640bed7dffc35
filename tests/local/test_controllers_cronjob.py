"""CronJob: schedules and when they come due, and what the controller makes of its jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mizzen_local import schedules
from mizzen_local.controllers import cronplan
from mizzen_local.objects import rfc3339
from mizzen_local.schedules import ScheduleError

Object = dict[str, Any]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "after", "following"),
    [
        ("* * * * *", "2026-01-01T00:00:00", "2026-01-01T00:01"),
        ("* * * * *", "2026-01-01T00:00:59", "2026-01-01T00:01"),
        ("*/15 * * * *", "2026-01-01T00:15:00", "2026-01-01T00:30"),
        ("5/20 * * * ?", "2026-01-01T00:26:00", "2026-01-01T00:45"),
        ("1-10/4,30 2 * * *", "2026-01-01T02:09:00", "2026-01-01T02:30"),
        ("0 0 1 JAN *", "2026-01-01T00:00:00", "2027-01-01T00:00"),
        ("0 12 * * mon-fri", "2026-01-02T12:00:00", "2026-01-05T12:00"),
        ("0 0 13 * 5", "2026-02-01T00:00:00", "2026-02-06T00:00"),  # the 13th or a Friday
        ("0 0 */2 * 5", "2026-02-01T00:00:00", "2026-02-03T00:00"),  # a step is no star: either is enough
        ("0 0 * * 0", "2026-01-01T00:00:00", "2026-01-04T00:00"),
        ("0 0 29 2 *", "2026-03-01T00:00:00", "2028-02-29T00:00"),
        ("@hourly", "2026-01-01T00:59:00", "2026-01-01T01:00"),
        ("@weekly", "2026-01-01T00:59:00", "2026-01-04T00:00"),
        ("@yearly", "2026-01-01T00:59:00", "2027-01-01T00:00"),
        ("@every 1m30s", "2026-01-01T00:00:07", "2026-01-01T00:01:37"),
    ],
)
def test_schedules(schedule: str, after: str, following: str) -> None:
    assert schedules.parse(schedule).next(at(after)) == at(following)


@pytest.mark.parametrize(
    ("schedule", "after", "following"),
    [
        ("0 9 * * *", "2026-01-01T00:00:00", "2026-01-01T08:00"),
        ("0 9 * * *", "2026-07-01T00:00:00", "2026-07-01T07:00"),
        ("30 2 * * *", "2026-03-29T00:00:00", "2026-03-30T00:30"),  # 02:30 does not exist on that day
        ("0 0 1 * *", "2026-01-15T00:00:00", "2026-01-31T23:00"),
    ],
)
def test_time_zones(schedule: str, after: str, following: str) -> None:
    zone = schedules.zone_of("Europe/Berlin")
    assert schedules.parse(schedule, zone).next(at(after)) == at(following)


def test_a_day_that_never_comes() -> None:
    assert schedules.parse("59 23 31 2 *").next(at("2026-01-01T00:00:00")) is None


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ("", "empty spec string"),
        ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@often", "unrecognized descriptor: @often"),
        ("@every x", 'failed to parse duration @every x: time: invalid duration "x"'),
    ],
)
def test_what_is_wrong_with_a_schedule(schedule: str, why: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        schedules.parse(schedule)
    assert str(raised.value) == why


# -- the plan

CREATED = at("2026-01-01T00:00:30")


def cron(status: Object | None = None, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}
    return {
        "metadata": {"name": "tick", "namespace": "ns", "uid": "u", "creationTimestamp": rfc3339(CREATED)},
        "spec": {
            "schedule": "*/10 * * * *",
            "concurrencyPolicy": "Allow",
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": template,
            **spec,
        },
        **({"status": status} if status is not None else {}),
    }


def job(name: str, outcome: str = "", minute: int = 0) -> Object:
    moment = rfc3339(CREATED + timedelta(minutes=minute))
    status: Object = {"startTime": moment}
    if outcome:
        status["conditions"] = [{"type": outcome, "status": "True"}]
    if outcome == "Complete":
        status["completionTime"] = moment
    owner = {"kind": "CronJob", "name": "tick", "uid": "u", "controller": True}
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": "1"}
    return {"metadata": {**metadata, "ownerReferences": [owner]}, "status": status}


def plan(subject: Object, jobs: list[Object], now: str) -> cronplan.Plan:
    return cronplan.plan(subject, jobs, at(now))


@pytest.mark.parametrize(
    ("spec", "status", "now", "start", "look_again", "reasons"),
    [
        ({}, {}, "2026-01-01T00:09:59", None, 1.1, []),
        ({}, {}, "2026-01-01T00:10:00", "2026-01-01T00:10", 600.1, []),
        ({}, {"lastScheduleTime": "2026-01-01T00:10:00Z"}, "2026-01-01T00:10:01", None, 599.1, []),
        ({}, {}, "2026-01-01T00:35:00", "2026-01-01T00:30", 300.1, []),  # three were due: the last one starts
        ({}, {}, "2026-01-02T00:00:00", "2026-01-02T00:00", 600.1, ["TooManyMissedTimes"]),
        ({"suspend": True}, {}, "2026-01-01T00:10:00", None, None, []),
        ({"startingDeadlineSeconds": 60}, {}, "2026-01-01T00:10:30", "2026-01-01T00:10", 570.1, []),
        ({"startingDeadlineSeconds": 60}, {}, "2026-01-01T00:12:00", None, 480.1, []),
        ({"timeZone": "No/Where"}, {}, "2026-01-01T00:10:00", None, None, ["UnknownTimeZone"]),
        ({"schedule": "nonsense"}, {}, "2026-01-01T00:10:00", None, None, ["UnparseableSchedule"]),
        ({"schedule": "0 0 31 2 *"}, {}, "2026-01-01T00:10:00", None, None, ["InvalidSchedule"]),
    ],
)
def test_when_a_job_starts(
    spec: Object, status: Object, now: str, start: str | None, look_again: float | None, reasons: list[str]
) -> None:
    found = plan(cron(status, **spec), [], now)
    assert found.start == (None if start is None else at(start))
    assert found.look_again == (None if look_again is None else pytest.approx(look_again))
    assert [event[1] for event in found.events] == reasons


@pytest.mark.parametrize(
    ("policy", "starts", "replaced", "reasons"),
    [("Allow", True, 0, []), ("Forbid", False, 0, ["JobAlreadyActive"]), ("Replace", True, 1, [])],
)
def test_concurrency(policy: str, starts: bool, replaced: int, reasons: list[str]) -> None:
    running = job("tick-1")
    subject = cron({"active": [cronplan.reference(running)]}, concurrencyPolicy=policy)
    found = plan(subject, [running], "2026-01-01T00:10:00")
    assert (found.start is not None, len(found.replace)) == (starts, replaced)
    assert [event[1] for event in found.events] == reasons


def test_what_became_of_jobs_is_noted() -> None:
    done, lost, strange = job("done", "Complete", 5), job("lost"), job("strange")
    subject = cron({"active": [cronplan.reference(done), cronplan.reference(lost)]})
    found = plan(subject, [done, strange], "2026-01-01T00:09:00")
    assert found.status == {"lastSuccessfulTime": "2026-01-01T00:05:30Z"}
    assert set(found.events) == {
        ("Normal", "SawCompletedJob", "Saw completed job: done, condition: Complete"),
        ("Normal", "MissingJob", "Active job went missing: lost"),
        ("Warning", "UnexpectedJob", "Saw a job that the controller did not create or forgot: strange"),
    }


def test_history_keeps_the_newest() -> None:
    jobs = [job(f"good-{n}", "Complete", n) for n in range(5)] + [job(f"bad-{n}", "Failed", n) for n in range(2)]
    found = plan(cron({"active": []}), jobs, "2026-01-01T00:09:00")
    assert [entry["metadata"]["name"] for entry in found.delete] == ["good-0", "good-1", "bad-0"]


def test_a_job_is_named_by_its_minute_and_tells_its_time() -> None:
    moment = at("2026-07-01T00:10:00")
    made = cronplan.job_of(cron(timeZone="Europe/Berlin"), moment)
    assert made["metadata"]["name"] == f"tick-{int(moment.timestamp()) // 60}"
    stamp = "2026-07-01T02:10:00+02:00"
    assert made["metadata"]["annotations"] == {"batch.kubernetes.io/cronjob-scheduled-timestamp": stamp}
    assert made["metadata"]["labels"] == {"a": "b"} and made["metadata"]["ownerReferences"][0]["kind"] == "CronJob"
    status = cronplan.started({}, job(made["metadata"]["name"]), moment)
    assert status["lastScheduleTime"] == "2026-07-01T00:10:00Z" and len(status["active"]) == 1
