"""The tool that draws what a test recorded."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.recorder import Recorder, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

TOOL = Path(__file__).parents[2] / "tools" / "draw_outage.py"
SVG = "{http://www.w3.org/2000/svg}"


def drawn(samples: Sequence[Sample], folder: Path) -> ET.Element:
    recorder = Recorder([])
    recorder.samples.extend(samples)
    recorder.write(folder / "recording.csv")
    subprocess.run([sys.executable, TOOL, folder / "recording.csv", folder / "picture.svg"], check=True)
    return ET.parse(folder / "picture.svg").getroot()


def test_a_recording_is_drawn_as_two_curves_and_a_bar_for_each_state(tmp_path: Path) -> None:
    states = ["closed", "closed", "open", "open", "half_open", "closed", "closed"]
    samples = [
        Sample(float(number), 1, handled=100 * number, lag=10, breaker=state, trials=0, away=int(number in (2, 3)))
        for number, state in enumerate(states)
    ]

    picture = drawn(samples, tmp_path)

    outage, *bars = [float(one.attrib["width"]) for one in picture.iter(f"{SVG}rect")]
    words = [one.text for one in picture.iter(f"{SVG}text")]
    assert len(list(picture.iter(f"{SVG}polyline"))) == 2
    assert [round(width / outage) for width in bars] == [2, 2, 1, 1]
    assert {"worker 1", "records handled a second", "lag, records"} <= set(words)
