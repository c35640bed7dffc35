"""WebSockets as Kubernetes clients open them: with a subprotocol whose name is no token."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class KubernetesWebSocketProtocol(WebSocketsSansIOProtocol):
    """Leaves the choice of the subprotocol to the application.

    `SPDY/3.1+portforward.k8s.io` has a slash, which the parser of the websockets package refuses.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn.process_subprotocol = lambda _: None  # type: ignore[method-assign, assignment]
