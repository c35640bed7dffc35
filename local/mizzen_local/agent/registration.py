"""The Node object and its Lease: how this machine is known to the cluster, and that it is alive."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
import time
from pathlib import Path

from mizzen_local.agent.sandbox import boot_id
from mizzen_local.client import ApiError, Object
from mizzen_local.http_client import HttpClient
from mizzen_local.objects import is_true, meta, rfc3339, rfc3339_micro, utc_now, with_condition
from mizzen_local.resources import LEASES, NODES

_log = logging.getLogger(__name__)
_HEARTBEAT = 10.0  # of the Lease; a control plane takes a node for lost after 40 s or more
_STATUS = 300.0  # of the Node's status while nothing changes, as the kubelet does
_LEASE_SECONDS = 40
_SPACE = "kube-node-lease"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def capacity(
    state: Path, cpus: float | None, memory: int | None, pods: int, extended: dict[str, str]
) -> dict[str, str]:
    """What the Node offers; all of the machine where nothing else is said."""
    cpus = cpus or os.cpu_count() or 1
    memory = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{round(cpus * 1000)}m" if cpus % 1 else str(int(cpus)),
        "memory": f"{memory // 1024}Ki",
        "pods": str(pods),
        "ephemeral-storage": f"{shutil.disk_usage(state).total // 1024}Ki",
        **extended,
    }


class Registration:
    """`run` keeps Lease and status fresh for ever; a Node that somebody deletes is registered again."""

    def __init__(
        self, client: HttpClient, name: str, address: str, labels: dict[str, str], offers: dict[str, str]
    ) -> None:
        self._client, self._name, self._address, self._labels, self._offers = client, name, address, labels, offers
        self._port, self._uid = 0, ""
        self._ready, self._said = False, 0.0

    async def register(self, port: int) -> None:
        """Make the Node, not ready yet; an API server that is away is waited for."""
        self._port = port
        node = self._node()
        while True:
            try:
                try:
                    before = await self._client.create(NODES, node)
                except ApiError as error:
                    if error.code != 409:
                        raise
                    patch = {"metadata": {"labels": meta(node)["labels"]}}
                    before = await self._client.patch(NODES, self._name, patch)
                self._uid = meta(before)["uid"]
                await self._report(before)
                return
            except ApiError as error:
                _log.warning("cannot register the node yet: %s", error)
                await asyncio.sleep(0.5)

    async def set_ready(self, ready: bool) -> None:
        self._ready = ready
        await self._report(await self._client.get(NODES, self._name))

    async def run(self) -> None:
        while True:
            try:
                await self._renew()
                node = await self._client.get(NODES, self._name)
                if meta(node)["uid"] != self._uid:
                    self._uid = meta(node)["uid"]
                stale = time.monotonic() - self._said > _STATUS
                if self._ready and (stale or not is_true(node, "Ready")):
                    await self._report(node)
            except ApiError as error:
                if error.code == 404 and self._ready:
                    await self.register(self._port)
                _log.debug("heartbeat: %s", error)
            await asyncio.sleep(_HEARTBEAT)

    async def _renew(self) -> None:
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self._uid}
        metadata = {"ownerReferences": [owner]}  # so that the Lease goes with its Node
        now = rfc3339_micro(utc_now())
        spec = {"holderIdentity": self._name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": now}
        try:
            await self._client.patch(LEASES, self._name, {"metadata": metadata, "spec": spec}, _SPACE)
        except ApiError as error:
            if error.code != 404:
                raise
            body: Object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
            body["metadata"] = {**metadata, "name": self._name, "namespace": _SPACE}
            await self._client.create(LEASES, body, _SPACE)

    async def _report(self, before: Object) -> None:
        status = self._status((before.get("status") or {}).get("conditions"))
        await self._client.patch(NODES, self._name, {"status": status}, subresource="status")
        self._said = time.monotonic()

    def _node(self) -> Object:
        machine = platform.machine()
        labels = {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _ARCHITECTURES.get(machine, machine),
            "node.kubernetes.io/instance-type": "mizzen-local",
            **self._labels,
        }
        metadata = {"name": self._name, "labels": labels}
        return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}}

    def _status(self, before: list[Object] | None) -> Object:
        now, machine = rfc3339(utc_now()), platform.machine()
        conditions = before or []
        for kind, reason, text in (
            ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ):
            conditions = with_condition(conditions, kind, "False", reason, text, now)
        words = ("True", "KubeletReady", "kubelet is posting ready status")
        if not self._ready:
            words = ("False", "KubeletNotReady", "the node agent does not run pods now")
        conditions = with_condition(conditions, "Ready", *words, now)
        return {
            "capacity": self._offers,
            "allocatable": self._offers,
            "conditions": [{**entry, "lastHeartbeatTime": now} for entry in conditions],
            "addresses": [
                {"type": "InternalIP", "address": self._address},
                {"type": "Hostname", "address": self._name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": {
                "architecture": _ARCHITECTURES.get(machine, machine),
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
