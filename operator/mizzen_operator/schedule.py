"""Cron schedules: from an expression and a moment to the next moment."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}


def next_time(expression: str, time_zone: str, after: datetime) -> datetime:
    """The first moment after `after` that the expression names, in UTC. ValueError says what is wrong with it."""
    from cronsim import CronSim, CronSimError

    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{time_zone!r} is not a time zone; write it as Europe/Berlin") from error
    try:
        found: datetime = next(CronSim(_MACROS.get(expression, expression), after.astimezone(zone)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"{expression!r} names no time: {error or 'it never comes'}") from error
    return found.astimezone(UTC)
