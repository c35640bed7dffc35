"""Writes Events, so that `kubectl describe` tells what the controllers and the node agent did and why."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from mizzen_local.client import ApiError, Client, Object
from mizzen_local.objects import rfc3339, stable_hash, utc_now
from mizzen_local.resources import EVENTS

_log = logging.getLogger(__name__)
_REMEMBERED = 4096


class Recorder:
    """Events are sent in the background; one that repeats only counts up."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client, self._component, self._host = client, component, host
        self._counts: dict[str, int] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def event(
        self,
        about: Object,
        kind: str,
        reason: str,
        message: str,
        *,
        type: Literal["Normal", "Warning"] = "Normal",
        api_version: str = "v1",
        field_path: str = "",
    ) -> None:
        task = asyncio.create_task(self._send(about, kind, reason, message[:1024], type, api_version, field_path))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(
        self, about: Object, kind: str, reason: str, message: str, type_: str, api_version: str, field_path: str
    ) -> None:
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        involved = {
            "apiVersion": api_version,
            "kind": kind,
            "name": meta["name"],
            "uid": meta.get("uid", ""),
            **({"namespace": meta["namespace"]} if meta.get("namespace") else {}),
            **({"fieldPath": field_path} if field_path else {}),
        }
        name = f"{meta['name'][:200]}.{stable_hash([involved, reason, message, self._component], 16)}"
        now = rfc3339(utc_now())
        seen = self._counts.get(name, 0)
        if len(self._counts) > _REMEMBERED:
            self._counts.clear()
        self._counts[name] = seen + 1
        try:
            if seen:
                try:
                    await self._client.patch(EVENTS, name, {"count": seen + 1, "lastTimestamp": now}, namespace)
                    return
                except ApiError as error:
                    if error.code != 404:
                        raise
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": type_,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": self._component, **({"host": self._host} if self._host else {})},
                "reportingComponent": self._component,
                "reportingInstance": self._host,
            }
            try:
                await self._client.create(EVENTS, event, namespace)
            except ApiError as error:
                if error.code != 409:
                    raise
                await self._client.patch(EVENTS, name, {"lastTimestamp": now}, namespace)
        except ApiError as error:  # an event is a courtesy: its loss must not disturb who reports it
            _log.debug("event %s lost: %s", reason, error)
