"""The page about autoscaling says what the simulation says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from streamworker.autoscaling.formula import Formula
from streamworker.autoscaling.policy import TRIGGERS, Autoscaling
from streamworker.cli.main import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "autoscaling.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return re.findall(r"^\$ streamworker (autoscale .+)$", TEXT, re.MULTILINE)


def test_its_pictures_and_tables_are_what_the_simulation_makes_now() -> None:
    done = subprocess.run(
        [sys.executable, "tools/draw_autoscaling.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_it_shows_every_picture() -> None:
    drawn = {path.name for path in (ROOT / "docs" / "img").glob("autoscaling-*.svg")}

    assert set(re.findall(r"img/(autoscaling-[\w-]+\.svg)", TEXT)) == drawn
    assert len(drawn) == 7


def test_its_commands_work() -> None:
    results = [CliRunner().invoke(main, shlex.split(command)) for command in commands()]

    assert len(results) == 2
    assert [one.output for one in results if one.exit_code] == []


def test_the_first_command_prints_what_is_printed_there() -> None:
    [printed] = re.findall(r"^```console\n\$ streamworker autoscale .+?\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)[:1]

    output = CliRunner().invoke(main, shlex.split(commands()[0])).stdout

    assert printed.split() == output.split()


def test_its_formulas_are_those_of_the_hold() -> None:
    shown = re.findall(r"^sink_open .+$", TEXT, re.MULTILINE)
    made = [Autoscaling(hold=True, busy=busy).compiled() for busy in (None, 0.7)]

    assert shown == [one.text for one in made if one is not None]
    assert all(Formula.of(one, TRIGGERS) for one in shown)
