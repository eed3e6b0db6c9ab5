"""The page of failures leaves nothing out that the code can say, and each of its rows names a test that shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamworker import errors
from streamworker.interfaces import FaultKind
from streamworker.reason import Reason
from streamworker.record import Ending
from streamworker.source.flow import PauseReason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "failures.md").read_text("utf-8")
TABLES = re.compile(r"^\| What .*\n\|[- |]+\n((?:\|.*\n)+)\n<!-- tests, row by row:\n((?:.*\n)+?)-->", re.MULTILINE)
# Raised to users where nothing has begun, or inside only.
NO_FAILURES = {"StreamworkerError", "ConfigurationError", "HandlerSignal", "ClientError", "ClientFatal", "Misuse"}
# Named on the page by what they end as.
BY_REASON = {"HeadOfLine": "head_of_line", "WorkerKilled": "killed_worker"}


def test_every_reason_is_on_the_page() -> None:
    assert [one for one in Reason if f"`{one}`" not in PAGE] == []


def test_every_reason_has_its_cause_in_the_code() -> None:
    code = "".join(module.read_text("utf-8") for module in (ROOT / "streamworker").rglob("*.py"))
    of_faults = {FaultKind.OUT_OF_RANGE.value, FaultKind.TRUNCATED.value, FaultKind.UNAUTHORIZED.value}

    assert [
        one for one in Reason if one not in of_faults and not re.search(rf"(?<!Pause)Reason\.{one.name}\b", code)
    ] == []


@pytest.mark.parametrize("words", [PauseReason, [one for one in Ending if one is not Ending.HANDLED]])
def test_every_pause_and_every_ending_is_on_the_page(words: type[PauseReason] | list[Ending]) -> None:
    plain = PAGE.replace("dead letter", "dead_lettered")

    assert [one.value for one in words if not re.search(rf"\b{one.value}\b", plain)] == []


def test_every_exception_that_a_record_can_meet_is_on_the_page() -> None:
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
    } - NO_FAILURES

    assert [one for one in sorted(kinds) if f"`{BY_REASON.get(one, one)}" not in PAGE] == []


def test_every_row_names_a_test_that_shows_it() -> None:
    tables = TABLES.findall(PAGE)

    assert len(tables) == PAGE.count("| What |")
    for rows, names in tables:
        assert len(rows.splitlines()) == len(names.splitlines())
        for name in names.splitlines():
            file, _, test = name.partition("::")
            assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text("utf-8"), name
