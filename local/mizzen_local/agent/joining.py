"""`mizzen local node`: join a control plane, run its pods until a signal comes, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import signal
from dataclasses import dataclass
from pathlib import Path

from mizzen_local.agent import certificate
from mizzen_local.agent.netns import Namespace, NetworkError, Plan
from mizzen_local.agent.node import NodeAgent, NodeOptions
from mizzen_local.http_client import HttpClient, Kubeconfig
from mizzen_local.objects import quantity

_log = logging.getLogger(__name__)
_LOOPBACK_PODS, _PODS = "127.40.0.0/16", "10.244.0.0/16"


@dataclass(frozen=True)
class Join:
    """What the command line says."""

    kubeconfig: Path
    name: str
    state: Path
    images: Path | None
    cpus: float | None
    memory: str | None
    extended: list[str]
    client_ca: Path | None
    network_namespace: str
    pod_range: str
    service_range: str
    link_range: str
    proxy: bool


def join(options: Join) -> None:
    """Until SIGTERM or SIGINT. Raises NetworkError where the network namespace cannot be made or another agent runs."""
    options.state.mkdir(parents=True, exist_ok=True)
    with (options.state / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NetworkError(f"another node agent uses {options.state}: wait for its end, or stop it") from None
        _join(options)


def _join(options: Join) -> None:
    network = None
    if options.network_namespace:
        pods = options.pod_range or _PODS
        network = Namespace.create(
            Plan(options.network_namespace, pods=pods, services=options.service_range, link=options.link_range)
        )
    try:
        if network is not None:
            network.enter()
        asyncio.run(_serve(options, network))
    finally:
        if network is not None:
            network.remove()


def node_options(options: Join, config: Kubeconfig, network: Namespace | None) -> NodeOptions:
    address = network.plan.node if network else "127.0.0.1"
    return NodeOptions(
        name=options.name,
        state=options.state,
        pod_range=options.pod_range or _LOOPBACK_PODS,
        cpus=options.cpus,
        memory_bytes=int(quantity(options.memory)) if options.memory else None,
        extended=dict(entry.split("=", 1) for entry in options.extended),
        images=options.images,
        client_ca=options.client_ca.read_bytes() if options.client_ca else config.ca,
        certificate=certificate.ensure(options.state, address),
        proxy=options.proxy or network is not None,
        network=network,
        hidden=(options.state, options.kubeconfig),  # what opens the cluster is none of a pod's business
    )


async def _serve(options: Join, network: Namespace | None) -> None:
    config, leaving = Kubeconfig.load(options.kubeconfig), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leaving.set)
    async with HttpClient(config, network.host_socket if network else None) as client:
        agent = NodeAgent(client, node_options(options, config, network))
        serving = asyncio.create_task(agent.run())
        signalled = asyncio.create_task(leaving.wait())
        await asyncio.wait([serving, signalled], return_when=asyncio.FIRST_COMPLETED)
        if leaving.is_set():
            _log.info("stopping pods")
            await agent.stop_pods()
        for task in (serving, signalled):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
