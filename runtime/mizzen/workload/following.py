"""Edits of a running job that need no restart: how many workers there may be, read again from the mounted config.json.

The operator writes the ConfigMap, the kubelet renews the mounted file; the driver then tells its group.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mizzen.errors import SystemError_
from mizzen.workload import config as configuration

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
Scaling = tuple[int, int]  # minWorkers, maxWorkers


@contextmanager
def following_scaling(
    known: Scaling, changed: Callable[[int, int], None], poll_seconds: float = POLL_SECONDS
) -> Iterator[None]:
    """Call `changed(least, most)` from a thread whenever the two are others than those `known`, and so on."""
    stop = threading.Event()
    given = (known, changed, poll_seconds, stop)
    thread = threading.Thread(target=_follow, args=given, name="follow-scaling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(known: Scaling, changed: Callable[[int, int], None], poll_seconds: float, stop: threading.Event) -> None:
    while not stop.wait(poll_seconds):
        now = _scaling()
        if now is None or now == known:
            continue
        log.info("between %d and %d workers from now on", *now)
        known = now
        changed(*now)


def _scaling() -> Scaling | None:
    """None while the file cannot be read: it is replaced as a whole, yet a disk may be full."""
    try:
        spec = configuration.load().training_spec
    except SystemError_ as error:
        log.warning("%s", error)
        return None
    return (spec.scaling.min_workers, spec.scaling.max_workers) if spec else None
