"""The head's Ray processes, without the dashboard, the autoscaler and the client server that a job does not need.

`ray start --head` has no option to leave out the API server, which costs seconds and 135 MB; hence this one use of
Ray's own `Node`, of the version that pyproject.toml pins.
"""

from __future__ import annotations

from typing import Any

from ray._private.node import Node
from ray._private.parameter import RayParams


class LeanHead(Node):  # type: ignore[misc]  # Ray ships no types
    """A head node without an API server."""

    def start_api_server(self, **_: Any) -> None:
        """Nothing to start: progress is served by Mizzen, metrics too."""


def start_lean_head(ip: str, port: int, object_store_bytes: int) -> LeanHead:
    """GCS, raylet and their agents; they die with this process."""
    params = RayParams(
        node_ip_address=ip,
        gcs_server_port=port,
        num_cpus=0,
        num_gpus=0,
        object_store_memory=object_store_bytes,
        include_dashboard=False,
        include_log_monitor=True,
        no_monitor=True,
        dashboard_agent_listen_port=0,
        metrics_export_port=0,
    )
    return LeanHead(params, head=True, shutdown_at_exit=True, spawn_reaper=True)
