"""EndpointSlices and Endpoints: from a Service's selector to the addresses of its pods."""

from __future__ import annotations

from mizzen_local.client import ApiError, Client, Object, Resource
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.controllers.pods import is_ready
from mizzen_local.objects import Key, controller_reference, is_finished_pod, key_of, meta, stable_hash
from mizzen_local.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES

_MANAGER = "endpointslice-controller.k8s.io"
SERVICE_NAME = "kubernetes.io/service-name"


def target_ports(service: Object, pod: Object) -> list[Object]:
    """The Service's ports as numbers in this pod; a named port that the pod does not have is left out."""
    found = []
    for port in service["spec"].get("ports") or []:
        target = port.get("targetPort", port["port"])
        protocol = port.get("protocol", "TCP")
        if isinstance(target, str) and not target.isdigit():
            target = next(
                (
                    p["containerPort"]
                    for c in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
                    for p in c.get("ports") or []
                    if p.get("name") == target and p.get("protocol", "TCP") == protocol
                ),
                None,
            )
        if target is not None:
            entry: Object = {"name": port.get("name", ""), "port": int(target), "protocol": protocol}
            if port.get("appProtocol"):
                entry["appProtocol"] = port["appProtocol"]
            found.append(entry)
    return found


def endpoint(service: Object, pod: Object) -> Object:
    ending = bool(meta(pod).get("deletionTimestamp"))
    ready = is_ready(pod)
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    entry: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": always or (ready and not ending), "serving": ready, "terminating": ending},
        "nodeName": pod["spec"].get("nodeName"),
        "targetRef": {
            "kind": "Pod",
            "namespace": meta(pod)["namespace"],
            "name": meta(pod)["name"],
            "uid": meta(pod)["uid"],
        },
    }
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == meta(service)["name"]:
        entry["hostname"] = pod["spec"]["hostname"]
    return entry


def slices(service: Object, pods: list[Object]) -> list[Object]:
    """One slice for each way in which the ports resolve; pods that have ended are left out."""
    selector = service["spec"].get("selector") or {}
    groups: dict[str, tuple[list[Object], list[Object]]] = {}
    for pod in sorted(pods, key=lambda p: str(meta(p)["name"])):
        labels = meta(pod).get("labels") or {}
        if selector.items() <= labels.items() and (pod.get("status") or {}).get("podIP") and not is_finished_pod(pod):
            ports = target_ports(service, pod)
            groups.setdefault(repr(ports), (ports, []))[1].append(endpoint(service, pod))
    if not groups:
        groups[""] = ([], [])
    name = meta(service)["name"]
    headless = service["spec"].get("clusterIP") == "None"
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{stable_hash([meta(service)['uid'], key], 5)}",
                "namespace": meta(service)["namespace"],
                "labels": {
                    **(meta(service).get("labels") or {}),
                    SERVICE_NAME: name,
                    "endpointslice.kubernetes.io/managed-by": _MANAGER,
                    **({"service.kubernetes.io/headless": ""} if headless else {}),
                },
                "ownerReferences": [controller_reference(service, "v1", "Service")],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        }
        for key, (ports, endpoints) in groups.items()
    ]


def legacy(service: Object, found: list[Object]) -> Object:
    """The Endpoints object of old, which some clients still read."""
    subsets = []
    for piece in found:
        ready: list[Object] = []
        waiting: list[Object] = []
        for entry in piece["endpoints"]:
            address = {"ip": entry["addresses"][0], "nodeName": entry["nodeName"], "targetRef": entry["targetRef"]}
            (ready if entry["conditions"]["ready"] else waiting).append(address)
        if ready or waiting:
            subset: Object = {"ports": [{k: v for k, v in p.items() if v != ""} for p in piece["ports"]]}
            if ready:
                subset["addresses"] = ready
            if waiting:
                subset["notReadyAddresses"] = waiting
            subsets.append(subset)
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": meta(service)["name"],
            "namespace": meta(service)["namespace"],
            "labels": dict(meta(service).get("labels") or {}),
            "ownerReferences": [controller_reference(service, "v1", "Service")],
        },
        "subsets": subsets,
    }


class EndpointController:
    def __init__(self, client: Client, informers: Informers) -> None:
        self.client = client
        self.services, self.pods = informers.of(SERVICES), informers.of(PODS)
        self.slices, self.endpoints = informers.of(ENDPOINT_SLICES), informers.of(ENDPOINTS)
        self.worker = Worker[Key]("endpointslice", self.reconcile)
        self.services.on_change(lambda s: self.worker.queue.add(key_of(s)))
        self.pods.on_change(self._pod_changed)

    def _pod_changed(self, pod: Object) -> None:
        labels = (meta(pod).get("labels") or {}).items()
        for service in self.services.in_namespace(meta(pod)["namespace"]):
            selector = service["spec"].get("selector")
            if selector and selector.items() <= labels:
                self.worker.queue.add(key_of(service))

    async def reconcile(self, key: Key) -> float | None:
        service = self.services.get(key)
        if service is None or not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            return None
        wanted = slices(service, self.pods.in_namespace(key[0]))
        names = {meta(piece)["name"] for piece in wanted}
        for piece in wanted:
            await self._put(ENDPOINT_SLICES, self.slices.get(key_of(piece)), piece, ("endpoints", "ports"))
        for piece in self.slices.in_namespace(key[0]):
            labels = meta(piece).get("labels") or {}
            ours = (
                labels.get(SERVICE_NAME) == key[1] and labels.get("endpointslice.kubernetes.io/managed-by") == _MANAGER
            )
            if ours and meta(piece)["name"] not in names:
                await self._delete(piece)
        old = legacy(service, wanted)
        await self._put(ENDPOINTS, self.endpoints.get(key), old, ("subsets",))
        return None

    async def _put(self, resource: Resource, before: Object | None, new: Object, fields: tuple[str, ...]) -> None:
        informer = self.slices if resource is ENDPOINT_SLICES else self.endpoints
        namespace = meta(new)["namespace"]
        if before is None:
            informer.observe(await self.client.create(resource, new, namespace))
            return
        same_owner = meta(before).get("ownerReferences") == meta(new)["ownerReferences"]
        if all((before.get(f) or []) == new[f] for f in fields) and same_owner:
            return
        version = {"resourceVersion": meta(before)["resourceVersion"]}
        body = {**new, "metadata": {**meta(new), **version}}
        informer.observe(await self.client.update(resource, body, namespace))

    async def _delete(self, piece: Object) -> None:
        try:
            await self.client.delete(ENDPOINT_SLICES, meta(piece)["name"], meta(piece)["namespace"])
        except ApiError as error:
            if error.code != 404:
                raise
        self.slices.forget(piece)
