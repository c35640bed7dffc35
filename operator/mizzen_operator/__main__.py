"""`mizzen-operator`: connects, starts the loop, and lets Kopf watch until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import sys

import aiohttp
import kopf
import prometheus_client

from mizzen_api.contract import API_VERSION, PORT_OPERATOR_HEALTH, PORT_OPERATOR_METRICS
from mizzen_operator.cluster import KubernetesCluster
from mizzen_operator.errors import ConfigurationError, OperatorError
from mizzen_operator.fetch import HttpWorkloads
from mizzen_operator.handlers import configure, register
from mizzen_operator.loop import Dependencies, Loop
from mizzen_operator.metrics import Metrics
from mizzen_operator.observe import Observer
from mizzen_operator.reconcile import Reconciler
from mizzen_operator.registry import MlflowRegistry
from mizzen_operator.settings import Settings


def main() -> None:
    """Ends with 1 and one sentence where the operator cannot work as it was installed."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s", stream=sys.stdout
    )
    for chatty in ("kopf", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        asyncio.run(run(Settings.from_environment()))
    except OperatorError as error:
        raise SystemExit(f"mizzen-operator: {error}") from error


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT, which Kopf handles."""
    metrics = Metrics()
    cluster = await KubernetesCluster.connect()
    try:
        if not await cluster.serves(API_VERSION):
            raise ConfigurationError(f"the cluster does not know {API_VERSION}: install the chart's CRDs")
        _serve_metrics(settings, metrics)
        async with aiohttp.ClientSession() as session:
            observer = Observer(cluster, HttpWorkloads(session), MlflowRegistry(session, settings.mlflow_uri), settings)
            reconciler = Reconciler(cluster, observer, settings, metrics)
            await _watch(settings, reconciler, metrics)
    finally:
        await cluster.close()


def _serve_metrics(settings: Settings, metrics: Metrics) -> None:
    try:
        prometheus_client.start_http_server(PORT_OPERATOR_METRICS, settings.pod_ip, registry=metrics.registry)
    except OSError as error:
        where = f"{settings.pod_ip}:{PORT_OPERATOR_METRICS}"
        raise ConfigurationError(f"cannot listen on {where} ({error}): is another operator running there?") from error


async def _watch(settings: Settings, reconciler: Reconciler, metrics: Metrics) -> None:
    loop = Loop(reconciler.reconcile, failed=lambda key: metrics.errors.labels(key.kind).inc())
    registry, kopf_settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
    configure(kopf_settings)
    register(registry, loop, Dependencies())
    kopf.on.login(registry=registry)(kopf.login_via_client)
    try:
        await kopf.operator(
            registry=registry,
            settings=kopf_settings,
            standalone=True,
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
            liveness_endpoint=f"http://{settings.pod_ip}:{PORT_OPERATOR_HEALTH}/healthz",
        )
    finally:
        await loop.stop()


if __name__ == "__main__":
    main()
