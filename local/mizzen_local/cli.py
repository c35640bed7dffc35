"""The embedded cluster's commands, which the platform's command line takes in: up, down, status, node."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from mizzen_local import options as accepted
from mizzen_local.chart import ChartError
from mizzen_local.progress import Progress
from mizzen_local.state import StateError, default_state

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="A Kubernetes cluster on this machine, without containers."
)

StateDir = Annotated[
    Path | None, typer.Option("--state-dir", file_okay=False, help="Where the cluster keeps its state.")
]
Images = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, callback=accepted.images, help="YAML file: image name to path, entrypoint and env."
    ),
]
Cpus = Annotated[float | None, typer.Option(min=0.01, help="CPUs that the node offers; all of them by default.")]
Memory = Annotated[
    str | None, typer.Option(callback=accepted.memory, help="Memory that the node offers, for example 8Gi.")
]
Extended = Annotated[
    list[str] | None,
    typer.Option(
        callback=accepted.extended, help="A resource that the node also offers, as nvidia.com/gpu=1. Repeatable."
    ),
]


@app.command()
def up(  # noqa: PLR0913, PLR0917
    state_dir: StateDir = None,
    chart: Annotated[Path | None, typer.Option(help="Folder of the Helm chart to install.")] = None,
    no_chart: Annotated[bool, typer.Option("--no-chart", help="Start the cluster only.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A chart value, as k=v. Repeatable.")] = None,
    values: Annotated[
        list[Path] | None,
        typer.Option("--values", "-f", exists=True, dir_okay=False, help="A file of chart values."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API server on loopback.")] = 6443,
    node: Annotated[str, typer.Option(callback=accepted.node_name, help="Name of the node.")] = "local",
    images: Images = None,
    cpus: Cpus = None,
    memory: Memory = None,
    extended: Extended = None,
    pod_range: Annotated[
        str, typer.Option(callback=accepted.loopback, help="Loopback range of pod addresses; a free one by default.")
    ] = "",
    service_range: Annotated[
        str, typer.Option(callback=accepted.loopback, help="Loopback range of ClusterIPs; a free one by default.")
    ] = "",
    metrics_interval: Annotated[
        float, typer.Option(min=0.05, help="Seconds between two looks of the metrics collector and of autoscalers.")
    ] = 15.0,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds to wait for the chart to be ready.")] = 300,
) -> None:
    """Start the cluster and install the platform. Doing it twice is fine."""
    from mizzen_local.up import UpOptions
    from mizzen_local.up import up as start

    options = UpOptions(
        state=state_dir or default_state(),
        port=port,
        node=node,
        chart=chart,
        with_chart=not no_chart,
        settings=settings or [],
        value_files=values or [],
        images=images.resolve() if images else None,
        cpus=cpus,
        memory=memory,
        extended=extended or [],
        pod_range=pod_range,
        service_range=service_range,
        metrics_interval=metrics_interval,
        timeout=timeout,
    )
    try:
        start(options, Progress())
    except (StateError, ChartError) as error:
        _end(error)


@app.command()
def down(
    state_dir: StateDir = None,
    purge: Annotated[bool, typer.Option("--purge", help="Also delete all state: objects, logs, volumes.")] = False,
) -> None:
    """Stop all pods and the cluster; its state stays unless it is purged."""
    from mizzen_local.up import down as stop

    try:
        stop(state_dir or default_state(), Progress(), purge=purge)
    except StateError as error:
        _end(error)


@app.command()
def status(state_dir: StateDir = None) -> None:
    """Print what runs, as JSON; exit code 3 when nothing does."""
    from mizzen_local.up import status as look

    found = look(state_dir or default_state())
    typer.echo(json.dumps(found, indent=2))
    if not found["running"]:
        raise typer.Exit(3)


@app.command()
def node(  # noqa: PLR0913, PLR0917
    kubeconfig: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, callback=accepted.kubeconfig, help="The cluster to join.")
    ],
    name: Annotated[str, typer.Option(callback=accepted.node_name, help="The node's name.")] = "",
    state_dir: StateDir = None,
    images: Images = None,
    cpus: Cpus = None,
    memory: Memory = None,
    extended: Extended = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Authority of certificates that callers of the kubelet show; by default the cluster's.",
        ),
    ] = None,
    network_namespace: Annotated[
        str, typer.Option(help="Give the node a network of its own under this name; needs root.")
    ] = "",
    pod_range: Annotated[
        str,
        typer.Option(
            callback=accepted.addresses,
            help="Range of pod addresses: 127.40.0.0/16, in a network namespace 10.244.0.0/16.",
        ),
    ] = "",
    service_range: Annotated[
        str,
        typer.Option(
            callback=accepted.addresses,
            help="Range of the cluster's ClusterIPs, which a network namespace answers for.",
        ),
    ] = "10.96.0.0/16",
    link_range: Annotated[
        str,
        typer.Option(
            callback=accepted.addresses, help="Range of the link between host and network namespace: their two ends."
        ),
    ] = "10.222.0.0/30",
    proxy: Annotated[
        bool, typer.Option(help="Answer for loopback ClusterIPs on this machine, without a network namespace.")
    ] = False,
) -> None:
    """Join a control plane as a node that runs pods as processes, in the foreground."""
    from mizzen_local.agent.joining import Join, join
    from mizzen_local.agent.netns import NetworkError

    name = name or f"{socket.gethostname().lower()}-processes"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    options = Join(
        kubeconfig=kubeconfig.resolve(),
        name=name,
        state=(state_dir or default_state() / "nodes" / name).resolve(),
        images=images.resolve() if images else None,
        cpus=cpus,
        memory=memory,
        extended=extended or [],
        client_ca=client_ca,
        network_namespace=network_namespace,
        pod_range=pod_range,
        service_range=service_range,
        link_range=link_range,
        proxy=proxy,
    )
    try:
        join(options)
    except NetworkError as error:
        _end(error)


def _end(error: Exception) -> NoReturn:
    typer.secho(f"error: {error}", err=True, fg="red")
    raise typer.Exit(1) from None


def main() -> None:
    app()
