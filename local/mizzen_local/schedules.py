"""Cron schedules: five fields or a macro, and when they come due. Pure; shared by the API server and the controller.

Fields, names, steps and errors are those of robfig/cron, which the real CronJob controller reads schedules with.
"""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_NO_NAMES: dict[str, int] = {}
_BOUNDS = ((0, 59, _NO_NAMES), (0, 23, _NO_NAMES), (1, 31, _NO_NAMES), (1, 12, _MONTHS), (0, 6, _DAYS))
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_YEARS = 5  # a schedule that is not due by then never is


class ScheduleError(ValueError):
    """What is wrong with a schedule, in the words of its parser."""


@dataclass(frozen=True)
class Every:
    """`@every 1h30m`: a constant delay in whole seconds."""

    delay: timedelta

    def next(self, after: datetime) -> datetime:
        return after.replace(microsecond=0) + self.delay


@dataclass(frozen=True)
class Schedule:
    """Minutes, hours, days of the month, months and days of the week that match, Sunday being 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both_days: bool  # a star in either of the two fields of days: both must match then, else one is enough
    zone: tzinfo

    def next(self, after: datetime) -> datetime | None:
        """The first time after that one, or None if there is none within five years."""
        moment = after.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        limit = moment.year + _YEARS
        while moment.year <= limit:
            here = moment.astimezone(self.zone)
            if here.month not in self.months:
                year, month = (here.year + 1, 1) if here.month == 12 else (here.year, here.month + 1)
                moment = datetime(year, month, 1, tzinfo=self.zone).astimezone(UTC)
            elif not self._day_matches(here):
                following = here.date() + timedelta(days=1)
                start = datetime(following.year, following.month, following.day, tzinfo=self.zone)
                moment = start.astimezone(UTC)
            elif here.hour not in self.hours:
                moment += timedelta(minutes=60 - here.minute)
            elif here.minute not in self.minutes:
                moment += timedelta(minutes=1)
            else:
                return moment
        return None

    def _day_matches(self, here: datetime) -> bool:
        of_month, of_week = here.day in self.days, here.isoweekday() % 7 in self.weekdays
        return (of_month and of_week) if self.both_days else (of_month or of_week)


def zone_of(name: str | None) -> tzinfo:
    """A time zone by its name; UTC without one."""
    if not name:
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleError(f"unknown time zone {name}") from None


def parse(text: str, zone: tzinfo = UTC) -> Schedule | Every:
    """Raises ScheduleError."""
    if not text:
        raise ScheduleError("empty spec string")
    if text.startswith("@every "):
        return Every(_duration(text))
    if text.startswith("@") and text not in _MACROS:
        raise ScheduleError(f"unrecognized descriptor: {text}")
    fields = _MACROS.get(text, text).split()
    if len(fields) != len(_BOUNDS):
        listed = " ".join(fields)
        raise ScheduleError(f"expected exactly 5 fields, found {len(fields)}: [{listed}]")
    (minutes, _), (hours, _), (days, all_days), (months, _), (weekdays, all_weekdays) = (
        _field(field, *bounds) for field, bounds in zip(fields, _BOUNDS, strict=True)
    )
    return Schedule(minutes, hours, days, months, weekdays, all_days or all_weekdays, zone)


def _field(text: str, low: int, high: int, names: dict[str, int]) -> tuple[frozenset[int], bool]:
    """The numbers that a field stands for, and whether it has a star."""
    found: set[int] = set()
    star = False
    for part in filter(None, text.split(",")):
        numbers, starred = _range(part, low, high, names)
        found.update(numbers)
        star = star or starred
    return frozenset(found), star


def _range(text: str, low: int, high: int, names: dict[str, int]) -> tuple[range, bool]:
    span, *steps = text.split("/")
    first, *last = span.split("-")
    starred = first in ("*", "?")
    if starred:
        start, end = low, high
    else:
        if len(last) > 1:
            raise ScheduleError(f"too many hyphens: {text}")
        start = _number(first, names)
        end = _number(last[0], names) if last else start
    if len(steps) > 1:
        raise ScheduleError(f"too many slashes: {text}")
    step = _number(steps[0], {}) if steps else 1
    if steps and not last:
        end = high  # 5/15 is 5-59/15
    if start < low:
        raise ScheduleError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise ScheduleError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise ScheduleError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise ScheduleError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step), starred and step == 1


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ScheduleError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    number = int(text)
    if number < 0:
        raise ScheduleError(f"negative number ({number}) not allowed: {text}")
    return number


def _duration(text: str) -> timedelta:
    given = text.removeprefix("@every ")
    if not re.fullmatch(rf"\+?({_DURATION.pattern})+", given):
        raise ScheduleError(f'failed to parse duration {text}: time: invalid duration "{given}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(given))
    return timedelta(seconds=max(1, int(seconds)))
