"""How a timeline is drawn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from streamworker.autoscaling.drawing import picture
from streamworker.autoscaling.groups import GivenLag, RecordedGroup, Sample
from streamworker.autoscaling.observation import Observation
from streamworker.autoscaling.policy import Autoscaling
from streamworker.autoscaling.simulation import simulate
from streamworker.autoscaling.synthetic import Sine, Step

if TYPE_CHECKING:
    from streamworker.autoscaling.observation import Group

SVG = "{http://www.w3.org/2000/svg}"


def drawn(group: Group, title: str = "a lag", threshold: float | None = 10_000) -> ET.Element:
    return ET.fromstring(picture(simulate(Autoscaling(), group), title, threshold))


def lines(drawing: ET.Element, kind: str) -> list[str]:
    return [one.attrib["d"] for one in drawing.iter(f"{SVG}path") if one.get("class") == kind]


STEPPED = GivenLag(Step(to=25_000, at_s=600), 3600)


def test_lag_and_replicas_are_each_one_line_and_what_is_asked_for_another() -> None:
    drawing = drawn(STEPPED)

    assert [len(lines(drawing, kind)) for kind in ("lag", "replicas", "asked", "threshold")] == [1, 1, 1, 1]
    assert lines(drawing, "replicas")[0].count("V") == 1  # one change


def test_replicas_change_where_they_do() -> None:
    [stairs] = lines(drawn(STEPPED), "replicas")

    [(x, y)] = re.findall(r"H([\d.]+)V([\d.]+)", stairs)
    assert float(x) == pytest.approx(78 + 705 / 3600 * (760 - 78 - 24), abs=0.1)
    assert float(y) == pytest.approx(222 + 120 * (1 - 3 / 4), abs=0.1)


def test_the_line_of_the_lag_is_interrupted_where_it_could_not_be_read() -> None:
    seen = [5.0, 6.0, None, 7.0, 8.0]

    drawing = drawn(RecordedGroup([Sample(60.0 * number, Observation(lag)) for number, lag in enumerate(seen)]))

    assert len(lines(drawing, "lag")) == 2


def test_the_time_at_which_a_sink_is_away_is_shaded() -> None:
    [shade] = drawn(GivenLag(Step(), 3600, ((900, 1800),))).iter(f"{SVG}rect")

    assert float(shade.attrib["width"]) == pytest.approx((760 - 78 - 24) / 4, abs=0.1)


def test_a_picture_follows_the_colours_of_the_page_and_loads_and_runs_nothing() -> None:
    text = picture(simulate(Autoscaling(), STEPPED), "a lag")

    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"<script|href|url\(|@import|\bon\w+=", text)


def test_a_title_is_text_whatever_it_has_in_it() -> None:
    drawing = drawn(STEPPED, "<script>&")

    assert [one.text for one in drawing.iter(f"{SVG}title")] == ["<script>&"]


def test_a_long_recording_has_a_picture_of_a_bounded_size() -> None:
    days = GivenLag(Sine(period_s=7200), 2 * 86400)

    timeline = simulate(replace(Autoscaling(), max_replicas=2), days)

    assert len(timeline.moments) > 11_000
    assert len(picture(timeline, "two days")) < 60_000


def test_no_peak_is_lost_where_points_are_left_out() -> None:
    lags = [Observation(90_000 if number == 3777 else 10) for number in range(5_000)]

    drawing = drawn(RecordedGroup([Sample(15.0 * number, seen) for number, seen in enumerate(lags)]), threshold=None)

    heights = [float(pair.split(",")[1]) for pair in lines(drawing, "lag")[0][1:].split(" ")]
    assert min(heights) == pytest.approx(54 + 120 * (1 - 90_000 / 100_000), abs=0.1)
