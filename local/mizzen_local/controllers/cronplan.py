"""The rules of a CronJob: from its jobs and the time to which job to start, which to delete and its status. Pure."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mizzen_local import schedules
from mizzen_local.client import Object
from mizzen_local.controllers.jobplan import finished
from mizzen_local.objects import controller_reference, is_true, meta, parse_time, rfc3339
from mizzen_local.schedules import Every, Schedule, ScheduleError

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_DELTA = 0.1  # seconds: clocks of several machines differ
_MANY = 100
_TOO_MANY = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
_FORBIDDEN = "Not starting job because prior execution is running and concurrency policy is Forbid"
Event = tuple[str, str, str]  # (type, reason, message)


@dataclass(frozen=True)
class Plan:
    """`start` is the time that is due; `replace` are the active jobs (references) that go before."""

    status: Object
    start: datetime | None = None
    delete: tuple[Object, ...] = ()
    replace: tuple[Object, ...] = ()
    look_again: float | None = None
    events: tuple[Event, ...] = field(default=())


def job_name(cron: Object, at: datetime) -> str:
    """Named by the minute, so that no time starts two jobs."""
    return f"{meta(cron)['name']}-{int(at.timestamp()) // 60}"


def job_of(cron: Object, at: datetime) -> Object:
    template = cron["spec"]["jobTemplate"]
    described = template.get("metadata") or {}
    here = at.astimezone(schedules.zone_of(cron["spec"].get("timeZone")))
    stamp = here.isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(cron, at),
            "namespace": meta(cron)["namespace"],
            "labels": dict(described.get("labels") or {}),
            "annotations": {**(described.get("annotations") or {}), SCHEDULED_AT: stamp},
            "ownerReferences": [controller_reference(cron, "batch/v1", "CronJob")],
        },
        "spec": copy.deepcopy(template["spec"]),
    }


def reference(job: Object) -> Object:
    found = meta(job)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": found["name"],
        "namespace": found["namespace"],
        "uid": found["uid"],
        "resourceVersion": found["resourceVersion"],
    }


def started(status: Object, job: Object, at: datetime) -> Object:
    """The status after `job` was created for the time `at`."""
    kept = [entry for entry in status.get("active") or [] if entry["uid"] != meta(job)["uid"]]
    return {**status, "active": [*kept, reference(job)], "lastScheduleTime": rfc3339(at)}


def without(status: Object, uid: str) -> Object:
    active = [entry for entry in status.get("active") or [] if entry["uid"] != uid]
    return {
        **{key: value for key, value in status.items() if key != "active"},
        **({"active": active} if active else {}),
    }


def plan(cron: Object, jobs: list[Object], now: datetime) -> Plan:
    """`jobs` are those that this CronJob controls."""
    surplus = _surplus(cron, jobs)
    status = dict(cron.get("status") or {})
    for job in surplus:
        status = without(status, meta(job)["uid"])
    status, events = _account(status, jobs)
    decided = Plan(status, delete=tuple(surplus))
    if meta(cron).get("deletionTimestamp"):
        return _with(decided, events)
    return _due(cron, decided, events, now)


def _with(decided: Plan, events: list[Event], start: datetime | None = None, look_again: float | None = None) -> Plan:
    replace = decided.replace if start is not None else ()
    return Plan(decided.status, start, decided.delete, replace, look_again, tuple(events))


def _due(cron: Object, decided: Plan, events: list[Event], now: datetime) -> Plan:  # noqa: PLR0911
    spec, status = cron["spec"], decided.status
    zone_name = spec.get("timeZone")
    try:
        zone = schedules.zone_of(zone_name)
    except ScheduleError as error:
        return _with(decided, [*events, ("Warning", "UnknownTimeZone", f'invalid timeZone: "{zone_name}": {error}')])
    if spec.get("suspend"):
        return _with(decided, events)
    try:
        schedule = schedules.parse(spec["schedule"], zone)
    except ScheduleError as error:
        why = f'unparseable schedule: "{spec["schedule"]}" : {error}'
        return _with(decided, [*events, ("Warning", "UnparseableSchedule", why)])
    subject = {**cron, "status": status}
    try:
        at, missed = _most_recent(subject, now, schedule, spec.get("startingDeadlineSeconds"))
    except ScheduleError as error:
        why = f"invalid schedule: {spec['schedule']} : {error}"
        return _with(decided, [*events, ("Warning", "InvalidSchedule", why)])
    later = until_next(subject, now, schedule)
    if at is None:
        return _with(decided, events, look_again=later)
    if missed > _MANY:
        events.append(("Warning", "TooManyMissedTimes", _TOO_MANY))
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None and at + timedelta(seconds=deadline) < now:
        told = at.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
        why = f"Missed scheduled time to start a job: {told}"
        return _with(decided, [*events, ("Warning", "MissSchedule", why)], look_again=later)
    active = status.get("active") or []
    if any(entry["name"] == job_name(cron, at) for entry in active) or status.get("lastScheduleTime") == rfc3339(at):
        return _with(decided, events, look_again=later)
    policy = spec.get("concurrencyPolicy")
    if policy == "Forbid" and active:
        return _with(decided, [*events, ("Normal", "JobAlreadyActive", _FORBIDDEN)], look_again=later)
    replaced = Plan(status, delete=decided.delete, replace=tuple(active) if policy == "Replace" else ())
    return _with(replaced, events, at, until_next({**cron, "status": {"lastScheduleTime": rfc3339(at)}}, now, schedule))


def _surplus(cron: Object, jobs: list[Object]) -> list[Object]:
    """Finished jobs beyond the limits of history, the oldest first."""
    found = []
    for kind, limit in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
        keep = cron["spec"].get(limit)
        ended = sorted((job for job in jobs if is_true(job, kind)), key=_start_order)
        if keep is not None and len(ended) > keep:
            found += ended[: len(ended) - keep]
    return found


def _start_order(job: Object) -> tuple[bool, str, str]:
    start = (job.get("status") or {}).get("startTime") or ""
    return not start, start, meta(job)["name"]


def _account(status: Object, jobs: list[Object]) -> tuple[Object, list[Event]]:
    """What became of the jobs that were started."""
    events: list[Event] = []
    for job in jobs:
        name, uid = meta(job)["name"], meta(job)["uid"]
        listed = any(entry["uid"] == uid for entry in status.get("active") or [])
        if not finished(job):
            if not listed:
                why = f"Saw a job that the controller did not create or forgot: {name}"
                events.append(("Warning", "UnexpectedJob", why))
            continue
        if listed:
            status = without(status, uid)
            outcome = "Complete" if is_true(job, "Complete") else "Failed"
            events.append(("Normal", "SawCompletedJob", f"Saw completed job: {name}, condition: {outcome}"))
        done = (job.get("status") or {}).get("completionTime")
        if is_true(job, "Complete") and done and done > (status.get("lastSuccessfulTime") or ""):
            status = {**status, "lastSuccessfulTime": done}
    known = {meta(job)["uid"] for job in jobs}
    for entry in list(status.get("active") or []):
        if entry["uid"] not in known:
            events.append(("Normal", "MissingJob", f"Active job went missing: {entry['name']}"))
            status = without(status, entry["uid"])
    return status, events


def _earliest(cron: Object, now: datetime, deadline: int | None) -> datetime:
    last = (cron.get("status") or {}).get("lastScheduleTime")
    earliest = parse_time(last or meta(cron)["creationTimestamp"])
    return earliest if deadline is None else max(earliest, now - timedelta(seconds=deadline))


def _most_recent(
    cron: Object, now: datetime, schedule: Schedule | Every, deadline: int | None
) -> tuple[datetime | None, int]:
    """The last time that was due and how many were missed. Raises ScheduleError."""
    first = schedule.next(_earliest(cron, now, deadline))
    second = schedule.next(first) if first is not None else None
    if first is None or second is None:
        raise ScheduleError("time difference between two schedules is less than 1 second")
    if now < first:
        return None, 0
    if now < second:
        return first, 0
    between = int((second - first).total_seconds())
    missed = int((now - first).total_seconds()) // between + 1
    recent = None
    # a little before the last of them if they were all as far apart as the first two, and from there in earnest
    moment = schedule.next(first + timedelta(seconds=(missed - 2) * between))
    while moment is not None and moment <= now:
        recent, moment = moment, schedule.next(moment)
    return recent, missed


def until_next(cron: Object, now: datetime, schedule: Schedule | Every) -> float | None:
    """Seconds until the next time is due."""
    try:
        recent, missed = _most_recent(cron, now, schedule, None)
    except ScheduleError:
        recent, missed = now, 0
    if recent is None:
        recent = now if missed else _earliest(cron, now, None)
    following = schedule.next(recent)
    return None if following is None else max(0.0, (following - now).total_seconds() + _DELTA)
