"""How many replicas the traffic asks for: up at once, down only when a whole stable window agrees."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from mizzen_operator.plan import Recommendation

STABLE_WINDOW = timedelta(seconds=60)

History = tuple[Recommendation, ...]


def scale(
    history: History, present: int, in_flight: float | None, bounds: tuple[int, int], target: int, now: datetime
) -> tuple[int, History]:
    """Replicas to want now, and the history to hand in next time.

    `in_flight` is the sum of queued and running requests, None where pods did not tell: then nothing changes, because
    a silent pod may well be the busiest. An empty history counts as one that wanted `present` until now, so a
    restarted operator takes nothing away at once.
    """
    least, most = bounds
    if in_flight is None:
        return _clamp(present, least, most), history
    kept = tuple(r for r in history if now - r.at < STABLE_WINDOW) or (Recommendation(now, present),)
    wanted = _clamp(math.ceil(in_flight / target), least, most)
    kept = (*kept, Recommendation(now, wanted))
    return _clamp(max(r.replicas for r in kept), least, most), kept


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
