"""What is kept of operations on dead letters, and what it adds up to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Operation, OperationState, Outcome, Request
from streamworker.replay.filters import parse
from streamworker.replay.operations import Logged, Operations, asking, letter_of
from streamworker.replay.outcomes import outcome

NOW_MS = 1_767_225_600_000
REQUEST = Request(topic="orders.dlq", action=Action.REPLAY, filter=parse("reason:poison age:>1h", NOW_MS), again=True)
BEGUN = Operation(
    id="8c1fa2b04d11",
    plan_sha256="ab" * 32,
    topic="orders.dlq",
    action=Action.REPLAY,
    actor="anna",
    filter_text="reason:poison",
    state=OperationState.RUNNING,
    matched=40,
    started_ms=NOW_MS,
)


def logged(operation: Operation, request: Request = REQUEST) -> tuple[bytes | None, bytes | None]:
    letter = letter_of(Logged.of(operation, request, {0: 17}), NOW_MS)
    return letter.key, letter.value


def test_what_was_asked_for_can_be_read_again_and_planned_anew() -> None:
    known = Operations()

    known.take([logged(BEGUN)])

    found = known.of(BEGUN.id)
    assert found is not None
    assert found.request.filter == REQUEST.filter
    assert (found.request.topic, found.request.action, found.request.again) == ("orders.dlq", Action.REPLAY, True)
    assert found.bounds == {0: 17}
    assert found.operation == BEGUN


def test_letters_that_were_named_are_named_again() -> None:
    named = Request(topic="orders.dlq", action=Action.DISCARD, ids=[LetterId(0, 4), LetterId(1, 2)], reason_code="old")
    known = Operations()

    known.take([logged(replace(BEGUN, action=Action.DISCARD), named)])

    found = known.of(BEGUN.id)
    assert found is not None
    assert found.request == named


def test_a_value_that_was_edited_is_not_told_to_all_who_read_of_operations() -> None:
    edited = Request(topic="orders.dlq", action=Action.REPAIR, ids=[LetterId(0, 4)], edited='{"card": "4111"}')

    _, value = logged(replace(BEGUN, action=Action.REPAIR), edited)

    assert b"4111" not in (value or b"")


def test_ends_that_somebody_else_has_written_wrong_are_left_out() -> None:
    said = Logged(operation=BEGUN, ends={"0": 4, "x": 5, "": 6})

    assert said.bounds == {0: 4}


def test_the_last_record_of_an_operation_holds_and_the_newest_operation_comes_first() -> None:
    later = replace(BEGUN, id="ffff", started_ms=NOW_MS + 1)
    known = Operations()

    known.take([logged(BEGUN), logged(later), logged(replace(BEGUN, state=OperationState.DONE, done=40))])

    assert [(one.operation.id, one.operation.state, one.operation.done) for one in known.all] == [
        ("ffff", OperationState.RUNNING, 0),
        (BEGUN.id, OperationState.DONE, 40),
    ]


@pytest.mark.parametrize("asked", [OperationState.PAUSED, OperationState.ABORTED])
def test_what_is_asked_of_a_runner_can_be_taken_back(asked: OperationState) -> None:
    known = Operations()
    question, taken_back = asking(BEGUN.id, asked, NOW_MS), asking(BEGUN.id, None, NOW_MS)

    known.take([(question.key, question.value)])
    before = known.asked(BEGUN.id)
    known.take([(taken_back.key, taken_back.value)])

    assert (before, known.asked(BEGUN.id)) == (asked, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"x", b"{"),
        (b"x", b'{"v": 2}'),
        (b"\xff", None),
        (b"x/asked", b"\xff"),
        (b"another", logged(BEGUN)[1]),
    ],
)
def test_records_that_nobody_of_us_wrote_are_passed_over(key: bytes | None, value: bytes | None) -> None:
    known = Operations()

    known.take([(key, value), logged(BEGUN)])

    assert [one.operation.id for one in known.all] == [BEGUN.id]
    assert known.asked("x") is None


@pytest.mark.parametrize(
    ("known", "passed", "returned", "deferred", "expected"),
    [
        (True, True, False, False, Outcome.HANDLED),
        (True, False, False, False, Outcome.WAITING),
        (True, True, True, False, Outcome.RETURNED),
        (True, True, False, True, Outcome.DEFERRED),
        (True, True, True, True, Outcome.RETURNED),
        (False, False, False, False, Outcome.UNKNOWN),
        (False, False, True, False, Outcome.RETURNED),
    ],
)
def test_what_became_of_a_replay_follows_from_what_the_cluster_shows(
    known: bool, passed: bool, returned: bool, deferred: bool, expected: Outcome
) -> None:
    assert outcome(known=known, passed=passed, returned=returned, deferred=deferred) is expected
