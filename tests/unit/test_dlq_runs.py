"""At a terminal: editing a value, and waiting for the end of a run."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click
import pytest

from streamworker.cli.dlq_act import edited_text
from streamworker.cli.dlq_runs import follow, tell
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Decoded, Operation, OperationState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.replay.desk import Actor, Desk

BEGUN = Operation(
    id="op",
    plan_sha256="0",
    topic="orders.dlq",
    action=Action.REPLAY,
    actor="anna",
    filter_text="",
    state=OperationState.RUNNING,
    matched=3,
    started_ms=0,
)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class EndsAtOnce:
    """A desk whose run has ended when it is asked to pause; the signal comes just before."""

    def operation(self, op_id: str) -> Operation:
        ended = replace(BEGUN, state=OperationState.DONE, done=3)
        if self.asked:
            return ended
        signal.raise_signal(signal.SIGTERM)
        return BEGUN

    def pause(self, actor: Actor, op_id: str) -> Operation:
        self.asked = True
        raise ConfigurationError("operation op is done")

    asked = False


class Shows:
    """A desk with one letter, whose value is text."""

    def __init__(self, text: str) -> None:
        self.repairable = True
        self.value = Decoded("text", text, len(text))

    def detail(self, topic: str, letter: LetterId) -> Shows:
        return self

    def text_of(self, topic: str, letter: LetterId) -> str:
        return self.value.text


def test_a_signal_that_comes_as_a_run_ends_does_not_make_an_error_of_it() -> None:
    desk = EndsAtOnce()

    ended = follow(cast("Desk", desk), BEGUN)

    assert desk.asked
    assert ended.state is OperationState.DONE


def test_who_sees_a_run_fail_is_told_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    failed = replace(BEGUN, state=OperationState.FAILED, message="no broker")

    code = tell(failed, as_json=False)

    assert code is ExitCode.PARTIAL
    assert "streamworker dlq resume op" in capsys.readouterr().out


def test_the_line_end_that_an_editor_adds_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click, "edit", lambda text, extension: f"{text}\n")

    assert edited_text(cast("Desk", Shows("paid")), "orders.dlq", LetterId(0, 0)) is None


def test_what_was_edited_has_no_line_end_that_was_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click, "edit", lambda text, extension: "mended\n")

    assert edited_text(cast("Desk", Shows("paid")), "orders.dlq", LetterId(0, 0)) == "mended"
