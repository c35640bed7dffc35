"""Job: between a batch manifest and its pods; applies what `jobplan` decides and counts each pod exactly once."""

from __future__ import annotations

import secrets

from mizzen_local.client import ApiError, Client, Object
from mizzen_local.controllers import jobindexes, jobplan
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.controllers.jobindexes import INDEX, Failures
from mizzen_local.controllers.jobplan import TRACKING
from mizzen_local.controllers.pods import pod_from_template
from mizzen_local.objects import Key, controller_of, key_of, meta, owned_by, stable_hash, utc_now
from mizzen_local.recorder import Recorder
from mizzen_local.resources import JOBS, PODS

_CONTROLLER = "kubernetes.io/job-controller"


def job_pod(job: Object, index: int | None, failures: Failures | None = None) -> Object:
    pod = pod_from_template(job["spec"]["template"], job, "batch/v1", "Job")
    name, uid = meta(job)["name"], meta(job)["uid"]
    labels = pod["metadata"]["labels"]
    for prefix in ("", "batch.kubernetes.io/"):
        labels[f"{prefix}job-name"] = name
        labels[f"{prefix}controller-uid"] = uid
    pod["metadata"]["finalizers"] = [*pod["metadata"]["finalizers"], TRACKING]
    if index is None:
        return pod
    del pod["metadata"]["generateName"]
    pod["metadata"]["name"] = f"{name[:50]}-{index}-{stable_hash(secrets.token_hex(8), 5)}"
    pod["metadata"]["annotations"][INDEX] = labels[INDEX] = str(index)
    if failures is not None:
        pod["metadata"]["annotations"].update(jobindexes.notes(failures))
    pod["spec"].setdefault("hostname", f"{name[:55]}-{index}")
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        env = container.get("env") or []
        if all(entry["name"] != "JOB_COMPLETION_INDEX" for entry in env):
            container["env"] = [*env, {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]
    return pod


class JobController:
    def __init__(self, client: Client, informers: Informers, backoff_base: float = 1.0) -> None:
        self.client, self.recorder = client, Recorder(client, "job-controller")
        self.jobs, self.pods, self.backoff_base = informers.of(JOBS), informers.of(PODS), backoff_base
        self.worker = Worker[Key]("job", self.reconcile)
        self.jobs.on_change(lambda job: self.worker.queue.add(key_of(job)))
        self.pods.on_change(self._pod_changed)

    def _pod_changed(self, pod: Object) -> None:
        owner = controller_of(pod)
        if owner and owner["kind"] == "Job":
            self.worker.queue.add((meta(pod)["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> float | None:
        job = self.jobs.get(key)
        if job is None:
            if self.jobs.synced.is_set():
                for pod in self.pods.in_namespace(key[0]):
                    if (controller_of(pod) or {}).get("name") == key[1] and controller_of(pod)["kind"] == "Job":  # type: ignore[index]
                        await self._release(pod)
            return None
        if job["spec"].get("managedBy") not in (None, _CONTROLLER):
            return None
        owned = [pod for pod in self.pods.in_namespace(key[0]) if owned_by(pod, meta(job)["uid"])]
        if meta(job).get("deletionTimestamp"):
            for pod in owned:
                await self._release(pod)
            return None
        decided = jobplan.plan(job, owned, utc_now(), self.backoff_base)
        if decided.delete_job:
            await self.client.delete(JOBS, key[1], key[0], uid=meta(job)["uid"])
            return None
        job = await self._write_status(job, decided.status)
        for type_, reason, message in decided.events:
            self._say(job, reason, message, warning=type_ == "Warning")
        for pod in jobplan.releasable(job, owned):
            await self._release(pod)
        for pod in decided.delete:
            await self._delete(job, pod, counts=decided.counts)
        for index in decided.create:
            await self._create(job, index, decided.failures.get(index) if index is not None else None)
        return decided.look_again

    async def _write_status(self, job: Object, status: Object) -> Object:
        before = job.get("status") or {}
        if all((before.get(k) or None) == (_empty_as_none(v)) or before.get(k) == v for k, v in status.items()):
            return job
        answer = await self.client.patch(
            JOBS,
            meta(job)["name"],
            {"metadata": {"resourceVersion": meta(job)["resourceVersion"]}, "status": status},
            meta(job)["namespace"],
            subresource="status",
        )
        self.jobs.observe(answer)
        return answer

    async def _release(self, pod: Object) -> None:
        finalizers = meta(pod).get("finalizers") or []
        if TRACKING not in finalizers:
            return
        rest = [f for f in finalizers if f != TRACKING]
        patch = {"metadata": {"uid": meta(pod)["uid"], "finalizers": rest or None}}
        try:
            answer = await self.client.patch(PODS, meta(pod)["name"], patch, meta(pod)["namespace"])
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            return
        if not (meta(answer).get("deletionTimestamp") and not rest):
            self.pods.observe(answer)

    async def _delete(self, job: Object, pod: Object, *, counts: bool) -> None:
        """Pods that are too many count as neither failed nor succeeded; those that end with their Job do."""
        if not counts:
            await self._release(pod)
        try:
            answer = await self.client.delete(PODS, meta(pod)["name"], meta(pod)["namespace"], uid=meta(pod)["uid"])
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            return
        if (answer.get("metadata") or {}).get("deletionTimestamp"):
            self.pods.observe(answer)
        else:
            self.pods.forget(pod)
        self._say(job, "SuccessfulDelete", f"Deleted pod: {meta(pod)['name']}")

    async def _create(self, job: Object, index: int | None, failures: Failures | None) -> None:
        try:
            pod = await self.client.create(PODS, job_pod(job, index, failures), meta(job)["namespace"])
        except ApiError as error:
            self._say(job, "FailedCreate", f"Error creating: {error}", warning=True)
            raise
        self.pods.observe(pod)
        self._say(job, "SuccessfulCreate", f"Created pod: {meta(pod)['name']}")

    def _say(self, job: Object, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.event(
            job, "Job", reason, message, api_version="batch/v1", type="Warning" if warning else "Normal"
        )


def _empty_as_none(value: object) -> object:
    if isinstance(value, dict) and not any(value.values()):
        return None
    return value or None
