"""metrics.k8s.io: what nodes and pods use, collected from the kubelets as a metrics server does."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from mizzen_local.api import status
from mizzen_local.api.kubelets import Kubelets
from mizzen_local.api.machinery import Machinery
from mizzen_local.api.reads import Selection
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.scrapes import Rate, Scrape, Scrapes, parse
from mizzen_local.client import ApiError, Object
from mizzen_local.objects import quantity, rfc3339

if TYPE_CHECKING:
    from mizzen_local.api.app import Call
    from mizzen_local.api.request import Target

GROUP = "metrics.k8s.io"
RESOLUTION = 15.0  # seconds between two looks, as a metrics server's default
_TIMEOUT = 10.0

log = logging.getLogger(__name__)


class Metrics:
    """Scrapes every node each `resolution` seconds, and answers lists and gets of the group."""

    def __init__(self, machinery: Machinery, kubelets: Kubelets, resolution: float = RESOLUTION) -> None:
        self._machinery, self._kubelets, self.resolution = machinery, kubelets, resolution
        self.scrapes = Scrapes(resolution)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.collect()
            except Exception:
                log.exception("the collection of metrics failed")
            await asyncio.sleep(self.resolution if self.scrapes.ready else min(1.0, self.resolution))

    async def collect(self) -> None:
        names = [entry.obj["metadata"]["name"] for entry in self._machinery.store.entries("/nodes")]
        found = await asyncio.gather(*(self._scrape(name) for name in names))
        self.scrapes.store({name: scrape for name, scrape in zip(names, found, strict=True) if scrape is not None})

    async def _scrape(self, node: str) -> Scrape | None:
        """None where the node does not answer: what is known of it is forgotten then."""
        import aiohttp

        try:
            url = f"{self._kubelets.node_base(node)}/metrics/resource"
            headers, timeout = self._kubelets.headers(), aiohttp.ClientTimeout(total=_TIMEOUT)
            tls = self._kubelets.tls(url)
            async with self._kubelets.session().get(url, headers=headers, ssl=tls, timeout=timeout) as answer:
                answer.raise_for_status()
                return parse(await answer.text())
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("metrics of node %s: %s", node, error)
            return None

    def listed(self, info: ResourceInfo, selection: Selection) -> Object:
        """The list object; what has no metrics yet is left out, as are pods that do not run."""
        if not self.scrapes.ready:
            raise unavailable()
        source = self._machinery.registry.get("", "v1", info.plural)
        assert source is not None
        matches = selection.matcher(source)
        items = [
            item
            for entry in self._machinery.store.entries(source.bucket, selection.namespace if info.namespaced else None)
            if (matches is None or matches(entry.obj)) and (item := self._item(info, entry.obj)) is not None
        ]
        return {"kind": info.list_kind, "apiVersion": info.api_version, "metadata": {}, "items": items}

    def one(self, info: ResourceInfo, namespace: str, name: str) -> Object:
        if not self.scrapes.ready:
            raise unavailable()
        entry = self._machinery.store.get(f"/{info.plural}", namespace, name)
        if entry is None:
            raise status.not_found(info.plural, "", name)
        found = self._item(info, entry.obj)
        if found is None:
            full = f"{namespace}/{name}" if info.namespaced else name
            raise status.not_found(info.kind.lower(), GROUP, full)
        return found

    def _item(self, info: ResourceInfo, obj: Object) -> Object | None:
        meta = obj["metadata"]
        head: Object = {"kind": info.kind, "apiVersion": info.api_version}
        if not info.namespaced:
            measured = self.scrapes.node(meta["name"])
            return None if measured is None else {**head, **_stamped(meta, measured), "usage": _usage(measured)}
        if (obj.get("status") or {}).get("phase") != "Running":
            return None
        containers = self.scrapes.pod((meta["namespace"], meta["name"]))
        if containers is None:
            return None
        first = min(containers.values(), key=lambda item: item.at)
        listed = [{"name": name, "usage": _usage(measured)} for name, measured in sorted(containers.items())]
        return {**head, **_stamped(meta, first), "containers": listed}


def _stamped(meta: Object, measured: Rate) -> Object:
    kept = {"name": meta["name"], "creationTimestamp": rfc3339(datetime.now(UTC))}
    if meta.get("namespace"):
        kept["namespace"] = meta["namespace"]
    if meta.get("labels"):
        kept["labels"] = meta["labels"]
    moment = rfc3339(datetime.fromtimestamp(measured.at, UTC))
    return {"metadata": kept, "timestamp": moment, "window": _duration(measured.window)}


def _duration(seconds: float) -> str:
    """As Go writes it: 1m0.25s."""
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}m{rest:.6g}s" if minutes else f"{rest:.6g}s"


def _usage(measured: Rate) -> Object:
    return {"cpu": cpu_quantity(measured.cpu), "memory": memory_quantity(measured.memory)}


def cpu_quantity(cores: float) -> str:
    """Cores as a quantity, exact to the billionth, with the largest suffix that needs no fraction."""
    amount = round(cores * 1e9)
    for suffix in ("n", "u", "m"):
        if amount == 0 or amount % 1000:
            return f"{amount}{suffix}" if amount else "0"
        amount //= 1000
    return str(amount)


def memory_quantity(amount: int) -> str:
    """Bytes as a binary quantity."""
    for suffix in ("", "Ki", "Mi", "Gi"):
        if amount == 0 or amount % 1024 or suffix == "Gi":
            return f"{amount}{suffix}" if amount else "0"
        amount //= 1024
    raise AssertionError


def unavailable() -> ApiError:
    return ApiError(503, "ServiceUnavailable", "the server is currently unable to handle the request", {})


async def serve(metrics: Metrics, call: Call, info: ResourceInfo, target: Target) -> None:
    """A request to the group: get and list are all there is."""
    if call.method not in ("GET", "HEAD"):
        raise status.method_not_allowed()
    try:
        if target.name:
            found = metrics.one(info, target.namespace, target.name)
        else:
            query = call.query
            selection = Selection(
                target.namespace or None, query.get("labelSelector", ""), query.get("fieldSelector", "")
            )
            found = metrics.listed(info, selection)
    except ApiError as error:
        if error.code != 503:
            raise
        # as the aggregator says it: without a Retry-After, or clients would wait in silence
        await call.reply(503, b"service unavailable\n", [(b"content-type", b"text/plain; charset=utf-8")])
        return
    if call.form.kind == "Table":
        items = [found] if target.name else found["items"]
        found = _table(items, call.form.version, call.query.get("includeObject", "Metadata"))
    await call.reply(200, orjson.dumps(found))


def _table(items: list[Object], version: str, include: str) -> Object:
    """The columns of a metrics server, for `kubectl get pods.metrics.k8s.io`."""
    columns = [
        {"name": "Name", "type": "string", "format": "name", "description": "Name of the resource", "priority": 0},
        *(
            {"name": name, "type": "string", "format": "quantity", "description": "", "priority": 0}
            for name in ("cpu", "memory")
        ),
        {"name": "Window", "type": "string", "format": "duration", "description": "", "priority": 0},
    ]
    rows = []
    for item in items:
        parts = [entry["usage"] for entry in item.get("containers") or [item]]
        cpu = cpu_quantity(sum(quantity(part["cpu"]) for part in parts))
        memory = memory_quantity(int(sum(quantity(part["memory"]) for part in parts)))
        row: Object = {"cells": [item["metadata"]["name"], cpu, memory, item["window"]]}
        if include == "Object":
            row["object"] = item
        elif include != "None":
            partial = {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}"}
            row["object"] = {**partial, "metadata": item["metadata"]}
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows,
    }
