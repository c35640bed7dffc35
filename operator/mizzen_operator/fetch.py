"""Pulls what workload pods tell about themselves; they carry no API token and push nothing."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from mizzen_api.contract import (
    METRIC_IN_FLIGHT,
    METRIC_REQUESTS,
    PATH_METRICS,
    PATH_PROGRESS,
    PORT_HTTP,
    PORT_PROGRESS,
)
from mizzen_api.workload import Progress
from mizzen_operator.observed import Traffic

_TIMEOUT = aiohttp.ClientTimeout(total=2)
_LIMIT = 2**20  # a pod is not trusted to be brief


class HttpWorkloads:
    """interfaces.Workloads over HTTP."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def progress(self, ip: str) -> Progress | None:
        text = await self._get(f"http://{ip}:{PORT_PROGRESS}{PATH_PROGRESS}")
        return None if text is None else Progress.from_termination_message(text)

    async def traffic(self, ip: str) -> Traffic | None:
        text = await self._get(f"http://{ip}:{PORT_HTTP}{PATH_METRICS}")
        return None if text is None else parse_traffic(text)

    async def _get(self, url: str) -> str | None:
        try:
            async with self._session.get(url, timeout=_TIMEOUT, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                return (await response.content.read(_LIMIT)).decode(errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None


def parse_traffic(text: str) -> Traffic | None:
    """From the Prometheus text format. None where it is not that."""
    sums = {METRIC_REQUESTS: 0.0, METRIC_IN_FLIGHT: 0.0}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in sums:
                    sums[sample.name] += sample.value
    except ValueError:
        return None
    return Traffic(requests=int(sums[METRIC_REQUESTS]), in_flight=sums[METRIC_IN_FLIGHT])
