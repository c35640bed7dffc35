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

from mizzen_local.agent.node import NodeAgent, NodeOptions
from mizzen_local.controllers.manager import run_controllers
from mizzen_local.http_client import HttpClient
from mizzen_local.objects import quantity
from mizzen_local.state import State

_log = logging.getLogger("mizzen_local.daemon")
_GRACE = 10.0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--node", default="local")
    parser.add_argument("--pod-range", default="127.30.0.0/16")
    parser.add_argument("--service-range", default="127.20.0.0/16")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--cpus", type=float)
    parser.add_argument("--memory")
    parser.add_argument("--extended", action="append", default=[], help="an extended resource, as name=amount")
    return parser.parse_args(argv)


def node_options(options: argparse.Namespace, state: State) -> NodeOptions:
    extended = dict(entry.split("=", 1) for entry in options.extended)
    return NodeOptions(
        name=options.node,
        state=state.node,
        pod_range=options.pod_range,
        cpus=options.cpus,
        memory_bytes=int(quantity(options.memory)) if options.memory else None,
        images=options.images,
        extended=extended,
        token=kubelet_token(state),
    )


def kubelet_token(state: State) -> str:
    """What the API server shows to the node agent; made once, readable by the owner only."""
    path = state.root / "kubelet-token"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text().strip()
