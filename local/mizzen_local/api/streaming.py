"""Watches over HTTP: one JSON document a line, bookmarks, and an end that tells the client to come back."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import orjson

from mizzen_local.api import render, request, verbs
from mizzen_local.api.registry import ResourceInfo
from mizzen_local.api.request import Target
from mizzen_local.api.status import to_status
from mizzen_local.api.watching import Change, Watch
from mizzen_local.client import ApiError, Object

if TYPE_CHECKING:
    from mizzen_local.api.app import App, Call

_BOOKMARK_EVERY = 30.0


async def watch(app: App, call: Call, info: ResourceInfo, target: Target) -> None:
    """Serve a watch until its timeout, the client's leaving or the server's end."""
    query = call.query
    send_initial = request.is_true(query, "sendInitialEvents") if "sendInitialEvents" in query else None
    bookmarks = request.is_true(query, "allowWatchBookmarks")
    timeout = float(query.get("timeoutSeconds") or random.uniform(1800, 3600))  # noqa: S311
    selection = verbs.selection_of(query, target)
    headers = [(b"content-type", _media(call)), (b"cache-control", b"no-cache, private")]
    try:
        subscription = Watch(app.machinery, info, selection, query.get("resourceVersion", ""), send_initial)
    except ApiError as error:
        if error.code != 410:
            raise
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
        line = orjson.dumps({"type": "ERROR", "object": to_status(error)}) + b"\n"
        await call.send({"type": "http.response.body", "body": line})
        return
    with subscription:
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
        # the empty chunk makes the headers leave now: clients wait for them before the first event
        await call.send({"type": "http.response.body", "body": b"", "more_body": True})
        pump = asyncio.ensure_future(_pump(app, call, info, subscription, bookmarks, time.monotonic() + timeout))
        gone = asyncio.ensure_future(_gone(call))
        stopping = asyncio.ensure_future(app.stopping.wait())
        tasks = {pump, gone, stopping}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await call.send({"type": "http.response.body", "body": b""})


async def _gone(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass


async def _pump(
    app: App, call: Call, info: ResourceInfo, subscription: Watch, bookmarks: bool, deadline: float
) -> None:
    first = True  # a table's column definitions are sent once
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        changes = await subscription.next(min(left, _BOOKMARK_EVERY))
        if changes is None:
            return
        if not changes and bookmarks:
            changes = [Change("BOOKMARK", None, app.machinery.store.rv)]
        parts = []
        for change in changes:
            parts.append(_line(call, info, change, first))
            first = False
        if parts:
            await call.send({"type": "http.response.body", "body": b"".join(parts), "more_body": True})


def _line(call: Call, info: ResourceInfo, change: Change, first: bool) -> bytes:
    if change.entry is None:
        meta: Object = {"resourceVersion": str(change.rv), "creationTimestamp": None}
        if change.initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        found: Object = {"kind": info.kind, "apiVersion": info.api_version, "metadata": meta}
        if call.form.kind == "Table":
            found = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "columnDefinitions": [],
                "rows": [],
            }
            row = {
                "cells": [],
                "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta},
            }
            found["rows"] = [row]
        elif call.form.kind == "PartialObjectMetadata":
            found = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return orjson.dumps({"type": "BOOKMARK", "object": found}) + b"\n"
    body = render.one(info, change.entry, call.form, call.query)
    if call.form.kind == "Table" and not first:
        table = orjson.loads(body)
        table["columnDefinitions"] = []
        body = orjson.dumps(table)
    return b"".join((b'{"type":"', change.type.encode(), b'","object":', body, b"}\n"))


def _media(call: Call) -> bytes:
    if call.form.kind:
        return f"application/json;as={call.form.kind};g=meta.k8s.io;v={call.form.version};stream=watch".encode()
    return b"application/json"
