"""Stored entries in the form that the client accepts: plain, as a table, or their metadata alone."""

from __future__ import annotations

import orjson

from mizzen_local.api import reads, table
from mizzen_local.api.reads import Page
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.request import Form
from mizzen_local.api.store import Entry
from mizzen_local.client import Object


def one(info: ResourceInfo, entry: Entry, form: Form, query: dict[str, str]) -> bytes:
    if form.kind == "Table":
        return orjson.dumps(table.build(info, [entry.obj], form.version, query, str(entry.rv)))
    if form.kind == "PartialObjectMetadata":
        return orjson.dumps(_metadata(entry.obj, form.version))
    return entry.raw


def listed(info: ResourceInfo, page: Page, form: Form, query: dict[str, str]) -> bytes:
    if form.kind not in ("Table", "PartialObjectMetadata"):
        return reads.list_bytes(info, page)
    meta: Object = {"resourceVersion": str(page.rv)}
    if page.token:
        meta["continue"] = page.token
    if page.remaining:
        meta["remainingItemCount"] = page.remaining
    if form.kind == "Table":
        found = table.build(info, [entry.obj for entry in page.entries], form.version, query, str(page.rv))
        return orjson.dumps({**found, "metadata": meta})
    items = [_metadata(entry.obj, form.version) for entry in page.entries]
    api_version = f"meta.k8s.io/{form.version}"
    return orjson.dumps(
        {"kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": meta, "items": items}
    )


def _metadata(obj: Object, version: str) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}
