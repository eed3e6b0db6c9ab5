"""The page of failures leaves nothing out that the code can say, and each of its rows names a test that shows it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from streamworker import errors
from streamworker.record import Ending
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "failures.md").read_text("utf-8")
TABLES = re.compile(r"^\| What .*\n\|[- |]+\n((?:\|.*\n)+)\n<!-- tests, row by row:\n((?:.*\n)+?)-->", re.MULTILINE)
# Raised to users where nothing has begun, or inside only.
NO_FAILURES = {"StreamworkerError", "ConfigurationError", "HandlerSignal", "ClientError", "ClientFatal", "Misuse"}
# Named on the page by what they end as.
BY_REASON = {"HeadOfLine": "head_of_line", "WorkerKilled": "killed_worker"}


def _reasons() -> Iterator[str]:
    """The reasons of verdicts and of partitions that stop, as they are written in the code."""
    for module in (ROOT / "streamworker").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Verdict", "partitions.stop")):
                yield from _text(node.args[1] if len(node.args) > 1 else None)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "replace":
                yield from (text for one in node.keywords if one.arg == "reason" for text in _text(one.value))


def _text(node: ast.expr | None) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        yield from (f"undecodable_{part}" for part in ("key", "value"))
    elif node is not None and ast.unparse(node) == "fault.kind.value":
        yield from ("offset_out_of_range", "log_truncated", "unreadable_batch", "unauthorized")


def test_every_reason_of_the_code_is_on_the_page() -> None:
    reasons = set(_reasons())

    assert {"poison", "exhausted", "undecodable_key", "fails_alone", "killed_worker", "offset_went_back"} <= reasons
    assert [one for one in sorted(reasons) if f"`{one}`" not in PAGE] == []


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
