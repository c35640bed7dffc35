"""The kubelet endpoint of the node agent: logs, commands, ports and metrics, for whom the API server vouches for.

HTTPS on the port that the Node announces, with the paths of the kubelet:

    GET  /containerLogs/{namespace}/{pod}/{container}        the query of the pods/log subresource
    POST /exec/{namespace}/{pod}/{container}?command=..      SPDY, or GET with a WebSocket of v5.channel.k8s.io frames
    POST /attach/{namespace}/{pod}/{container}               the same
    POST /portForward/{namespace}/{pod}                      SPDY, or GET with a WebSocket of channels
    GET  /portForward/{namespace}/{pod}/{port}               for the embedded API server: one connection, bare bytes
    GET  /metrics/resource                                   CPU and memory of node, pods and containers
    GET  /healthz, /pods
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from mizzen_local.agent import commands, forwarding, streams
from mizzen_local.agent.callers import Callers
from mizzen_local.agent.containers import Container
from mizzen_local.agent.logs import LogQuery, printed
from mizzen_local.agent.resource_metrics import Meters
from mizzen_local.agent.streams import Wanted
from mizzen_local.agent.worker import PodWorker
from mizzen_local.objects import meta

if TYPE_CHECKING:
    from mizzen_local.agent.node import NodeAgent

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Kubelet:
    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent
        self._callers = Callers(agent.client, agent.options.name, agent.options.token)
        self._meters, self._measuring = Meters(), asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def start(self, certificate: tuple[Path, Path] | None, client_ca: bytes | None = None) -> int:
        """Serve on a free port of the node's address; answers the port. `client_ca` signs callers' certificates."""
        app = web.Application(middlewares=[self._authenticate])
        pod = "/{namespace}/{pod}"
        for method in ("GET", "POST"):
            app.router.add_route(method, f"/exec{pod}/{{container}}", self._exec)
            app.router.add_route(method, f"/attach{pod}/{{container}}", self._attach)
            app.router.add_route(method, f"/portForward{pod}", self._port_forward)
        app.router.add_get(f"/containerLogs{pod}/{{container}}", self._logs)
        app.router.add_get(f"/portForward{pod}/{{port}}", self._port_forward)
        app.router.add_get("/metrics/resource", self._resource_metrics)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/healthz", _healthz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        tls = None if certificate is None else _tls(certificate, client_ca)
        site = web.TCPSite(self._runner, self._agent.host_ip, 0, ssl_context=tls)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        return await self._callers.check(request) or await handler(request)

    def _worker(self, request: web.Request) -> PodWorker:
        wanted = (request.match_info["namespace"], request.match_info["pod"])
        for worker in self._agent.workers.values():
            if (meta(worker.pod)["namespace"], meta(worker.pod)["name"]) == wanted:
                return worker
        raise web.HTTPNotFound(text=f'pod "{wanted[1]}" does not exist')

    def _running(self, request: web.Request) -> tuple[PodWorker, Container]:
        worker, name = self._worker(request), request.match_info["container"]
        container = worker.containers.get(name)
        if container is None or not container.running:
            raise web.HTTPInternalServerError(text=f'container not found ("{name}")')
        return worker, container

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, name, pod = self._worker(request), request.match_info["container"], request.match_info["pod"]
        container = worker.containers.get(name)
        if container is None:
            return web.Response(status=400, text=f'container "{name}" is not in pod "{pod}"')
        try:
            query = LogQuery.parse(request.query)
        except ValueError as error:
            return web.Response(status=400, text=f"invalid log options: {error}")
        attempt = container.attempt - (1 if query.previous else 0)
        if attempt < 0:
            text = f'container "{name}" in pod "{pod}" is waiting to start: ContainerCreating'
            if query.previous:
                text = f'previous terminated container "{name}" in pod "{pod}" not found'
            return web.Response(status=400, text=text)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)

        def still() -> bool:
            return query.follow and container.running and container.attempt == attempt

        async with contextlib.aclosing(printed(container.attempt_folder(attempt) / "log", query, still)) as pieces:
            with contextlib.suppress(ConnectionError):  # a follower may leave
                async for data in pieces:
                    await response.write(data)
                await response.write_eof()
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        _, container = self._running(request)
        wanted, argv = Wanted.parse(request.query), request.query.getall("command", [])
        if not argv or not (wanted.stdin or wanted.stdout or wanted.stderr):
            return web.Response(status=400, text="you must specify at least 1 of stdin, stdout, stderr")
        joined = await streams.accept(request, wanted)
        return await joined.finish(await commands.execute(container, argv, joined, wanted))

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        worker, container = self._running(request)
        wanted = Wanted.parse(request.query)
        once = bool(worker.spec_of(container.name).get("stdinOnce"))
        joined = await streams.accept(request, wanted)
        return await joined.finish(await commands.attach(container, joined, wanted, once=once))

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._worker(request)
        if "port" in request.match_info:
            return await forwarding.forward_one(request, worker, int(request.match_info["port"]))
        return await forwarding.forward(request, worker)

    async def _resource_metrics(self, _: web.Request) -> web.Response:
        async with self._measuring:
            text = await asyncio.to_thread(self._meters.scrape, list(self._agent.workers.values()))
        return web.Response(text=text, content_type="text/plain", headers={"Cache-Control": "no-cache"})

    async def _pods(self, _: web.Request) -> web.Response:
        pods = [worker.pod for worker in self._agent.workers.values()]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})


def _tls(certificate: tuple[Path, Path], client_ca: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if client_ca is not None:
        context.load_verify_locations(cadata=client_ca.decode())
        context.verify_mode = ssl.CERT_OPTIONAL  # who shows none may bring a token
    return context


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok")
