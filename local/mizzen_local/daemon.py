"""The embedded cluster's one background process: API server, controllers and a node that speaks to them over HTTPS."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import secrets
import signal
import sys
from pathlib import Path

from mizzen_local import ranges
from mizzen_local.agent.node import NodeAgent, NodeOptions
from mizzen_local.api import server
from mizzen_local.controllers.manager import run_controllers
from mizzen_local.http_client import HttpClient
from mizzen_local.objects import quantity
from mizzen_local.state import State, StateError

_log = logging.getLogger("mizzen_local.daemon")
_GRACE = 10.0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--node", default="local")
    parser.add_argument("--pod-range", default="")
    parser.add_argument("--service-range", default="")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--cpus", type=float)
    parser.add_argument("--memory")
    parser.add_argument("--metrics-interval", type=float, default=15.0, help="of metrics and autoscalers, in seconds")
    parser.add_argument("--extended", action="append", default=[], help="an extended resource, as name=amount")
    return parser.parse_args(argv)


def node_options(options: argparse.Namespace, state: State, pod_range: str, token: str) -> NodeOptions:
    extended = dict(entry.split("=", 1) for entry in options.extended)
    return NodeOptions(
        name=options.node,
        state=state.node,
        pod_range=pod_range,
        cpus=options.cpus,
        memory_bytes=int(quantity(options.memory)) if options.memory else None,
        images=options.images,
        extended=extended,
        token=token,
        hidden=(state.root,),  # keys and the admin token are none of a pod's business
        certificate=(state.root / "pki" / "server.crt", state.root / "pki" / "server.key"),
    )


def kubelet_token(state: State) -> str:
    """What the API server shows to the node agent; made once, readable by the owner only."""
    path = state.root / "kubelet-token"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text().strip()


def explain(error: BaseException, options: argparse.Namespace) -> str:
    """One line for the reader of `mizzen up`."""
    taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    if taken or isinstance(error, server.PortTaken):
        return f"port {options.port} is taken by another process: choose one with `mizzen up --port`"
    if isinstance(error, server.StartError | StateError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk of {options.state} is full: free some space, or use another folder with --state-dir"
    if isinstance(error, BaseExceptionGroup):
        return explain(error.exceptions[0], options)
    return f"the cluster did not start: {error or type(error).__name__}"


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM; then end the pods first and the API server last."""
    state = State(options.state)
    state.prepare()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    token = kubelet_token(state)
    claimed = ranges.claim(state.root / "ranges.json", options.service_range, options.pod_range)
    interval = options.metrics_interval
    async with server.running(
        state.root, port=options.port, service_range=claimed.ranges.services, metrics_interval=interval
    ) as api:
        ca = (state.root / "pki" / "ca.crt").read_text()
        async with HttpClient.from_kubeconfig(state.kubeconfig) as http:
            agent = NodeAgent(http, node_options(options, state, claimed.ranges.pods, token))
            tasks = [
                asyncio.create_task(
                    run_controllers(api.client, ca=ca, volumes=state.volumes, autoscale_period=interval),
                    name="controllers",
                ),
                asyncio.create_task(agent.run(), name="node"),
            ]
            try:
                waiting = [asyncio.create_task(agent.ready.wait()), asyncio.create_task(stopping.wait())]
                await asyncio.wait([*tasks, *waiting], return_when=asyncio.FIRST_COMPLETED)
                if agent.ready.is_set():
                    state.note_running(api.port)
                    _log.info("the cluster is up: %s", http.config.server)
                await asyncio.wait([*tasks, waiting[1]], return_when=asyncio.FIRST_COMPLETED)
                if stopping.is_set():
                    _log.info("stopping")
                    await agent.stop_pods(_GRACE)
            finally:
                for task in [*tasks, *waiting]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result


def main() -> None:
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        import uvloop

        uvloop.run(run(options))
    except Exception as error:
        _log.exception("the cluster ended")
        with contextlib.suppress(OSError):
            State(options.state).error.write_text(explain(error, options))
        sys.exit(1)


if __name__ == "__main__":
    main()
