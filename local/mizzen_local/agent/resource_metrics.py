"""The kubelet's `/metrics/resource`: what a metrics server scrapes of a node, in the Prometheus text format.

Names, labels and units are those of the real kubelet, so that any metrics server can read this node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from mizzen_local.agent.usage import Meter, Usage, machine
from mizzen_local.agent.worker import PodWorker
from mizzen_local.objects import meta

_CPU = "Cumulative cpu time consumed by the {} in core-seconds"
_MEMORY = "Current working set of the {} in bytes"


@dataclass(frozen=True)
class Measured:
    """One running container at one moment; times in seconds since the epoch."""

    namespace: str
    pod: str
    container: str
    started_at: float
    at: float
    usage: Usage


class Meters:
    """Keeps a meter for each running container between scrapes."""

    def __init__(self) -> None:
        self._meters: dict[tuple[str, str, int], Meter] = {}

    def scrape(self, workers: Iterable[PodWorker]) -> str:
        """Measure everything and put it into words; reads /proc, so call it from a thread."""
        meters: dict[tuple[str, str, int], Meter] = {}
        found: list[Measured] = []
        for worker in workers:
            names = meta(worker.pod)
            for name, container in list(worker.containers.items()):
                init = container.init
                if not init:
                    continue
                key = worker.uid, name, container.attempt
                meter = meters[key] = self._meters.get(key) or Meter(init)
                usage = meter.read()
                if usage is not None:
                    where = names.get("namespace", ""), names["name"], name
                    found.append(Measured(*where, container.started_at, time.time(), usage))
        self._meters = meters
        return render(found, machine(), time.time())


def render(containers: list[Measured], node: Usage, now: float) -> str:
    """The text of one scrape; each sample carries its time in milliseconds."""
    pods: dict[tuple[str, str], Usage] = {}
    for item in containers:
        before = pods.get((item.namespace, item.pod), Usage(0.0, 0))
        total = Usage(before.cpu + item.usage.cpu, before.memory + item.usage.memory)
        pods[item.namespace, item.pod] = total
    stamp = round(now * 1000)
    lines: list[str] = []

    def family(name: str, kind: str, text: str, samples: Iterable[str]) -> None:
        lines.append(f"# HELP {name} [STABLE] {text}")
        lines.append(f"# TYPE {name} {kind}")
        lines.extend(f"{name}{sample}" for sample in samples)

    def each(value: str) -> list[str]:
        return [
            f'{{container="{m.container}",namespace="{m.namespace}",pod="{m.pod}"}}'
            f" {_value(m, value)} {round(m.at * 1000)}"
            for m in containers
        ]

    def whole(value: str) -> list[str]:
        return [
            f'{{namespace="{namespace}",pod="{name}"}} {getattr(usage, value)} {stamp}'
            for (namespace, name), usage in pods.items()
        ]

    family("container_cpu_usage_seconds_total", "counter", _CPU.format("container"), each("cpu"))
    family("container_memory_working_set_bytes", "gauge", _MEMORY.format("container"), each("memory"))
    text = "Start time of the container since unix epoch in seconds"
    family("container_start_time_seconds", "gauge", text, each("started_at"))
    family("node_cpu_usage_seconds_total", "counter", _CPU.format("node"), [f" {node.cpu} {stamp}"])
    family("node_memory_working_set_bytes", "gauge", _MEMORY.format("node"), [f" {node.memory} {stamp}"])
    family("pod_cpu_usage_seconds_total", "counter", _CPU.format("pod"), whole("cpu"))
    family("pod_memory_working_set_bytes", "gauge", _MEMORY.format("pod"), whole("memory"))
    text = "1 if there was an error while getting container metrics, 0 otherwise"
    family("resource_scrape_error", "gauge", text, [" 0"])
    return "\n".join(lines) + "\n"


def _value(measured: Measured, name: str) -> float | int:
    found: float | int = measured.started_at if name == "started_at" else getattr(measured.usage, name)
    return found
