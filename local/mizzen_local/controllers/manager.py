"""Runs all controllers on one client, beside the API server, until cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mizzen_local.client import Client
from mizzen_local.controllers.autoscaler import SYNC_PERIOD, AutoscalerController
from mizzen_local.controllers.catalog import Catalog
from mizzen_local.controllers.collector import GarbageCollector
from mizzen_local.controllers.cronjob import CronJobController
from mizzen_local.controllers.deployment import DeploymentController
from mizzen_local.controllers.disruption import DisruptionController
from mizzen_local.controllers.endpoints import EndpointController
from mizzen_local.controllers.informer import Informers, Worker
from mizzen_local.controllers.job import JobController
from mizzen_local.controllers.loadbalancer import LoadBalancerController
from mizzen_local.controllers.namespaces import NamespaceController
from mizzen_local.controllers.replicaset import ReplicaSetController
from mizzen_local.controllers.resourcequota import ResourceQuotaController
from mizzen_local.controllers.scheduler import Scheduler
from mizzen_local.controllers.statefulset import StatefulSetController
from mizzen_local.controllers.volumes import VolumeController


async def run_controllers(
    client: Client, *, ca: str, volumes: Path, backoff_base: float = 1.0, autoscale_period: float = SYNC_PERIOD
) -> None:
    """`ca` is the cluster's CA certificate as PEM; `volumes` the folder of PersistentVolumes."""
    informers = Informers(client)
    catalog = Catalog(informers)
    workers: list[Worker[Any]] = [
        DeploymentController(client, informers).worker,
        ReplicaSetController(client, informers).worker,
        StatefulSetController(client, informers).worker,
        JobController(client, informers, backoff_base).worker,
        CronJobController(client, informers).worker,
        EndpointController(client, informers).worker,
        NamespaceController(client, catalog, ca).worker,
        Scheduler(client, informers).worker,
        VolumeController(client, informers, volumes).worker,
        DisruptionController(client, informers).worker,
        ResourceQuotaController(client, informers, catalog).worker,
        LoadBalancerController(client, informers).worker,
        AutoscalerController(client, informers, catalog, autoscale_period).worker,
    ]
    collector = GarbageCollector(client, catalog)
    try:
        await informers.wait_synced()  # to act on half a picture would create pods twice
        async with asyncio.TaskGroup() as group:
            for worker in [*workers, collector.worker]:
                group.create_task(worker.run(), name=worker.name)
    finally:
        await informers.stop()
