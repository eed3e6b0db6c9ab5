"""Draws a timeline as SVG: the lag, and the replicas below it. Without scripts, and for light and dark pages.

Decided here: what is seen in a picture. It is as large as it says and loads nothing. Pure; any thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamworker.autoscaling.simulation import Moment, Timeline

    Points = Sequence[tuple[float, float]]

_WIDTH, _LEFT, _RIGHT, _TOP = 760, 78, 24, 34
_HEIGHT, _GAP, _BOTTOM = 120, 48, 34
_MOST_POINTS = 2000  # more are not seen, and a day has 5760
_STYLE = """
svg{--ink:#3d4450;--faint:#d5d9e0;--lag:#c2571a;--replicas:#2a6fc9;--asked:#8a94a6}
@media (prefers-color-scheme:dark){svg{--ink:#c5ccd6;--faint:#3a4150;--lag:#f0965a;--replicas:#6fa8f5}}
text{fill:var(--ink);font:12px system-ui,sans-serif}.title{font-weight:600}
line{stroke:var(--faint)}path{fill:none;stroke-width:1.8;stroke-linejoin:round}
.lag{stroke:var(--lag)}.replicas{stroke:var(--replicas)}
.asked{stroke:var(--asked);stroke-dasharray:3 3;stroke-width:1.2}
.away{fill:var(--lag);opacity:.13}.threshold{stroke:var(--lag);stroke-dasharray:2 4}
"""


@dataclass(frozen=True, slots=True)
class _Panel:
    """A part of the picture: turns seconds and amounts into places."""

    top: float
    seconds: float
    most: float

    def x(self, at_s: float) -> float:
        return _LEFT + at_s / self.seconds * (_WIDTH - _LEFT - _RIGHT)

    def y(self, amount: float) -> float:
        return self.top + _HEIGHT * (1 - amount / self.most)


def picture(timeline: Timeline, title: str, threshold: float | None = None) -> str:
    """The whole, with a line at the lag of `threshold` if there is one."""
    moments = timeline.moments
    seconds = max(1.0, moments[-1].at_s)
    lags = [(one.at_s, one.lag) for one in moments]
    asked = [(one.at_s, float(one.proposal)) for one in moments if one.proposal is not None]
    counts = [(one.at_s, float(one.replicas)) for one in moments]
    most_lag = _round_up(max([threshold or 1, *(lag for _, lag in lags if lag is not None)]))
    # What is asked for may be far more than there may be; it is cut off, so that the replicas can be seen.
    most_count = _round_up(1.25 * max(2.0, *(count for _, count in counts)))
    upper = _Panel(_TOP + 20, seconds, most_lag)
    lower = _Panel(upper.top + _HEIGHT + _GAP, seconds, most_count)
    parts = [
        _text(_LEFT, 18, title, "title"),
        *_away(moments, upper, lower),
        *_frame(upper, "lag, records"),
        *_threshold(upper, threshold),
        *_curves(upper, lags, "lag"),
        *_frame(lower, "replicas; dashed: what the metrics ask for"),
        *_stairs(lower, [(at_s, min(count, most_count)) for at_s, count in asked], "asked"),
        *_stairs(lower, counts, "replicas"),
        *_times(lower),
    ]
    height = lower.top + _HEIGHT + _BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'


def _frame(panel: _Panel, title: str) -> Iterator[str]:
    yield _text(_LEFT, panel.top - 8, title)
    for amount in (0.0, panel.most / 2, panel.most):
        y = panel.y(amount)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        yield _text(_LEFT - 8, y + 4, f"{amount:,.0f}" if amount == int(amount) else f"{amount:,.1f}", anchor="end")


def _threshold(panel: _Panel, threshold: float | None) -> Iterator[str]:
    if threshold is not None:
        y = panel.y(threshold)
        yield f'<path class="threshold" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'


def _curves(panel: _Panel, points: Sequence[tuple[float, float | None]], kind: str) -> Iterator[str]:
    """Lines through the points, with a gap where there is none."""
    stretch: list[tuple[float, float]] = []
    for at_s, amount in [*points, (0.0, None)]:
        if amount is not None:
            stretch.append((at_s, amount))
        elif stretch:
            places = " ".join(f"{panel.x(x):.1f},{panel.y(y):.1f}" for x, y in _thinned(stretch))
            yield f'<path class="{kind}" d="M{places}"/>'
            stretch = []


def _stairs(panel: _Panel, points: Points, kind: str) -> Iterator[str]:
    """A line that stays until the next point, as replicas do."""
    if not points:
        return
    places = [f"M{panel.x(points[0][0]):.1f},{panel.y(points[0][1]):.1f}"]
    for (_, before), (at_s, after) in pairwise(points):
        if after != before:
            places.append(f"H{panel.x(at_s):.1f}V{panel.y(after):.1f}")
    places.append(f"H{panel.x(points[-1][0]):.1f}")
    yield f'<path class="{kind}" d="{"".join(places)}"/>'


def _thinned(points: Points) -> Points:
    """So many that all can be seen: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= _MOST_POINTS:
        return points
    size = math.ceil(2 * len(points) / _MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=_amount), max(stretch, key=_amount)})
    return kept


def _amount(point: tuple[float, float]) -> float:
    return point[1]


def _away(moments: Sequence[Moment], upper: _Panel, lower: _Panel) -> Iterator[str]:
    """The times at which a sink's breaker was open, behind all."""
    since_s: float | None = None
    for one in [*moments, None]:
        if one is not None and one.sink_open and since_s is None:
            since_s = one.at_s
        elif since_s is not None and (one is None or not one.sink_open):
            x, until = upper.x(since_s), upper.x(moments[-1].at_s if one is None else one.at_s)
            bottom = lower.top + _HEIGHT
            place = f'x="{x:.1f}" y="{upper.top:.1f}" width="{until - x:.1f}" height="{bottom - upper.top:.1f}"'
            yield f'<rect class="away" {place}><title>a sink\'s breaker is open</title></rect>'
            since_s = None


def _times(panel: _Panel) -> Iterator[str]:
    unit_s, unit = (60.0, "min") if panel.seconds < 3 * 3600 else (3600.0, "h")
    step = _nice(panel.seconds / unit_s / 8, math.floor)
    y = panel.top + _HEIGHT + 20
    for number in range(int(panel.seconds / unit_s / step + 1e-9) + 1):
        at = number * step
        yield _text(panel.x(at * unit_s), y, f"{at:g} {unit}" if number else "0", anchor="middle")


def _nice(amount: float, rounding: Callable[[float], float]) -> float:
    """The nearest of 1, 2, 5, 10, 15, 20, 30, 60 … that is not below `amount`."""
    scale = 10 ** rounding(math.log10(max(amount, 1e-9)))
    return next(one * scale for one in (1, 2, 5, 10) if one * scale >= amount - 1e-9)


def _round_up(amount: float) -> float:
    """The next amount with a short name: its half has one, too."""
    scale = 10.0 ** math.floor(math.log10(max(amount, 1)))
    return next(one * scale for one in (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10, 12) if one * scale >= amount)
