"""`python -m mizzen_local.api`: the API server alone, for tests and for looking at it with kubectl."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from mizzen_local.api.server import SERVICE_RANGE, StartError, running


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(arguments.state, arguments.host, arguments.port, arguments.service_range) as server:
        print(f"serving {server.url}\nexport KUBECONFIG={server.kubeconfig}", flush=True)
        waiting = asyncio.ensure_future(stop.wait())
        await asyncio.wait({waiting, server.stopped}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mizzen_local.api", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="directory for the database, keys and kubeconfig")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6443, help="0 picks a free port")
    parser.add_argument("--service-range", default=SERVICE_RANGE, help="addresses of Services (CIDR)")
    arguments = parser.parse_args()
    try:
        import uvloop

        uvloop.run(_run(arguments))
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
