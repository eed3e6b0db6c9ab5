"""Random fleets under random faults keep every promise; a seed that breaks one can be replayed and shortened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from scenarios.schedule import Fault, Strike, draw_schedule, parse_schedule
from scenarios.simulation import Simulation, broken_promises, main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scenarios.schedule import Schedule

_ROOT = Path(__file__).parents[2]
_DIGEST = """
from hashlib import sha256
from scenarios.schedule import draw_schedule
from scenarios.simulation import Simulation
for seed in (3, 10):
    simulation = Simulation(draw_schedule(seed))
    simulation.run()
    world = simulation.world
    print(sha256(repr((world.effects, world.broker.commits)).encode()).hexdigest())
"""


def test_a_fleet_under_faults_keeps_its_promises(seed: int) -> None:
    """Edge cases 1, 2, 19, 38: whatever strikes, nothing is lost, no commit is early, keys stay in order."""
    broken = broken_promises(draw_schedule(seed))

    assert not broken, "\n".join([*broken[:5], f"replay: PYTHONPATH=.:tests python -m scenarios.simulation {seed}"])


def test_a_seed_gives_the_same_run_whatever_the_hashes() -> None:
    path = os.pathsep.join([str(_ROOT), str(_ROOT / "tests")])

    runs = [
        subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert runs[0] == runs[1] != b""


def test_a_printed_schedule_plays_the_same_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "schedule.json"

    code = main(["7"])
    printed = capsys.readouterr()
    file.write_text(printed.out)
    code_again = main(["--schedule", str(file)])

    assert parse_schedule(printed.out) == draw_schedule(7)
    assert (code_again, capsys.readouterr()) == (code, printed)


@pytest.mark.parametrize("arguments", [[], ["7", "--schedule", "file"]])
def test_a_seed_and_a_schedule_exclude_each_other(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)

    assert "expected a seed or --schedule FILE" in capsys.readouterr().err


def test_a_misspelled_schedule_is_refused() -> None:
    text = draw_schedule(7).text().replace('"fault":"produce"', '"fault":"produces"', 1)

    with pytest.raises(msgspec.ValidationError, match=r"produces.*strikes\[0\]\.fault"):
        parse_schedule(text)


def test_the_fate_of_a_record_is_the_same_when_a_strike_is_left_out() -> None:
    traffic = Strike(at_s=0.0, fault=Fault.PRODUCE, amount=100)
    end = Strike(at_s=30.0, fault=Fault.DELETE_RECORDS)
    restart = Strike(at_s=0.5, fault=Fault.RESTART)
    setting = draw_schedule(7).set(flaky=0.3, batch_records=0, on_exhausted="dlq", call_s=0.01, breaker=False)
    shorter = msgspec.structs.replace(setting, strikes=(traffic, end))
    longer = msgspec.structs.replace(setting, strikes=(traffic, restart, end))

    fates, fates_with_a_crash = dict(first_fates(shorter)), dict(first_fates(longer))

    assert fates == fates_with_a_crash
    assert set(fates.values()) == {True, False}


def first_fates(schedule: Schedule) -> Iterator[tuple[tuple[int, int], bool]]:
    simulation = Simulation(schedule)
    simulation.run()
    for effect in reversed(simulation.world.effects):
        yield (effect.partition.partition, effect.offset), effect.ok


def test_every_fault_strikes_within_the_first_hundred_seeds() -> None:
    struck = {strike.fault for seed in range(1, 101) for strike in draw_schedule(seed).strikes}

    assert struck == set(Fault)
