"""Between what nodes measure and what metrics.k8s.io says: two points of each counter, and the rates between them.

Follows metrics-server: a pod has metrics once each of its containers was seen twice, or when a young one was seen
after its first ten seconds; a container that restarted between two looks has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SAMPLE = re.compile(r"^(?P<name>[a-z_]+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+) (?P<stamp>\d+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_FRESH = 10.0  # seconds: a younger container is not measured from its start

PodKey = tuple[str, str]  # (namespace, name)


@dataclass(frozen=True)
class Point:
    """One look at a counter: CPU seconds and bytes at a time; times in seconds since the epoch."""

    at: float
    cpu: float
    memory: int
    started_at: float = 0.0


@dataclass(frozen=True)
class Rate:
    """What was used between two points: CPU in cores over `window` seconds up to `at`, memory in bytes at the end."""

    at: float
    window: float
    cpu: float
    memory: int


@dataclass
class Scrape:
    """What one node said at one time."""

    node: Point | None = None
    pods: dict[PodKey, dict[str, Point]] = field(default_factory=dict)


def parse(text: str) -> Scrape:
    """The samples of a kubelet's `/metrics/resource`; those without both CPU and memory are left out."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None or not sample["name"].startswith(("container_", "node_")):
            continue
        labels = dict(_LABEL.findall(sample["labels"] or ""))
        key = labels.get("namespace", ""), labels.get("pod", ""), labels.get("container", "")
        values = found.setdefault(key, {})
        values[sample["name"].split("_", 1)[1]] = float(sample["value"])
        if sample["name"].endswith("cpu_usage_seconds_total"):
            values["at"] = int(sample["stamp"]) / 1000
    result = Scrape()
    for (namespace, pod, container), values in found.items():
        if not {"at", "cpu_usage_seconds_total", "memory_working_set_bytes"} <= values.keys():
            continue
        cpu, memory = values["cpu_usage_seconds_total"], int(values["memory_working_set_bytes"])
        point = Point(values["at"], cpu, memory, values.get("start_time_seconds", 0.0))
        if container:
            result.pods.setdefault((namespace, pod), {})[container] = point
        else:
            result.node = point
    return result


def rate(before: Point, after: Point) -> Rate | None:
    """None where no time passed, or where the counter began anew."""
    window = after.at - before.at
    if window <= 0 or after.cpu < before.cpu or after.started_at > before.at:
        return None
    return Rate(after.at, window, (after.cpu - before.cpu) / window, after.memory)


class Scrapes:
    """The last two points of everything; what a round no longer brings is forgotten."""

    def __init__(self, resolution: float) -> None:
        self._resolution = resolution
        self._nodes: dict[str, tuple[Point | None, Point]] = {}
        self._pods: dict[PodKey, dict[str, tuple[Point | None, Point]]] = {}

    def store(self, round_: dict[str, Scrape]) -> None:
        """One round over all nodes, by their names."""
        nodes: dict[str, tuple[Point | None, Point]] = {}
        pods: dict[PodKey, dict[str, tuple[Point | None, Point]]] = {}
        for name, scrape in round_.items():
            if scrape.node is not None:
                nodes[name] = self._next(self._nodes.get(name), scrape.node)
            for key, containers in scrape.pods.items():
                known = self._pods.get(key, {})
                pods[key] = {name: self._next(known.get(name), point) for name, point in containers.items()}
        self._nodes, self._pods = nodes, pods

    def _next(self, known: tuple[Point | None, Point] | None, point: Point) -> tuple[Point | None, Point]:
        if point.started_at and _FRESH <= point.at - point.started_at < self._resolution:
            return Point(point.started_at, 0.0, 0, point.started_at), point
        if known is None or point.started_at > known[1].at:
            return None, point
        return (known[1], point) if point.at > known[1].at else known

    @property
    def ready(self) -> bool:
        """Whether anything can be said yet."""
        return any(before is not None for before, _ in self._nodes.values())

    def node(self, name: str) -> Rate | None:
        before, after = self._nodes.get(name, (None, None))
        return rate(before, after) if before is not None and after is not None else None

    def pod(self, key: PodKey) -> dict[str, Rate] | None:
        """The rates of all its containers; None while one of them is missing."""
        found: dict[str, Rate] = {}
        for name, (before, after) in self._pods.get(key, {}).items():
            if before is None:
                return None
            measured = rate(before, after)
            if measured is not None:
                found[name] = measured
        return found or None
