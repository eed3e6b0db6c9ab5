"""What is made of the answers of other frameworks' processes, and how they are timed."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from benchmarks.peers import environments
from benchmarks.peers.catalogue import NOTHING, PEERS, WAITS, Peer
from benchmarks.peers.environments import REQUIREMENTS, ROOT, CannotBeInstalled
from benchmarks.peers.results import Failure, Figures, Results, read_answer
from benchmarks.peers.task import Task
from benchmarks.window import Window

PEER = PEERS[0]
ROW = PEER.rows[0]


def line_of(results: Results, peer: Peer = PEER) -> str:
    return next(line for line in results.tables() if line.startswith(f"| {peer.name} |"))


def timed(*, seconds: float, records: int, calls: int) -> subprocess.CompletedProcess[str]:
    """A process with no package at hand that counts `calls` records and then waits."""
    program = (
        "import time; from benchmarks.peers.task import Task, stopwatch; handled = stopwatch(Task.asked());"
        f"[handled() for _ in range({calls})]; time.sleep(20)"
    )
    task = Task("nothing", "nobody:9092", "topic", "group", seconds, records)
    command = [sys.executable, "-S", "-c", program, *task.arguments()]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=10)


def test_the_answer_is_the_last_line_whatever_a_peer_prints_before() -> None:
    answer = read_answer(0, 'a banner\n{"not": "this"}\n\n{"rate": 5.5, "cpu_us": 2}\n', "a warning")

    assert answer == Figures(5.5, 2)


def test_a_peer_that_dies_is_told_with_the_last_line_of_its_errors() -> None:
    assert read_answer(1, '{"rate": 1, "cpu_us": 1}', "Traceback\n  …\nKeyError: 'x'\n") == Failure("KeyError: 'x'")
    assert read_answer(-9, "", "") == Failure("exit code -9")


@pytest.mark.parametrize("output", ["", "a banner", "[1]", '{"rate": 1}', '{"rate": 1, "cpu_us": 1, "more": 1}'])
def test_a_peer_that_ends_well_without_figures_has_failed(output: str) -> None:
    assert isinstance(read_answer(0, output, ""), Failure)


def test_a_row_shows_the_median_and_the_spread_of_its_rounds() -> None:
    results = Results()
    for rate, cpu_us in ((3000.0, 3.0), (1000.0, 9.0), (1001.0, 1.0)):
        results.add(PEER, ROW, Figures(rate, cpu_us))

    assert "| 1,001 | 1,000 to 3,000 |" in line_of(results)
    assert "| 3.0 |" in line_of(results)


def test_a_row_that_failed_in_some_rounds_shows_both() -> None:
    results = Results()
    results.add(PEER, ROW, Figures(1000.0, 1.0))
    results.add(PEER, ROW, Failure("no | answer"))

    assert "| 1,000 (1 of 2 failed: no \\| answer) |" in line_of(results)


def test_a_peer_without_any_figures_stays_in_the_table_with_its_reason() -> None:
    results = Results()
    results.add(PEER, ROW, Failure("cannot be installed: no wheel"))

    assert "1 of 1 failed: cannot be installed: no wheel" in line_of(results)
    assert [one["failures"] for one in results.as_json()] == [["cannot be installed: no wheel"]]


def test_what_pip_says_last_is_the_reason() -> None:
    with pytest.raises(CannotBeInstalled, match="ERROR: no such package"):
        environments._run(sys.executable, "-c", "import sys; sys.exit('looking\\nERROR: no such package')")


def test_the_figures_of_a_file_are_those_of_each_round() -> None:
    results = Results(versions={PEER.name: {"confluent-kafka": "1.2"}})
    results.add(PEER, ROW, Figures(2.0, 1.0))
    results.add(PEER, ROW, Figures(4.0, 3.0))

    (row,) = json.loads(json.dumps(results.as_json()))

    assert (row["rates"], row["cpu_us"], row["versions"]) == ([2.0, 4.0], [1.0, 3.0], {"confluent-kafka": "1.2"})


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.module)
def test_each_peer_has_a_script_both_works_and_exact_pins_of_what_is_told(peer: Peer) -> None:
    pins = (REQUIREMENTS / f"{peer.module}.txt").read_text().splitlines()
    pinned = {name for line in pins if (name := re.sub(r"(\[.*\])?==[\d.]+$", "", line)) != line}

    assert (ROOT / "benchmarks" / "peers" / f"{peer.module}.py").is_file()
    assert {row.work for row in peer.rows} == {NOTHING, WAITS}
    assert set(peer.packages) - {"streamworker"} == pinned
    assert set(pins) - {"--editable ."} == {line for line in pins if "==" in line}


def test_the_last_record_ends_the_process_with_figures() -> None:
    done = timed(seconds=10, records=1000, calls=1000)

    answer = read_answer(done.returncode, done.stdout, done.stderr)
    assert isinstance(answer, Figures), done.stderr
    assert answer.rate > 1000


def test_the_time_ends_the_process_with_what_was_handled_until_then() -> None:
    done = timed(seconds=0.1, records=1000, calls=11)

    answer = read_answer(done.returncode, done.stdout, done.stderr)
    assert isinstance(answer, Figures), done.stderr
    assert 10 / 0.1 * 0.3 < answer.rate < 10 / 0.1 * 1.1


def test_by_hand_nothing_is_committed_past_an_open_record() -> None:
    window = Window()
    for offset in (5, 6, 7):
        window.begin(0, offset, b"key")

    window.end(0, 6)
    before = window.take_committable()
    window.end(0, 5)
    after = window.take_committable()

    assert (before, after, window.take_committable()) == ({}, {0: 7}, {})
    assert window.records == 1
