"""Small pictures as inline SVG: drawn in the page's own colours, so that they follow its light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from mizzen.data.report.view import Bins, FeatureDrift, Unit
from mizzen.data.report.wording import number, percent, quantity

WIDTH, HEIGHT = 240, 56
MOST_BARS = 40


def histogram(bins: Bins, unit: Unit = Unit.NUMBER, marks: Sequence[float] = (), label: str = "") -> Markup:
    """Bars with a base line; `marks` are values that a line stands at, such as the median."""
    edges, counts = _coarser(bins)
    low, high = edges[0], edges[-1]
    most = max(counts, default=0) or 1
    bars = []
    for start, stop, count in zip(edges, edges[1:], counts, strict=False):
        x, x2 = (WIDTH * _share(edge, low, high) for edge in (start, stop))
        tall = max(HEIGHT * count / most, 1.0 if count else 0.0)
        bars.append(
            f'<rect x="{x:.1f}" y="{HEIGHT - tall:.1f}" width="{max(x2 - x - 0.8, 0.6):.1f}" height="{tall:.1f}">'
            f"<title>{escape(quantity(start, unit))} to {escape(quantity(stop, unit))}: {number(count)}</title></rect>"
        )
    lines = [
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}"/>'
        for x in (WIDTH * _share(mark, low, high) for mark in marks if low <= mark <= high)
    ]
    base = f'<line class="base" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
    return _svg(WIDTH, HEIGHT, label, [*bars, *lines, base])


def bar(share: float, kind: str = "", label: str = "") -> Markup:
    """A share of a whole, as a filled line."""
    wide = 100 * min(max(share, 0.0), 1.0)
    wide = max(wide, 1.0) if share > 0 else 0.0
    parts = [
        '<rect class="rest" width="100" height="6" rx="1"/>',
        f'<rect class="{kind}" width="{wide:.1f}" height="6" rx="1"/>',
    ]
    return _svg(100, 6, label or percent(share), parts, "bar")


def stack(shares: Sequence[tuple[str, float]], label: str) -> Markup:
    """Parts of a whole side by side, each with its name as a title."""
    parts, x = [], 0.0
    for place, (name, share) in enumerate(shares):
        wide = 600 * share
        if wide > 0:
            parts.append(
                f'<rect class="part{place % 6}" x="{x:.1f}" width="{max(wide - 1.5, 0.5):.1f}" height="10">'
                f"<title>{escape(name)}: {percent(share)}</title></rect>"
            )
        x += wide
    return _svg(600, 10, label, parts, "stack")


def gauge(feature: FeatureDrift) -> Markup:
    """How far a column has drifted, on a scale that ends at twice its threshold, which a line marks."""
    value = feature.statistic or 0.0
    threshold = feature.threshold or 0.0
    end = max(2 * threshold, value, 1e-12)
    at = 120 * value / end
    line = 120 * threshold / end
    parts = [
        '<rect class="rest" y="5" width="120" height="2"/>',
        f'<line class="mark" x1="{line:.1f}" x2="{line:.1f}" y1="0" y2="12"/>' if threshold else "",
        f'<circle class="{"bad" if feature.drifted else "good"}" cx="{min(max(at, 4), 116):.1f}" cy="6" r="3.5"/>',
    ]
    return _svg(120, 12, f"{number(value)}, threshold {number(threshold)}", parts, "gauge")


def _coarser(bins: Bins) -> tuple[list[float], list[int]]:
    """Neighbouring bins added up until there are few enough to draw."""
    by = max(1, -(-len(bins.counts) // MOST_BARS))
    counts = [sum(bins.counts[start : start + by]) for start in range(0, len(bins.counts), by)]
    edges = [*bins.edges[:-1][::by], bins.edges[-1]]
    return edges, counts


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _svg(width: int, height: int, label: str, parts: Sequence[str], kind: str = "histogram") -> Markup:
    """Every text in `parts` and `label` is escaped here or where it was put in."""
    named = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    head = f'<svg class="{kind}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" {named}>'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704
