"""The node: registers with the API server, keeps its Lease alive and gives each pod bound to it a worker."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mizzen_local.agent import hosts
from mizzen_local.agent.images import Images
from mizzen_local.agent.kubelet import Kubelet
from mizzen_local.agent.netns import Namespace
from mizzen_local.agent.proxy import API_SERVER, Address, ServiceProxy, through
from mizzen_local.agent.registration import Registration, capacity
from mizzen_local.agent.surroundings import Limits
from mizzen_local.agent.worker import PodWorker
from mizzen_local.client import ApiError, Object
from mizzen_local.controllers.endpoints import SERVICE_NAME
from mizzen_local.controllers.informer import Informer
from mizzen_local.http_client import HttpClient
from mizzen_local.objects import meta
from mizzen_local.recorder import Recorder
from mizzen_local.resources import ENDPOINT_SLICES, PODS, SERVICES

_log = logging.getLogger(__name__)


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
    token: str = ""  # what lets a caller of the kubelet endpoint in without a review
    client_ca: bytes | None = None  # has signed the certificates of such callers
    certificate: tuple[Path, Path] | None = None  # of the kubelet endpoint: (certificate, key)
    proxy: bool = True
    hidden: tuple[Path, ...] = ()  # folders and files that pods must not see; `state` by default
    network: Namespace | None = None  # where this process and its pods are, if not in the host's network


class NodeAgent:
    """`run` serves until cancelled; the pods run on after it."""

    def __init__(self, client: HttpClient, options: NodeOptions) -> None:
        self.client, self.options = client, options
        (options.state / "pods").mkdir(parents=True, exist_ok=True)
        self.state, self.limits, network = options.state, options.limits, options.network
        self.host_ip = network.plan.node if network else options.host_ip
        self.hidden = options.hidden or (options.state,)
        self.images = Images.default(options.images)
        self.recorder = Recorder(client, "kubelet", options.name)
        self.allocatable = capacity(
            options.state, options.cpus, options.memory_bytes, options.max_pods, options.extended
        )
        self.registration = Registration(client, options.name, self.host_ip, options.labels, self.allocatable)
        self.workers: dict[str, PodWorker] = {}
        self.ready = asyncio.Event()
        self._finished: set[str] = set()  # gone from here, though a finalizer may still hold the object
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._range = ipaddress.ip_network(network.plan.pods if network else options.pod_range)
        self._last_ip = int(self._range.network_address) + 1
        self.pods = Informer(client, PODS, field_selector=f"spec.nodeName={options.name}")
        self.services, self.slices = Informer(client, SERVICES), Informer(client, ENDPOINT_SLICES)
        self.kubelet = Kubelet(self)
        self.proxy = ServiceProxy(self.services, self.slices, self.recorder)
        if network is not None:
            self.proxy.move(network.plan.services, self._api_server(), through(network.host_socket))
        self._hosts_due: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        port = await self.kubelet.start(self.options.certificate, self.options.client_ca)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.services.run(), name="watch services")
                group.create_task(self.slices.run(), name="watch slices")
                await self.registration.register(port)
                group.create_task(self.registration.run(), name="heartbeat")
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
                await self.registration.set_ready(True)
                self.ready.set()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self.kubelet.stop()

    async def stop_pods(self, grace: float = 10.0) -> None:
        """End every pod's processes, as before a machine is switched off; the objects stay."""
        with contextlib.suppress(ApiError):
            await self.registration.set_ready(False)
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
        if self.options.network is not None:
            self.options.network.claim(worker.ip)
        task = self._tasks[uid] = asyncio.create_task(worker.run(), name=f"pod {meta(pod)['name']}")
        task.add_done_callback(lambda done: self._ended(uid, done))

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        worker = self.workers.pop(uid, None)
        self._tasks.pop(uid, None)
        if task.cancelled():
            return
        if worker is not None and self.options.network is not None:
            self.options.network.release(worker.ip)
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

    def _api_server(self) -> Address:
        server = urlsplit(self.client.config.server)
        return server.hostname or "", server.port or 443

    def _address(self, uid: str, pod: Object) -> str:
        if pod["spec"].get("hostNetwork"):
            return self.host_ip
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

    def service_environment(self, pod: Object) -> dict[str, str]:
        """The variables that the kubelet gives for Services; where the API server is reached comes first of all."""
        service, (host, port) = self.services.get(API_SERVER), self._api_server()
        if service is not None and self.options.network is not None:
            host, port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"]
        linked = {}
        if pod["spec"].get("enableServiceLinks", True):
            linked = hosts.service_variables(self.services.in_namespace(meta(pod)["namespace"]))
        return {**linked, **hosts.api_server_variables(host, port)}

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
        return hosts.render(meta(pod)["namespace"], (ip, hostname), entries, pod["spec"].get("hostAliases") or ())

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
