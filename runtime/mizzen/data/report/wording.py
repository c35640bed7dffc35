"""Numbers as people read them: thousands apart, four digits, dates as dates."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from mizzen.data.expectations.whole import span
from mizzen.data.report.view import Unit


def number(value: float | None) -> str:
    """38,158; 0.0312; 1.24e+09; – where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value):,}".replace("-", "−")
    if 1e-3 <= abs(value) < 1e9:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        said = f"{value:,.{min(digits, 6)}f}"
        said = said.rstrip("0").rstrip(".") if "." in said else said
    else:
        said = f"{value:.3g}"
    return said.replace("-", "−")


def quantity(value: float | None, unit: Unit) -> str:
    """A value of a column in its unit."""
    if value is None or not math.isfinite(value):
        return "–"
    try:
        if unit == Unit.DATE:
            return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=value):%Y-%m-%d}"
        if unit == Unit.TIME:
            return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value):%Y-%m-%d %H:%M}"
        if unit == Unit.SPAN:
            return span(timedelta(seconds=value))
    except OverflowError:
        pass
    return number(value)


def percent(part: float) -> str:
    """12.3 %; what is above nothing never reads as 0, and what is below all never as 100."""
    if 0 < part < 0.0005:
        return "<0.1 %"
    if 0.9995 <= part < 1:
        return ">99.9 %"
    return f"{100 * part:.1f} %".replace(".0 %", " %")


def statistic(value: float | None) -> str:
    """Three places are enough to compare an effect with its threshold."""
    if value is None or not math.isfinite(value):
        return "–"
    return "<0.001" if 0 < value < 0.001 else f"{value:.3f}"


def short(fingerprint: str) -> str:
    """The first digits of a fingerprint, enough to tell versions apart."""
    return fingerprint.removeprefix("sha256:")[:12]


def ends(low: float | None, high: float | None, unit: Unit) -> tuple[str, str]:
    """Both ends of a range; times of day only where the range is short."""
    if unit == Unit.TIME and low is not None and high is not None and high - low > 3 * 86400:
        return quantity(low // 86400, Unit.DATE), quantity(high // 86400, Unit.DATE)
    return quantity(low, unit), quantity(high, unit)


def dtype(name: str) -> str:
    """A type of polars, without what is usual: Datetime for Datetime(time_unit='us', time_zone=None)."""
    zone = re.search(r"time_zone='([^']+)'", name)
    short_name = re.sub(r"^(Datetime|Duration)\(.*\)$", r"\1", name)
    return f"{short_name}, {zone[1]}" if zone else short_name
