"""Waiting for the end of a run at a terminal."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from streamworker.cli.dlq_runs import follow, tell
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.replay.desk import Action, Operation, OperationState

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
