"""Ray as the driver pod sees it: start a head with no CPUs of its own, then wait for worker pods to join."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator

from mizzen.errors import ClusterError
from mizzen.workload.progress import ProgressBoard
from mizzen_api import contract

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 * 1024 * 1024  # results and functions only; Ray refuses less than 75 MiB

# What a job of Ray does not need, and what it would cost: seconds of start-up on each node.
LEAN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "false",
    "RAY_METRICS_EXPORT_PORT": "0",
    "RAY_prestart_worker_first_driver": "false",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A lost node is noticed after about ten seconds, not after thirty or sixty.
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
}


def lean_environment() -> None:
    """Settings for this process and its children; what the pod's environment says already wins."""
    for name, value in LEAN.items():
        os.environ.setdefault(name, value)
    if os.environ.get(contract.ENV_POD_IP, "127.").startswith("127."):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


@contextlib.contextmanager
def ray_head(ip: str, board: ProgressBoard) -> Iterator[None]:
    """A Ray head in this pod, with this process as its driver, for as long as the context lasts."""
    lean_environment()
    port = contract.PORT_RAY_GCS
    os.environ["RAY_GCS_SERVER_PORT"] = str(port)
    started = time.monotonic()
    handler = signal.getsignal(signal.SIGTERM)
    import ray

    from mizzen.workload.ray_node import start_lean_head

    node = start_lean_head(ip, port, OBJECT_STORE_BYTES)
    try:
        ray.init(address=f"{ip}:{port}", _node_ip_address=ip, log_to_driver=True, logging_level=logging.WARNING)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has set its own, which ends the process at once
        board.ray_address = f"{ip}:{port}"
        log.info("ray head at %s:%d after %.1f s", ip, port, time.monotonic() - started)
        yield
    finally:
        board.ray_address = None
        ray.shutdown()
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def wait_for_workers(wanted: int, least: int, patience: float = 20.0, limit: float = 1800.0) -> int:
    """Wait until `wanted` nodes offer CPUs; after `patience` seconds, `least` will do. Returns how many there are."""
    import ray

    started = time.monotonic()
    told = -1
    while True:
        here = sum(1 for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
        waited = time.monotonic() - started
        if here != told:
            log.info("%d of %d workers joined after %.1f s", here, wanted, waited)
            told = here
        if here >= wanted or (here >= least and waited > patience):
            return here
        if waited > limit:
            raise ClusterError(
                f"{here} of at least {least} workers joined within {limit:.0f} s: see the pods of the workers' Job"
            )
        time.sleep(0.1)
