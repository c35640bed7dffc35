"""What only the node knows: logs and ports of pods, fetched from the kubelet that the Node object announces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mizzen_local.api import status
from mizzen_local.api.request import Target

if TYPE_CHECKING:
    from mizzen_local.api.app import App, Call


async def http(app: App, call: Call, target: Target) -> None:
    raise status.method_not_allowed()


async def websocket(app: App, scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1008})
