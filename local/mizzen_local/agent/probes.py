"""Probes: ask a running container whether it has started, is ready and is alive, and tell the pod's worker."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from functools import cache

import aiohttp

from mizzen_local.agent import grpc_health
from mizzen_local.agent.containers import Container
from mizzen_local.client import Object


class Prober:
    """Probes one attempt of a container; tells `changed` of a change and `failed(kind, message, kill)` of a failure."""

    def __init__(
        self,
        container: Container,
        spec: Object,
        host: str,
        changed: Callable[[], None],
        failed: Callable[[str, str, bool], None],
    ) -> None:
        self._container, self._spec, self._host = container, spec, host
        self._changed, self._failed = changed, failed
        self.started = "startupProbe" not in spec
        self.ready = self.started and "readinessProbe" not in spec
        self._task = asyncio.create_task(self._run(), name=f"probes {container.name}") if self._any() else None

    def _any(self) -> bool:
        return any(f"{kind}Probe" in self._spec for kind in ("startup", "readiness", "liveness"))

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        if not self.started:
            await self._loop("startup", self._spec["startupProbe"])
        async with asyncio.TaskGroup() as group:
            for kind in ("readiness", "liveness"):
                if f"{kind}Probe" in self._spec:
                    group.create_task(self._loop(kind, self._spec[f"{kind}Probe"]))

    async def _loop(self, kind: str, probe: Object) -> None:
        """A startup probe ends with its first verdict, the others go on."""
        good = bad = 0
        period = max(1, probe.get("periodSeconds") or 10)
        await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
        quick = 0.1  # until the first success we look often, so that a quick start is seen quickly
        succeeded = False
        while True:
            message = await attempt(probe, self._container, self._spec, self._host)
            if message is None:
                good, bad, succeeded = good + 1, 0, True
                if good >= (probe.get("successThreshold") or 1):
                    self._passed(kind)
                    if kind == "startup":
                        return
            else:
                good = 0
                # the quick looks in between are ours: only those of the probe's own period may count as failures
                bad += quick >= period or succeeded
                threshold = bad >= (probe.get("failureThreshold") or 3)
                if kind == "readiness" and self.ready and threshold:
                    self.ready = False
                    self._changed()
                if quick >= period or succeeded:
                    self._failed(kind, message, threshold and kind != "readiness")
                if threshold and kind != "readiness":
                    return
            if succeeded or kind == "liveness":
                quick = period
            await asyncio.sleep(min(quick, period))
            quick = min(quick * 1.5, period)

    def _passed(self, kind: str) -> None:
        before = (self.started, self.ready)
        if kind == "startup":
            self.started = True
            self.ready = "readinessProbe" not in self._spec
        elif kind == "readiness":
            self.ready = True
        if before != (self.started, self.ready):
            self._changed()


def port_of(value: int | str, container: Object) -> int:
    if isinstance(value, int) or value.isdigit():
        return int(value)
    return next((int(p["containerPort"]) for p in container.get("ports") or [] if p.get("name") == value), 0)


async def attempt(probe: Object, container: Container, spec: Object, host: str) -> str | None:
    """None when the probe passes, otherwise why it does not."""
    seconds = probe.get("timeoutSeconds") or 1
    try:
        return await _ask(probe, container, spec, host, seconds)
    except TimeoutError:
        return f"no answer within {seconds:g}s"
    except aiohttp.ClientConnectorError as error:
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    except (OSError, aiohttp.ClientError) as error:
        return str(error) or type(error).__name__


async def _ask(probe: Object, container: Container, spec: Object, host: str, seconds: float) -> str | None:
    if "exec" in probe:
        code, output = await container.execute(probe["exec"]["command"], seconds)
        return None if code == 0 else output.strip() or f"command exited with code {code}"
    if "httpGet" in probe:
        return await _http(probe["httpGet"], spec, host, seconds)
    if "tcpSocket" in probe:
        target = probe["tcpSocket"]
        return await _tcp(target.get("host") or host, port_of(target["port"], spec), seconds)
    if "grpc" in probe:
        target = probe["grpc"]
        return await grpc_health.check(host, int(target["port"]), target.get("service") or "", seconds)
    return None


def http_url(target: Object, spec: Object, host: str) -> str:
    scheme = (target.get("scheme") or "HTTP").lower()
    address = f"{target.get('host') or host}:{port_of(target['port'], spec)}"
    return f"{scheme}://{address}/{(target.get('path') or '/').lstrip('/')}"


async def _http(target: Object, spec: Object, host: str, seconds: float) -> str | None:
    url = http_url(target, spec, host)
    headers = {"User-Agent": "kube-probe/1.37", **{h["name"]: h["value"] for h in target.get("httpHeaders") or []}}
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
        session.get(url, ssl=trusting() if url.startswith("https") else False, allow_redirects=False) as response,
    ):
        if response.status < 400:
            return None
        return f"HTTP probe failed with statuscode: {response.status}"


@cache
def trusting() -> ssl.SSLContext:
    """Kubelets do not check a pod's certificate either."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _tcp(host: str, port: int, seconds: float) -> str | None:
    async with asyncio.timeout(seconds):
        _, writer = await asyncio.open_connection(host, port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None
