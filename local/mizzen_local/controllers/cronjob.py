"""CronJob: between a schedule and Jobs; applies what `cronplan` decides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from mizzen_local import schedules
from mizzen_local.client import ApiError, Client, Object
from mizzen_local.controllers import cronplan
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.objects import Key, controller_of, key_of, meta, owned_by, utc_now
from mizzen_local.recorder import Recorder
from mizzen_local.resources import CRON_JOBS, JOBS


class CronJobController:
    def __init__(self, client: Client, informers: Informers, now: Callable[[], datetime] = utc_now) -> None:
        self.client, self.now, self.recorder = client, now, Recorder(client, "cronjob-controller")
        self.crons, self.jobs = informers.of(CRON_JOBS), informers.of(JOBS)
        self.worker = Worker[Key]("cronjob", self.reconcile)
        self._schedules: dict[Key, tuple[str, str | None]] = {}
        self.crons.on_change(self._changed, deleted=self._forget)
        self.jobs.on_change(self._job_changed)

    def _changed(self, cron: Object) -> None:
        """A new schedule counts from now on: what it would have missed is not made up for."""
        key, spec = key_of(cron), cron["spec"]
        schedule = (spec["schedule"], spec.get("timeZone"))
        before = self._schedules.get(key)
        self._schedules[key] = schedule
        if before in (None, schedule):
            self.worker.queue.add(key)
            return
        try:
            found = schedules.parse(spec["schedule"], schedules.zone_of(spec.get("timeZone")))
        except schedules.ScheduleError:
            why = f"unparseable schedule for cronjob: {spec['schedule']}"
            self._say(cron, "Warning", "UnParseableCronJobSchedule", why)
            return
        self.worker.queue.add_after(key, cronplan.until_next(cron, self.now(), found) or 0.0)

    def _forget(self, cron: Object) -> None:
        self._schedules.pop(key_of(cron), None)

    def _job_changed(self, job: Object) -> None:
        owner = controller_of(job)
        if owner and owner["kind"] == "CronJob":
            self.worker.queue.add((meta(job)["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> float | None:
        cron = self.crons.get(key)
        if cron is None:
            return None
        owned = [job for job in self.jobs.in_namespace(key[0]) if owned_by(job, meta(cron)["uid"])]
        decided = cronplan.plan(cron, owned, self.now())
        for type_, reason, message in decided.events:
            self._say(cron, type_, reason, message)
        for job in decided.delete:
            await self._delete(cron, meta(job))
        status = decided.status
        for entry in decided.replace:
            await self._delete(cron, entry)
            status = cronplan.without(status, entry["uid"])
        if decided.start is not None:
            status = await self._start(cron, status, decided.start)
        if status != (cron.get("status") or {}):
            body = {**cron, "status": status}
            self.crons.observe(await self.client.update(CRON_JOBS, body, key[0], subresource="status"))
        return decided.look_again

    async def _start(self, cron: Object, status: Object, at: datetime) -> Object:
        namespace = meta(cron)["namespace"]
        body = cronplan.job_of(cron, at)
        try:
            job = await self.client.create(JOBS, body, namespace)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                if "is being terminated" not in error.message:
                    self._say(cron, "Warning", "FailedCreate", f"Error creating job: {error}")
                raise
            # made before by us, whose status was lost then, or by somebody whose affair it is
            job = await self.client.get(JOBS, meta(body)["name"], namespace)
            if not owned_by(job, meta(cron)["uid"]):
                return status
        else:
            self._say(cron, "Normal", "SuccessfulCreate", f"Created job {meta(job)['name']}")
        self.jobs.observe(job)
        return cronplan.started(status, job, at)

    async def _delete(self, cron: Object, entry: Object) -> None:
        """`entry` is a job's metadata or a reference to it."""
        name = entry["name"]
        try:
            answer = await self.client.delete(JOBS, name, meta(cron)["namespace"], uid=entry["uid"])
        except ApiError as error:
            if error.code not in (404, 409):
                self._say(cron, "Warning", "FailedDelete", f"Deleted job: {error}")
                raise
            return
        if (answer.get("metadata") or {}).get("deletionTimestamp"):
            self.jobs.observe(answer)
        else:
            self.jobs.forget({"metadata": {**entry, "namespace": meta(cron)["namespace"]}})
        self._say(cron, "Normal", "SuccessfulDelete", f"Deleted job {name}")

    def _say(self, cron: Object, type_: str, reason: str, message: str) -> None:
        self.recorder.event(cron, "CronJob", reason, message, api_version="batch/v1", type=type_)  # type: ignore[arg-type]
