#!/usr/bin/env python3
"""Draws what an outage looks like from outside: `python tools/draw_outage.py RECORDING.csv PICTURE.svg`.

The recording is that of tests/integration/test_outages.py. The colours are seen on light and on dark pages.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Row = Mapping[str, str]
    Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT, _LEFT, _GAP = 760, 110, 90, 40
_STEP_S = 0.5
_TRIAL_S = 0.25  # as wide as a trial is drawn, most of which take less
_TEXT, _LINE, _AWAY = "#808080", "#3b82d6", "#d9822b"
_STATES = {"closed": _LINE, "open": _AWAY, "half_open": "#7a3fb5"}


@dataclass(frozen=True, slots=True)
class Canvas:
    """Turns seconds into places."""

    seconds: float

    def x(self, at_s: float) -> float:
        """The place of a time."""
        return _LEFT + at_s / self.seconds * (_WIDTH - _LEFT - 20)

    def bar(self, since_s: float, until_s: float, top: float, height: float, colour: str, opacity: float = 1) -> str:
        """A rectangle from one time to another."""
        place = f'x="{self.x(since_s):.1f}" y="{top:.1f}" width="{self.x(until_s) - self.x(since_s):.1f}"'
        return f'<rect {place} height="{height:.1f}" fill="{colour}" opacity="{opacity}"/>'


def text(x: float, y: float, words: str, anchor: str = "end", colour: str = _TEXT) -> str:
    """Words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def curve(canvas: Canvas, points: Points, top: float, title: str) -> Iterator[str]:
    """A panel with a line and its highest value."""
    most = max(value for _, value in points) or 1
    places = " ".join(f"{canvas.x(at_s):.1f},{top + _HEIGHT * (1 - value / most):.1f}" for at_s, value in points)
    yield text(_LEFT, top - 8, title, "start")
    yield text(_LEFT - 8, top + 5, f"{most:,.0f}")
    yield text(_LEFT - 8, top + _HEIGHT + 4, "0")
    yield f'<polyline points="{places}" fill="none" stroke="{_LINE}" stroke-width="1.5"/>'


def states(canvas: Canvas, by_worker: Mapping[str, Sequence[Row]], top: float) -> Iterator[str]:
    """A panel with a bar for each worker, coloured by the state of its breaker."""
    yield text(_LEFT, top - 8, "state of the breaker:", "start")
    for number, (state, colour) in enumerate(_STATES.items()):
        yield text(_LEFT + 150 + 80 * number, top - 8, state.replace("_", " "), "start", colour)
    for number, (worker, rows) in enumerate(sorted(by_worker.items())):
        yield text(_LEFT - 8, top + 30 * number + 15, f"worker {worker}")
        for state, since_s, until_s in spans(rows):
            yield canvas.bar(since_s, until_s, top + 30 * number, 20, _STATES[state])
        for at_s in (float(after["at_s"]) for before, after in pairwise(rows) if before["trials"] != after["trials"]):
            yield canvas.bar(at_s - _TRIAL_S, at_s, top + 30 * number, 20, _STATES["half_open"])


def spans(rows: Sequence[Row]) -> Iterator[tuple[str, float, float]]:
    """The states of one worker's breaker, each with its beginning and its end."""
    changes = [rows[0], *(after for before, after in pairwise(rows) if after["breaker"] != before["breaker"]), rows[-1]]
    for row, after in pairwise(changes):
        yield row["breaker"], float(row["at_s"]), float(after["at_s"])


def sums(by_worker: Mapping[str, Sequence[Row]], column: str, seconds: float) -> Points:
    """The column's latest values, added up over the workers, at each step."""
    steps = (number * _STEP_S for number in range(int(seconds / _STEP_S) + 1))
    return [(at_s, sum(_latest(rows, column, at_s) for rows in by_worker.values())) for at_s in steps]


def _latest(rows: Sequence[Row], column: str, at_s: float) -> int:
    return next((int(row[column]) for row in reversed(rows) if float(row["at_s"]) <= at_s), 0)


def axis(canvas: Canvas, bottom: float) -> Iterator[str]:
    """The time that all panels share."""
    for at_s in range(0, int(canvas.seconds) + 1, 10):
        yield text(canvas.x(at_s), bottom, f"{at_s} s", "middle")


def picture(rows: Sequence[Row]) -> str:
    """The whole, as SVG."""
    by_worker: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_worker[row["worker"]].append(row)
    canvas = Canvas(ceil(max(float(row["at_s"]) for row in rows) / _STEP_S) * _STEP_S)
    handled = sums(by_worker, "handled", canvas.seconds)
    rates = [(at_s, (after - before) / _STEP_S) for (_, before), (at_s, after) in pairwise(handled)]
    away_s = [float(row["at_s"]) for row in rows if row["away"] == "1"]
    tops = [30 + number * (_HEIGHT + _GAP) for number in range(3)]
    bottom = tops[2] + 30 * len(by_worker)
    parts = [
        canvas.bar(min(away_s), max(away_s), tops[0], bottom - tops[0], _AWAY, 0.15),
        *curve(canvas, rates, tops[0], "records handled a second"),
        *curve(canvas, sums(by_worker, "lag", canvas.seconds), tops[1], "lag, records"),
        *states(canvas, by_worker, tops[2]),
        *axis(canvas, bottom + 15),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 25}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="12">', *parts, "</svg>", ""])


def main(recording: str, target: str) -> None:
    """Draw `recording` into `target`."""
    with Path(recording).open(newline="") as lines:
        Path(target).write_text(picture(list(csv.DictReader(lines))))


if __name__ == "__main__":
    main(*sys.argv[1:])
