"""One pod on this node: a task that brings its processes to what the manifest says and reports how they fare."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import time

from mizzen_local.agent import hooks
from mizzen_local.agent.containers import Container
from mizzen_local.agent.environment import ConfigError
from mizzen_local.agent.hosts import write_in_place
from mizzen_local.agent.images import UnknownImageError
from mizzen_local.agent.lifecycle import Decision, View, back_off, decide, is_sidecar
from mizzen_local.agent.preparation import Place, prepare
from mizzen_local.agent.probes import Prober
from mizzen_local.agent.status import pod_status, stamp
from mizzen_local.agent.surroundings import Node
from mizzen_local.agent.volumes import VolumeError, Volumes
from mizzen_local.client import ApiError, Object, Resource
from mizzen_local.objects import meta, parse_time, with_condition
from mizzen_local.resources import PODS

_log = logging.getLogger(__name__)
_STEADY = 600.0  # a container that ran this long starts its back-off anew
_IMAGE_RETRY = 10.0
_RENEW_RETRY = 10.0
_HOOK_SECONDS = 600.0  # a postStart hook has no limit of its own


class PodWorker:
    def __init__(self, node: Node, pod: Object, ip: str) -> None:
        self.node, self.pod, self.ip = node, pod, ip
        self.uid: str = meta(pod)["uid"]
        self.folder = node.state / "pods" / self.uid
        self.wake = asyncio.Event()
        self.gone = False  # the object has left the API server: end at once, report nothing
        self.volumes = Volumes(node.client, pod, self.folder / "volumes", self._fetch, node.allocatable)
        self.containers: dict[str, Container] = {}
        self._probers: dict[str, Prober] = {}
        self._crashes: dict[str, int] = {}
        self._retry_at: dict[str, float] = {}
        self._waiting: dict[str, tuple[str, str]] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._counted: dict[str, int] = {}
        self._sent: Object | None = None
        self._decided = Decision("Pending")
        self._halted = False
        self.started_at = time.time()
        for container in self._specs():
            self.containers[container["name"]] = Container(self.folder, container["name"], self.wake.set)

    def _specs(self) -> list[Object]:
        return [*(self.pod["spec"].get("initContainers") or []), *self.pod["spec"]["containers"]]

    def spec_of(self, name: str) -> Object:
        return next(c for c in self._specs() if c["name"] == name)

    async def _fetch(self, resource: Resource, name: str) -> Object:
        return await self.node.client.get(resource, name, meta(self.pod)["namespace"])

    def update(self, pod: Object) -> None:
        self.pod = pod
        self.volumes.update(pod)
        self.wake.set()

    def vanish(self) -> None:
        self.gone = True
        self.wake.set()

    # -- the loop

    async def run(self) -> None:
        """Until the pod is gone from the API server and from this machine."""
        try:
            await self._adopt()
            while not await self._is_over():
                self.wake.clear()
                delay = await self._step()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), delay)
            await self._end()
        finally:
            for prober in self._probers.values():
                prober.stop()
            for container in self.containers.values():
                container.release()

    async def _is_over(self) -> bool:
        return self.gone or bool(meta(self.pod).get("deletionTimestamp"))

    async def _step(self) -> float | None:
        if self._halted:
            return None
        try:
            return await self._sync()
        except ApiError as error:
            if error.code == 404:
                self.gone = self.gone or await self._has_vanished()
            _log.debug("pod %s: %s", meta(self.pod)["name"], error)
            return 1.0
        except Exception:
            _log.exception("pod %s", meta(self.pod)["name"])
            return 5.0

    async def _has_vanished(self) -> bool:
        try:
            found = await self._fetch(PODS, meta(self.pod)["name"])
            return bool(meta(found)["uid"] != self.uid)
        except ApiError as error:
            return error.code == 404

    async def _adopt(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for container in self.containers.values():
            await container.adopt()
            if container.running:
                await self._prepare_for_good()
                self._begin_probes(container.name)
        before = (self.pod.get("status") or {}).get("startTime")
        if before:
            self.started_at = parse_time(before).timestamp()
        record = self.folder / "pod.json"
        if not record.exists():
            names = {k: meta(self.pod)[k] for k in ("namespace", "name", "uid")}
            record.write_text(json.dumps({**names, "ip": self.ip}))

    async def _prepare_for_good(self) -> None:
        try:
            await self.volumes.make()
        except (ApiError, VolumeError) as error:
            _log.warning("pod %s: %s", meta(self.pod)["name"], error)

    def views(self) -> dict[str, View]:
        found = {}
        for name, container in self.containers.items():
            prober = self._probers.get(name)
            found[name] = View(
                name=name,
                attempt=container.attempt,
                running=container.running,
                started_at=container.started_at,
                exit=container.exit,
                previous=container.previous,
                started=container.running and (prober is None or prober.started),
                ready=container.running and (prober is None or prober.ready) and name not in self._stopping,
                crashes=self._crashes.get(name, 0),
                waiting=self._waiting.get(name),
                retry_at=self._retry_at.get(name, 0.0),
            )
        return found

    async def _sync(self) -> float | None:
        """One look: note who ended, decide, act, report. Answers in how many seconds to look again."""
        phase = (self.pod.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            for container in self.containers.values():
                if container.running:
                    await container.stop(1.0)
            return None
        self._note_ends()
        now = time.time()
        decided = decide(self.pod["spec"], self.views(), self.started_at, now)
        for name in decided.stop:
            self._stop(name, f"Stopping container {name}")
        if decided.phase in ("Succeeded", "Failed") and any(c.running for c in self.containers.values()):
            decided = Decision("Running", reason=decided.reason, message=decided.message, initialized=True)
            await self._report(decided)
            return 0.5
        self._decided = decided
        if decided.start:
            if self._sent is None:
                await self._report(decided)
            await self._start(decided.start)
            self._decided = decided = decide(self.pod["spec"], self.views(), self.started_at, time.time())
        await self._report(decided)
        if self.volumes.renew_at is not None and self.volumes.renew_at <= time.time():
            await self._renew_volumes()
        moments = [m for m in (decided.look_again, self.volumes.renew_at) if m is not None]
        if decided.start:  # another step of the init containers, or a start that has to be tried again
            moments.append(min((self._retry_at.get(n, now) for n in decided.start), default=now))
        return max(0.01, min(moments) - time.time()) if moments else None

    async def _renew_volumes(self) -> None:
        """What cannot be read now stays as it is; the next look comes."""
        try:
            await self.volumes.renew()
        except (ApiError, VolumeError) as error:
            self.volumes.renew_at = time.time() + _RENEW_RETRY
            _log.debug("pod %s: volumes stay as they are: %s", meta(self.pod)["name"], error)

    def _note_ends(self) -> None:
        for name, container in self.containers.items():
            if container.exit is None or self._counted.get(name) == container.attempt:
                continue
            self._counted[name] = container.attempt
            if (prober := self._probers.pop(name, None)) is not None:
                prober.stop()
            steady = container.exit.finished_at - container.exit.started_at > _STEADY
            self._crashes[name] = 1 if steady else self._crashes.get(name, 0) + 1
            limits = self.node.limits
            wait = back_off(self._crashes[name], limits.backoff_base, limits.backoff_max)
            self._retry_at[name] = container.exit.finished_at + wait
            if wait and container.exit.code:
                text = f"Back-off restarting failed container {name} in pod {meta(self.pod)['name']}"
                self._say("BackOff", text, warning=True, container=name)

    # -- starting

    async def _start(self, names: tuple[str, ...]) -> None:
        try:
            await self.volumes.make()
        except VolumeError as error:
            self._say("FailedMount", str(error), warning=True)
            for name in names:
                self._retry_at[name] = time.time() + 1.0
            return
        for name in names:
            try:
                await self._start_one(self.spec_of(name))
                self._waiting.pop(name, None)
            except UnknownImageError as error:
                pulling = self._waiting.get(name, ("", ""))[0]
                reason = "ImagePullBackOff" if pulling else "ErrImagePull"
                self._fail(name, reason, str(error), "Failed", _IMAGE_RETRY if pulling else 1.0)
            except (ConfigError, VolumeError) as error:
                self._fail(name, "CreateContainerConfigError", str(error), "Failed", 2.0)
            except OSError as error:
                self._fail(name, "CreateContainerError", f"{error}", "Failed", 2.0)

    def _fail(self, name: str, reason: str, message: str, event: str, retry: float) -> None:
        self._waiting[name] = (reason, message)
        self._retry_at[name] = time.time() + retry
        self._say(event, f"Error: {reason}: {message}", warning=True, container=name)

    async def _start_one(self, spec: Object) -> None:
        name = spec["name"]
        image = self.node.images.find(spec.get("image") or "")
        self._say("Pulled", f'Container image "{spec.get("image")}" is a command of this machine', container=name)
        self.write_hosts()
        place = Place(self.folder, self.ip, self.volumes, self.containers[name].make_temporary())
        launch = await prepare(self.node, self.pod, spec, image, place, self._fetch)
        fallback = spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        self._say("Created", f"Created container: {name}", container=name)
        self.containers[name].start(launch, fallback_to_logs=fallback)
        self._say("Started", f"Started container {name}", container=name)
        self._begin_probes(name)
        if hook := (spec.get("lifecycle") or {}).get("postStart"):
            await self._post_start(name, spec, hook)

    async def _post_start(self, name: str, spec: Object, hook: Object) -> None:
        """The container counts as running only when it is through; one that fails costs the container its life."""
        task = asyncio.create_task(hooks.run(hook, self.containers[name], spec, self.ip, _HOOK_SECONDS))
        while not task.done() and not await self._is_over():
            self.wake.clear()
            waking = asyncio.create_task(self.wake.wait())
            await asyncio.wait((task, waking), return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
        self.wake.set()  # whatever woke us is still to be looked at
        if not task.done():
            task.cancel()
        elif task.result() is not None:
            self._say("FailedPostStartHook", "PostStartHook failed", warning=True, container=name)
            self._stop(name, "FailedPostStartHook")

    def _begin_probes(self, name: str) -> None:
        def failed(kind: str, message: str, kill: bool) -> None:
            self._say("Unhealthy", f"{kind.capitalize()} probe failed: {message}", warning=True, container=name)
            if kill:
                grace = self.spec_of(name)[f"{kind}Probe"].get("terminationGracePeriodSeconds")
                self._stop(name, f"Container {name} failed {kind} probe, will be restarted", grace)

        container = self.containers[name]
        if container.running:
            self._probers[name] = Prober(container, self.spec_of(name), self.ip, self.wake.set, failed)

    def write_hosts(self) -> None:
        write_in_place(self.folder / "hosts", self.node.hosts_for(self.pod, self.ip))

    # -- stopping

    def _stop(self, name: str, message: str, grace: float | None = None) -> None:
        if name in self._stopping or not self.containers[name].running:
            return
        if grace is None:
            grace = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        self._say("Killing", message, container=name)
        task = asyncio.create_task(self._stop_one(name, grace), name=f"stop {name}")
        self._stopping[name] = task

        def stopped(_: asyncio.Task[None]) -> None:
            self._stopping.pop(name, None)
            self.wake.set()

        task.add_done_callback(stopped)

    async def _stop_one(self, name: str, grace: float) -> None:
        container, began = self.containers[name], time.monotonic()
        spec = self.spec_of(name)
        hook = (spec.get("lifecycle") or {}).get("preStop")
        if grace > 0 and hook and await hooks.run(hook, container, spec, self.ip, grace):
            self._say("FailedPreStopHook", "PreStopHook failed", warning=True, container=name)
        await container.stop(max(0.0, grace - (time.monotonic() - began)))

    async def stop_all(self, grace: float | None = None) -> None:
        """Main containers first, then their sidecars."""
        sidecars = {c["name"] for c in self.pod["spec"].get("initContainers") or [] if is_sidecar(c)}
        for group in (self.containers.keys() - sidecars, sidecars):
            for name in group:
                self._stop(name, f"Stopping container {name}", grace)
            await asyncio.gather(*(self._stopping[n] for n in group if n in self._stopping), return_exceptions=True)

    async def _end(self) -> None:
        grace = 1.0 if self.gone else float(meta(self.pod).get("deletionGracePeriodSeconds") or 0)
        if not self.gone:
            with contextlib.suppress(ApiError):
                await self._report(self._decided)
        for prober in self._probers.values():
            prober.stop()
        await self.stop_all(grace)
        while not self.gone and not await self._finish():  # noqa: ASYNC110
            await asyncio.sleep(1.0)
        self.volumes.remove()
        await asyncio.to_thread(shutil.rmtree, self.folder, True)

    async def _finish(self) -> bool:
        """Report how it ended and let the API server forget the pod."""
        try:
            if (self.pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                views = self.views()
                mains = [views[c["name"]] for c in self.pod["spec"]["containers"]]
                good = all(v.exit is not None and v.exit.code == 0 for v in mains)
                await self._report(Decision("Succeeded" if good else "Failed", initialized=True))
            namespace, name = meta(self.pod)["namespace"], meta(self.pod)["name"]
            await self.node.client.delete(PODS, name, namespace, grace_period_seconds=0, uid=self.uid)
        except ApiError as error:
            return error.code in (404, 409)
        return True

    async def halt(self, grace: float) -> None:
        """The node goes down. What restarts anyway waits for the node; the rest counts as disrupted."""
        self._halted = True
        ran = any(container.running for container in self.containers.values())
        await self.stop_all(grace)
        if ran and self.pod["spec"].get("restartPolicy", "Always") != "Always" and not self.gone:
            text = "the node was shut down"
            disrupted = ("DisruptionTarget", "True", "TerminationByKubelet", text, stamp(time.time()))
            conditions = with_condition((self.pod.get("status") or {}).get("conditions"), *disrupted)
            self.pod = {**self.pod, "status": {**(self.pod.get("status") or {}), "conditions": conditions}}
            with contextlib.suppress(ApiError):
                await self._report(Decision("Failed", initialized=True, reason="Terminated", message=text))

    # -- reporting

    async def _report(self, decided: Decision) -> None:
        facts = {
            "podIP": self.ip,
            "podIPs": [{"ip": self.ip}],
            "hostIP": self.node.host_ip,
            "hostIPs": [{"ip": self.node.host_ip}],
            "startTime": stamp(self.started_at),
        }
        status = pod_status(self.pod, self.views(), decided, facts, time.time())
        if status == self._sent:
            return
        namespace, name = meta(self.pod)["namespace"], meta(self.pod)["name"]
        cleared = [{"reason": None, "message": None, **entry} for entry in status["conditions"]]
        patch = {"metadata": {"uid": self.uid}, "status": {**status, "conditions": cleared}}
        answer = await self.node.client.patch(
            PODS, name, patch, namespace, patch_type="strategic", subresource="status"
        )
        self._sent = status
        if int(meta(answer)["resourceVersion"]) > int(meta(self.pod)["resourceVersion"]):
            self.pod = answer

    def _say(self, reason: str, message: str, *, warning: bool = False, container: str = "") -> None:
        inits = [c["name"] for c in self.pod["spec"].get("initContainers") or []]
        kind = "initContainers" if container in inits else "containers"
        self.node.recorder.event(
            self.pod,
            "Pod",
            reason,
            message,
            type="Warning" if warning else "Normal",
            field_path=f"spec.{kind}{{{container}}}" if container else "",
        )
