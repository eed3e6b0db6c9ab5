"""When a worker process is started again, and how the whole ends."""

from __future__ import annotations

from itertools import permutations

import pytest

from streamworker.children import SETTLED_S, Child, ChildState, backoff_s, exit_code
from streamworker.exit_code import ExitCode

RUNNING = Child(number=0, since_s=0.0, next_start_s=0.0).started(17, 100.0)


def exited(child: Child, code: int, now_s: float, *, bounded: bool = False, stopping: bool = False) -> Child:
    return child.exited(code, now_s, chance=0.5, bounded=bounded, stopping=stopping)


def ended_with(*codes: int | None) -> list[Child]:
    return [Child(number=number, since_s=0.0, exit_code=code) for number, code in enumerate(codes)]


def test_a_child_is_due_from_the_beginning_and_not_once_it_runs() -> None:
    assert Child(number=0, since_s=0.0, next_start_s=0.0).due(0.0)
    assert not RUNNING.due(1_000.0)
    assert RUNNING.restarts == 0


@pytest.mark.parametrize("code", [0, 1, 3, 4, 5, 7, -9, -11, 77, 143])
def test_whatever_it_ends_with_unasked_it_is_started_again_after_a_back_off(code: int) -> None:
    child = exited(RUNNING, code, 110.0)

    assert (child.state, child.pid, child.exit_code) == (ChildState.WAITING, None, code)
    assert not child.due(110.9)
    assert child.due(111.0)
    assert child.started(18, 111.0).restarts == 1


def test_the_back_off_doubles_up_to_half_a_minute_for_any_number_of_failures() -> None:
    waits_s = [backoff_s(failures, 0.5) for failures in (1, 2, 3, 4, 5, 6, 7, 10_000)]

    assert waits_s == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_back_off_is_a_fifth_shorter_or_longer_by_chance() -> None:
    assert [backoff_s(3, chance) for chance in (0.0, 1.0)] == pytest.approx([3.2, 4.8])


def test_the_back_off_begins_anew_after_a_process_that_lasted() -> None:
    child, now_s = RUNNING, 100.0
    for _ in range(3):
        child = exited(child, 1, now_s).started(18, now_s)
    assert exited(child, 1, now_s + SETTLED_S - 1).failures == 4

    settled = exited(child, 1, now_s + SETTLED_S)

    assert settled.failures == 1
    assert settled.due(now_s + SETTLED_S + 1)


@pytest.mark.parametrize("code", [ExitCode.USAGE, ExitCode.FENCED])
def test_an_end_that_a_new_process_would_repeat_is_not_followed_by_one(code: ExitCode) -> None:
    child = exited(RUNNING, code, 110.0)

    assert child.state is ChildState.ENDED
    assert child.hopeless


@pytest.mark.parametrize(("code", "state"), [(0, ChildState.ENDED), (3, ChildState.ENDED), (1, ChildState.WAITING)])
def test_in_a_bounded_run_one_that_has_reached_its_bound_is_not_started_again(code: int, state: ChildState) -> None:
    child = exited(RUNNING, code, 110.0, bounded=True)

    assert child.state is state
    assert not child.hopeless


def test_while_all_stop_nothing_is_started_again() -> None:
    assert exited(RUNNING, 1, 110.0, stopping=True).state is ChildState.ENDED
    assert not exited(RUNNING, 1, 110.0).let_go(111.0).due(1_000.0)


def test_the_whole_ends_well_if_all_did_or_were_never_started() -> None:
    assert exit_code(ended_with(0, 0, None)) is ExitCode.OK


def test_the_worst_end_is_that_of_the_whole_in_any_order() -> None:
    worst_first = [2, 6, 1, 4, 7, 5, 3, 0]

    for better, worse in permutations(range(len(worst_first)), 2):
        assert exit_code(ended_with(worst_first[better], worst_first[worse])) == worst_first[min(better, worse)]


@pytest.mark.parametrize(("code", "counts_as"), [(-9, 3), (-15, 3), (130, 3), (143, 3), (77, 1)])
def test_what_a_signal_ended_is_repeated_and_an_unknown_end_is_the_applications(code: int, counts_as: int) -> None:
    assert exit_code(ended_with(0, code)) == counts_as
