"""The node: registers with the API server, keeps its Lease alive and gives each pod bound to it a worker."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import platform
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mizzen_local.agent import hosts
from mizzen_local.agent.images import Images
from mizzen_local.agent.kubelet import Kubelet
from mizzen_local.agent.proxy import ServiceProxy
from mizzen_local.agent.sandbox import boot_id
from mizzen_local.agent.worker import Limits, PodWorker
from mizzen_local.client import ApiError, Object
from mizzen_local.controllers.endpoints import SERVICE_NAME
from mizzen_local.controllers.informer import Informer
from mizzen_local.http_client import HttpClient
from mizzen_local.objects import meta, rfc3339, rfc3339_micro, utc_now, with_condition
from mizzen_local.recorder import Recorder
from mizzen_local.resources import ENDPOINT_SLICES, LEASES, NODES, PODS, SERVICES

_log = logging.getLogger(__name__)
_HEARTBEAT = 10.0


@dataclass(frozen=True)
class NodeOptions:
    name: str
    state: Path
    pod_range: str = "127.30.0.0/16"
    host_ip: str = "127.0.0.1"
    cpus: float | None = None
    memory_bytes: int | None = None
    max_pods: int = 110
    extended: dict[str, str] = field(default_factory=dict)  # for example {"nvidia.com/gpu": "1"}
    labels: dict[str, str] = field(default_factory=dict)
    images: Path | None = None
    limits: Limits = field(default_factory=Limits)
    token: str = ""  # what a caller of the kubelet endpoint must bring
    certificate: tuple[Path, Path] | None = None  # of the kubelet endpoint: (certificate, key)
    proxy: bool = True
    hidden: tuple[Path, ...] = ()  # folders that pods must not see; `state` by default


def capacity(options: NodeOptions) -> dict[str, str]:
    cpus = options.cpus or os.cpu_count() or 1
    memory = options.memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{round(cpus * 1000)}m" if cpus % 1 else str(int(cpus)),
        "memory": f"{memory // 1024}Ki",
        "pods": str(options.max_pods),
        "ephemeral-storage": f"{shutil.disk_usage(options.state).total // 1024}Ki",
        **options.extended,
    }


class NodeAgent:
    """`run` serves until cancelled; the pods run on after it."""

    def __init__(self, client: HttpClient, options: NodeOptions) -> None:
        self.client, self.options = client, options
        (options.state / "pods").mkdir(parents=True, exist_ok=True)
        self.state, self.host_ip, self.limits = options.state, options.host_ip, options.limits
        self.hidden = options.hidden or (options.state,)
        self.images = Images.default(options.images)
        self.recorder = Recorder(client, "kubelet", options.name)
        self.allocatable = capacity(options)
        self.workers: dict[str, PodWorker] = {}
        self.ready = asyncio.Event()
        self._port = 0
        self._finished: set[str] = set()  # gone from here, though a finalizer may still hold the object
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._range = ipaddress.ip_network(options.pod_range)
        self._last_ip = int(self._range.network_address) + 1
        self.pods = Informer(client, PODS, field_selector=f"spec.nodeName={options.name}")
        self.services, self.slices = Informer(client, SERVICES), Informer(client, ENDPOINT_SLICES)
        self.kubelet = Kubelet(self)
        self.proxy = ServiceProxy(self.services, self.slices, self.recorder)
        self._hosts_due: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        port = await self.kubelet.start(self.options.token, self.options.certificate)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.services.run(), name="watch services")
                group.create_task(self.slices.run(), name="watch slices")
                await self._register(port)
                group.create_task(self._heartbeat(port), name="heartbeat")
                await self.services.synced.wait()
                await self.slices.synced.wait()
                for informer in (self.services, self.slices):
                    informer.on_change(lambda _: self._hosts_changed())
                if self.options.proxy:
                    group.create_task(self.proxy.run(), name="service proxy")
                group.create_task(self.pods.run(), name="watch pods")
                await self.pods.synced.wait()
                await self._clear_orphans()
                self.pods.on_change(self._pod_changed, deleted=self._pod_deleted)
                await self._set_ready()
                self.ready.set()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self.kubelet.stop()

    async def stop_pods(self, grace: float = 10.0) -> None:
        """End every pod's processes, as before a machine is switched off; the objects stay."""
        with contextlib.suppress(ApiError):
            await self._patch_status(self._port, await self.client.get(NODES, self.options.name), ready=False)
        await asyncio.gather(*(worker.halt(grace) for worker in self.workers.values()))

    # -- pods

    def _pod_changed(self, pod: Object) -> None:
        uid = meta(pod)["uid"]
        worker = self.workers.get(uid)
        if worker is not None:
            worker.update(pod)
        elif (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") or meta(pod).get(
            "deletionTimestamp"
        ):
            self._begin(pod)
        elif (self.state / "pods" / uid).exists():
            self._begin(pod)  # ended, but its logs are here: its end is ours to clean up

    def _begin(self, pod: Object) -> None:
        uid = meta(pod)["uid"]
        if uid in self._finished:
            return
        worker = self.workers[uid] = PodWorker(self, pod, self._address(uid, pod))
        task = self._tasks[uid] = asyncio.create_task(worker.run(), name=f"pod {meta(pod)['name']}")
        task.add_done_callback(lambda done: self._ended(uid, done))

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self.workers.pop(uid, None)
        self._tasks.pop(uid, None)
        if task.cancelled():
            return
        self._finished.add(uid)
        if task.exception() is not None:
            _log.error("a pod's worker failed", exc_info=task.exception())

    def _pod_deleted(self, pod: Object) -> None:
        worker = self.workers.get(meta(pod)["uid"])
        self._finished.discard(meta(pod)["uid"])
        if worker is not None:
            worker.vanish()

    async def _clear_orphans(self) -> None:
        """Pods that were deleted while we were away."""
        known = {meta(pod)["uid"] for pod in self.pods.cache.values()}
        for folder in (self.state / "pods").iterdir():
            if folder.name in known:
                continue
            try:
                record = json.loads((folder / "pod.json").read_text())
            except (OSError, ValueError):
                await asyncio.to_thread(shutil.rmtree, folder, True)
                continue
            names = (
                [{"name": p.name} for p in (folder / "containers").iterdir()]
                if (folder / "containers").exists()
                else []
            )
            ghost: Object = {"metadata": {**record, "resourceVersion": "0"}, "spec": {"containers": names}}
            self._begin(ghost)
            self.workers[record["uid"]].vanish()

    def _address(self, uid: str, pod: Object) -> str:
        try:
            return str(json.loads((self.state / "pods" / uid / "pod.json").read_text())["ip"])
        except (OSError, ValueError, KeyError):
            pass
        if known := (pod.get("status") or {}).get("podIP"):
            return str(known)
        taken = {worker.ip for worker in self.workers.values()}
        taken.update(str((pod.get("status") or {}).get("podIP")) for pod in self.pods.cache.values())
        for _ in range(self._range.num_addresses):
            self._last_ip += 1
            if self._last_ip >= int(self._range.broadcast_address):
                self._last_ip = int(self._range.network_address) + 2
            address = str(ipaddress.ip_address(self._last_ip))
            if address not in taken:
                return address
        raise RuntimeError(f"no free address is left in {self._range}")

    # -- what pods see of the cluster

    def service_environment(self) -> dict[str, str]:
        server = urlsplit(self.client.config.server)
        return {"KUBERNETES_SERVICE_HOST": server.hostname or "", "KUBERNETES_SERVICE_PORT": str(server.port or 443)}

    def hosts_for(self, pod: Object, ip: str) -> str:
        by_service: dict[tuple[str, str], list[Object]] = {}
        for (namespace, _), piece in self.slices.cache.items():
            name = (meta(piece).get("labels") or {}).get(SERVICE_NAME, "")
            by_service.setdefault((namespace, name), []).append(piece)
        entries = [
            (key[0], key[1], hosts.service_addresses(service, by_service.get(key, [])))
            for key, service in self.services.cache.items()
        ]
        hostname = pod["spec"].get("hostname") or meta(pod)["name"]
        return hosts.render(meta(pod)["namespace"], (ip, hostname), entries)

    def _hosts_changed(self) -> None:
        """Gathers a burst of changes into one rewrite."""
        if self._hosts_due is None:
            self._hosts_due = asyncio.get_running_loop().call_later(0.05, self._write_hosts)

    def _write_hosts(self) -> None:
        self._hosts_due = None
        for worker in self.workers.values():
            if worker.folder.exists():
                with contextlib.suppress(OSError):
                    worker.write_hosts()

    # -- the Node object

    def _node(self) -> Object:
        name, machine = self.options.name, platform.machine().replace("x86_64", "amd64").replace("aarch64", "arm64")
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine,
            "node.kubernetes.io/instance-type": "mizzen-local",
            **self.options.labels,
        }
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}}

    def _status(self, port: int, before: list[Object] | None, ready: bool) -> Object:
        now = rfc3339(utc_now())
        conditions = before or []
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure"):
            conditions = with_condition(conditions, kind, "False", f"KubeletHasNo{kind}", "there is enough", now)
        words = ("True", "KubeletReady", "the node agent runs") if ready else ("False", "Starting", "it is starting")
        return {
            "capacity": self.allocatable,
            "allocatable": self.allocatable,
            "conditions": [{**c, "lastHeartbeatTime": now} for c in with_condition(conditions, "Ready", *words, now)],
            "addresses": [
                {"type": "InternalIP", "address": self.host_ip},
                {"type": "Hostname", "address": self.options.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {
                "architecture": platform.machine(),
                "bootID": boot_id(),
                "containerRuntimeVersion": "mizzen://processes",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.37.0-mizzen",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": platform.platform(),
                "systemUUID": "",
            },
        }

    async def _register(self, port: int) -> None:
        node = self._node()
        while True:
            try:
                try:
                    before = await self.client.create(NODES, node)
                except ApiError as error:
                    if error.code != 409:
                        raise
                    patch = {"metadata": {"labels": node["metadata"]["labels"]}}
                    before = await self.client.patch(NODES, self.options.name, patch)
                await self._patch_status(port, before, ready=False)
                self._port = port
                return
            except ApiError as error:
                _log.warning("cannot register the node yet: %s", error)
                await asyncio.sleep(0.5)

    async def _patch_status(self, port: int, before: Object, *, ready: bool) -> None:
        status = self._status(port, (before.get("status") or {}).get("conditions"), ready)
        await self.client.patch(NODES, self.options.name, {"status": status}, subresource="status")

    async def _set_ready(self) -> None:
        node = await self.client.get(NODES, self.options.name)
        await self._patch_status(self._port, node, ready=True)

    async def _heartbeat(self, port: int) -> None:
        name, space = self.options.name, "kube-node-lease"
        while True:
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": rfc3339_micro(utc_now())}
            try:
                try:
                    await self.client.patch(LEASES, name, {"spec": spec}, space)
                except ApiError as error:
                    if error.code != 404:
                        raise
                    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
                    await self.client.create(LEASES, {**body, "spec": spec}, space)
                if self.ready.is_set():
                    await self.client.get(NODES, name)
            except ApiError as error:
                if error.code == 404 and self.ready.is_set():
                    await self._register(port)
                    await self._set_ready()
                _log.debug("heartbeat: %s", error)
            await asyncio.sleep(_HEARTBEAT)
