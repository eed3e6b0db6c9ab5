#!/usr/bin/env python3
"""Draws the pictures of docs/autoscaling.md and fills its tables in: `python tools/draw_autoscaling.py [--check]`.

Decided here: which runs the page shows. With `--check` nothing is written; the exit code is 1 if something is stale.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from made_files import write_or_compare

from streamworker.autoscaling.drawing import picture
from streamworker.autoscaling.groups import GivenLag, ModelledGroup
from streamworker.autoscaling.hpa import Kind
from streamworker.autoscaling.policy import Autoscaling
from streamworker.autoscaling.simulation import simulate
from streamworker.autoscaling.synthetic import Sine, Spike, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.autoscaling.simulation import Timeline

COMMAND = "python tools/draw_autoscaling.py"
DOCS = Path(__file__).parent.parent / "docs"
PAGE = "autoscaling.md"

_HOUR_S = 3600
AVERAGE = Autoscaling()
VALUE = replace(AVERAGE, trigger=replace(AVERAGE.trigger, metric_type=Kind.VALUE))
_LAGS = (9_000, 11_000, 11_500, 15_000, 21_000, 25_000, 45_000, 120_000)
_AWAY_S = ((1200.0, 3600.0),)


def _modelled(policy: Autoscaling, outages_s: Sequence[tuple[float, float]] = ()) -> Timeline:
    load = Sine(mean=4_300, amplitude=300, period_s=_HOUR_S)
    return simulate(policy, ModelledGroup(load, 3 * _HOUR_S, 1_000, 12, outages_s), 5)


def _spike() -> Timeline:
    return simulate(AVERAGE, GivenLag(Spike(peak=50_000, at_s=300, length_s=90), 1200), 1)


def _step(policy: Autoscaling) -> Timeline:
    return simulate(replace(policy, min_replicas=2), GivenLag(Step(to=25_000, at_s=120), 1200))


PICTURES: Mapping[str, tuple[str, Callable[[], Timeline]]] = {
    "spike": ("A lag of 50,000 for 90 seconds", _spike),
    "average-value": ("A lag of 25,000 that stays, AverageValue, two replicas at least", lambda: _step(AVERAGE)),
    "value": ("A lag of 25,000 that stays, Value, two replicas at least", lambda: _step(VALUE)),
    "lag-alone": ("4,300 records/s, 1,000 per replica: the lag alone", lambda: _modelled(AVERAGE)),
    "busy": ("The same with the trigger for busy workers", lambda: _modelled(replace(AVERAGE, busy=0.7))),
    "outage": ("A sink that is away for 40 minutes", lambda: _modelled(replace(AVERAGE, busy=0.7), _AWAY_S)),
    "hold": ("The same with the hold", lambda: _modelled(replace(AVERAGE, busy=0.7, hold=True), _AWAY_S)),
}


def metric_types() -> Iterator[str]:
    """What becomes of a lag that stays, by metric type and by the least number of replicas."""
    yield "| Lag that stays | AverageValue, from 1 | AverageValue, from 2 | Value, from 1 | Value, from 2 |"
    yield "| --- | --- | --- | --- | --- |"
    for lag in _LAGS:
        cells = [_course(policy, lag, least) for policy in (AVERAGE, VALUE) for least in (1, 2)]
        yield f"| {lag:,} | {' | '.join(cells)} |"


def _course(policy: Autoscaling, lag: float, least: int) -> str:
    timeline = simulate(replace(policy, min_replicas=least), GivenLag(Step(to=lag, at_s=0), _HOUR_S))
    steps: list[tuple[float, int]] = []
    for one in timeline.moments:
        if not steps or one.replicas != steps[-1][1]:
            steps.append((one.at_s, one.replicas))
    if len(steps) == 1:
        return f"{least}"
    first, last = steps[1], steps[-1]
    course = f"{first[1]} at {first[0]:.0f} s"
    return course if first == last else f"{course}, {last[1]} at {last[0]:.0f} s"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {"metric types": metric_types}


def page(text: str) -> str:
    """The page with its tables as they are now."""
    for name, rows in TABLES.items():
        begin, end = f"<!-- {name}: made by `{COMMAND}` -->", f"<!-- end of {name} -->"
        made = "\n".join((begin, "", *rows(), "", end))
        text = re.sub(rf"{re.escape(begin)}.*?{re.escape(end)}", lambda _, made=made: made, text, flags=re.DOTALL)
    return text


def files(folder: Path) -> Mapping[str, str]:
    """What this makes of the documentation in `folder`, by file."""
    drawn = {
        f"img/autoscaling-{name}.svg": picture(run(), title, AVERAGE.trigger.lag_threshold)
        for name, (title, run) in PICTURES.items()
    }
    return {**drawn, PAGE: page((folder / PAGE).read_text(encoding="utf-8"))}


if __name__ == "__main__":
    sys.exit(write_or_compare("Draw the pictures of docs/autoscaling.md and fill its tables in.", COMMAND, DOCS, files))
