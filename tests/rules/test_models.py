"""The formal model is searched to its end, and notices each of its rules when it is missing.

spin and gcc do the work. Without them these tests are skipped, or fail if CI=true.
"""

from __future__ import annotations

import enum
import re
import shutil
import subprocess
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from missing import unavailable
from sizes import SOAK

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "docs" / "models" / "commits.pml"
PAGE = MODEL.with_name("README.md")

TROUBLE = 2 if SOAK == 1 else 3
DEADLOCK, LIVELOCK = "invalid end state", "acceptance cycle"
SIZES = {"TROUBLE", "MAX_UNCOMMITTED"}
WEAKER_WORLD = "OVERTAKING"


class Search(enum.Enum):
    """What the checker looks for, as options of its compilation."""

    SAFETY = ("-DSAFETY", "-DNOCLAIM")  # promises and deadlocks
    LIVENESS = ()  # promises and livelocks


# What is found when the rule is broken.
BROKEN_RULES = {
    "COMMIT_DELIVERED": "commit_safety",
    "ADMIT_CROSSING": "books_add_up",
    "COMPLETE_LATE": "books_add_up",
    "START_AFTER_END": "nothing_starts_late",
    "CLOSE_AT_ONCE": "moves_repeat_nothing",
    "COUNT_DISPATCHED": DEADLOCK,
    "ACKNOWLEDGE_ON_SEND": "bounded_repeats",
    "FORGET_REFUSED": DEADLOCK,
    "WAIT_FOR_EVER": DEADLOCK,
    "TRUST_LATE_ANSWERS": DEADLOCK,
    "REFETCH_FOR_EVER": LIVELOCK,
    "NO_FENCE": "commit_monotone",
}


@pytest.fixture(scope="module")
def tools() -> None:
    """What is needed beside Python."""
    missing = [program for program in ("spin", "gcc") if shutil.which(program) is None]
    if missing:
        unavailable(f"no {' and no '.join(missing)} for the formal model: apt-get install spin gcc libc6-dev")


def run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def search(what: Search, folder: Path, *macros: str, optimise: str = "-O0") -> str | None:
    """What is wrong with the model: a promise, a deadlock, a livelock; None after a complete search without a find.

    A step that can never happen is an AssertionError: it would make the search worth less than it seems.
    """
    run(["spin", "-a", *(f"-D{macro}" for macro in macros), str(MODEL)], folder)
    run(["gcc", optimise, "-w", *what.value, "-o", "pan", "pan.c"], folder)
    report = run(["./pan", *(["-a"] if what is Search.LIVENESS else [])], folder)
    found = re.search(r"^pan:1: (?:assertion violated )?(.+?) \(at depth", report, re.MULTILINE)
    if found is not None:
        return found[1]
    assert "errors: 0" in report, report
    assert "Search not completed" not in report, report
    assert "search depth too small" not in report, report
    assert set(re.findall(r'commits\.pml:\d+, state \d+, "(.+)"', report)) == {"-end-"}, report
    return None


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("world", [(), (WEAKER_WORLD,)], ids=["in order", "overtaking"])
def test_no_order_of_events_breaks_a_promise_or_ends_in_a_deadlock(tmp_path: Path, world: Sequence[str]) -> None:
    found = search(Search.SAFETY, tmp_path, f"TROUBLE={TROUBLE}", *world, optimise="-O1")

    assert found is None


@pytest.mark.usefixtures("tools")
def test_every_run_ends_with_all_records_committed(tmp_path: Path) -> None:
    found = search(Search.LIVENESS, tmp_path, optimise="-O1")

    assert found is None


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(("rule", "expected"), BROKEN_RULES.items())
def test_a_broken_rule_is_noticed(tmp_path: Path, rule: str, expected: str) -> None:
    what = Search.LIVENESS if expected == LIVELOCK else Search.SAFETY
    world = [WEAKER_WORLD] if rule == "TRUST_LATE_ANSWERS" else []

    found = search(what, tmp_path, rule, *world)

    assert found == expected


def test_every_switch_of_the_model_is_tried_and_explained() -> None:
    switches = set(re.findall(r"#ifn?def (\w+)", MODEL.read_text("utf-8")))
    page = PAGE.read_text("utf-8")

    assert switches == {*BROKEN_RULES, WEAKER_WORLD, *SIZES}
    assert [one for one in switches if f"`{one}`" not in page] == []


def test_every_promise_of_the_model_is_explained() -> None:
    promises = set(re.findall(r"promise\((\w+), ", MODEL.read_text("utf-8"))) - {"name"}

    assert [one for one in promises if f"`{one}`" not in PAGE.read_text("utf-8")] == []


def test_the_code_has_what_the_page_says_that_the_steps_stand_for() -> None:
    named = re.findall(r"`([a-z_.]+)\.([A-Z]\w+(?:\.\w+)?)`", PAGE.read_text("utf-8"))

    assert len(named) > 20
    for module, name in named:
        attrgetter(name)(import_module(f"streamworker.{module}"))
