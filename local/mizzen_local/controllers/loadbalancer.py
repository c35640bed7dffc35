"""Load balancers: a Service of that type is reached at its ClusterIP, which is a loopback address of this machine."""

from __future__ import annotations

from mizzen_local.client import Client
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.objects import Key, key_of
from mizzen_local.resources import SERVICES


class LoadBalancerController:
    def __init__(self, client: Client, informers: Informers) -> None:
        self.client, self.services = client, informers.of(SERVICES)
        self.worker = Worker[Key]("loadbalancer", self.reconcile, workers=1)
        self.services.on_change(lambda service: self.worker.queue.add(key_of(service)))

    async def reconcile(self, key: Key) -> float | None:
        service = self.services.get(key)
        if service is None or service["spec"].get("type") != "LoadBalancer":
            return None
        address = service["spec"].get("clusterIP")
        if not address or address == "None":
            return None
        wanted = {"ingress": [{"ip": address, "ipMode": "VIP"}]}
        if ((service.get("status") or {}).get("loadBalancer") or {}) != wanted:
            patch = {"status": {"loadBalancer": wanted}}
            self.services.observe(await self.client.patch(SERVICES, key[1], patch, key[0], subresource="status"))
        return None
