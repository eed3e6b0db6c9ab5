"""`streamworker autoscale simulate` from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from streamworker.cli.main import main

if TYPE_CHECKING:
    from click.testing import Result

STEP = ("--synthetic", "step:to=25000,at=0")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["autoscale", "simulate", *arguments])


def changes(*arguments: str) -> list[tuple[float, int, str]]:
    result = simulate(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [(one["at_s"], one["replicas"], one["rule"]) for one in json.loads(result.stdout)]


def test_a_timeline_is_printed_with_a_reason_for_each_change() -> None:
    result = simulate(*STEP)

    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.lstrip()[:2] == "0:"]
    assert [row[:5] for row in rows] == [
        ["0:00:00", "25,000", "3", "1", "1"],
        ["0:02:00", "25,000", "3", "3", "1"],
    ]
    assert "the window for scaling out: the least that was asked for in the last 120 s" in result.stdout
    assert result.stdout.endswith("1:00:00 simulated; 3 replicas at the end, 3 at most.\n")


def test_json_has_the_rule_by_name() -> None:
    assert changes(*STEP) == [(0, 1, "up_window"), (120, 3, "target")]


def test_options_are_values_of_the_chart() -> None:
    assert changes(*STEP, "--min-replicas", "2", "--metric-type", "Value", "--ready-after", "0")[1][:2] == (120, 4)
    assert changes(*STEP, "--set", "behavior.scaleUp.stabilizationWindowSeconds=0")[0][:2] == (0, 3)
    assert changes(*STEP, "--lag-threshold", "5000", "--partitions", "4")[1][:2] == (120, 3)


def test_a_values_file_is_read_and_options_go_before_it() -> None:
    Path("values.yaml").write_text(
        "workerDefaults: {partitions: 4, autoscaling: {mode: keda}}\n"
        "workers:\n  orders:\n    autoscaling:\n      lagThreshold: 5000\n",
        encoding="utf-8",
    )

    assert changes(*STEP, "--values", "values.yaml")[1][:2] == (120, 3)
    assert changes(*STEP, "--values", "values.yaml", "--lag-threshold", "20000")[-1][1] == 2


def test_a_values_file_in_json_needs_no_package() -> None:
    Path("values.json").write_text('{"workers": {"a": {"autoscaling": {"mode": "hpa"}}}}', encoding="utf-8")

    assert changes(*STEP, "--values", "values.json")[-1][1] == 3


def test_without_the_package_for_yaml_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("values.yaml").write_text("workers: {}\n", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "yaml", None)

    result = simulate(*STEP, "--values", "values.yaml")

    assert result.exit_code == 2
    assert "pip install 'streamworker[autoscale]'" in result.stderr


def test_recordings_of_both_kinds_are_read() -> None:
    Path("lag.csv").write_text("time,lag\n0,25000\n600,25000\n", encoding="utf-8")
    series = [{"metric": {"topic": "orders"}, "values": [[15 * number, "25000"] for number in range(41)]}]
    answer = {"status": "success", "data": {"resultType": "matrix", "result": series}}
    Path("lag.json").write_text(json.dumps(answer), encoding="utf-8")

    assert changes("--lag", "lag.csv") == changes("--lag", "lag.json") == [(0, 1, "up_window"), (120, 3, "target")]


def test_a_picture_is_written() -> None:
    result = simulate(*STEP, "--svg", "lag.svg")

    assert result.exit_code == 0
    assert ET.parse("lag.svg").getroot().tag.endswith("svg")


def test_what_is_not_simulated_is_said_on_standard_error() -> None:
    result = simulate(*STEP, "--set", "keda.excludePersistentLag=true")

    assert result.stderr == "Warning: excludePersistentLag is not simulated\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give one of --lag and --synthetic"),
        ((*STEP, "--lag", "lag.csv"), "give one of --lag and --synthetic"),
        (("--synthetic", "stepp"), "there is no 'stepp'; did you mean 'step'?"),
        ((*STEP, "--set", "kedda.skewAware=true"), "there is no 'kedda' in autoscaling; did you mean 'keda'?"),
        ((*STEP, "--set", "skew"), "expected KEY=VALUE, got 'skew'"),
        ((*STEP, "--metric-type", "Average"), "got 'Average'; did you mean 'AverageValue'?"),
        ((*STEP, "--set", "busy.enabled=true"), "how busy workers are is not known here"),
        ((*STEP, "--formula", "lagg"), "there is no trigger 'lagg'; did you mean 'lag'?"),
        ((*STEP, "--worker", "orders"), "give --values"),
        ((*STEP, "--sink-open", "5m"), "expected two times like 10m..25m, got '5m'"),
        ((*STEP, "--duration", "soon"), "expected a duration like 90s, 15m or 2h, got 'soon'"),
        (("--lag", "lag.csv", "--duration", "1h"), "--duration goes with --synthetic"),
        (("--lag", "lag.csv"), "lag.csv: line 1: there is no column 'laag'; did you mean 'lag'?"),
        (("--lag", "lag.txt"), "lag.txt: expected text in UTF-8"),
        ((*STEP, "--sync-period", "0"), "sync period: expected at least 1"),
    ],
)
def test_what_cannot_be_is_refused_with_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    Path("lag.csv").write_text("time,laag\n0,1\n", encoding="utf-8")
    Path("lag.txt").write_bytes(b"\xff\xfe\xff")

    result = simulate(*arguments)

    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


def test_a_file_that_cannot_be_written_has_exit_code_1() -> None:
    result = simulate(*STEP, "--svg", "missing/lag.svg")

    assert (result.exit_code, result.stderr) == (1, "Error: missing/lag.svg: No such file or directory\n")


def test_other_commands_do_without_what_it_imports() -> None:
    code = "import sys, streamworker.cli.main; print([one for one in sys.modules if 'autoscaling' in one])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
