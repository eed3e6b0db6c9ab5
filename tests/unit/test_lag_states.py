"""The rules by which a partition's state is judged: one case for each, and what holds for all windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.lag.states import Commit, Rules, State, Window, judge, worst

RULES = Rules()


def window(*commits: tuple[int, float, int | None], ends: tuple[int, ...] = ()) -> Window:
    """Of commits as (offset, time, lag)."""
    return Window([Commit(*one) for one in commits], list(ends) or [10_000])


@pytest.mark.parametrize(
    ("seen", "lag", "now_s", "state"),
    [
        pytest.param(window((5, 0, 0), (5, 10, 0)), 0, 20, State.OK, id="nothing is left"),
        pytest.param(window((5, 0, 9)), 0, 9_999, State.OK, id="nothing is left, and nobody commits"),
        pytest.param(window((9, 0, 9), (5, 10, 13)), 0, 20, State.OK, id="nothing is left, though it went back"),
        pytest.param(window((1, 0, 9), (3, 10, 9), (5, 20, 9)), 9, 30, State.WARN, id="it goes on and does not gain"),
        pytest.param(window((1, 0, 5), (3, 10, 7), (5, 20, 9)), 11, 30, State.WARN, id="it goes on and falls behind"),
        pytest.param(window((1, 0, 5), (3, 10, 4), (5, 20, 9)), 9, 30, State.OK, id="it has gained once"),
        pytest.param(window((1, 0, 5), (3, 10, None), (5, 20, 4)), 4, 30, State.OK, id="it has gained past a gap"),
        pytest.param(window((1, 0, 5), (3, 10, None), (5, 20, 6)), 6, 30, State.WARN, id="it has not, past a gap"),
        pytest.param(window((1, 0, 5), (3, 10, 0), (5, 20, 9)), 9, 30, State.OK, id="it was caught up in between"),
        pytest.param(window((5, 0, 3), (5, 10, 4), (5, 20, 5)), 5, 30, State.STALL, id="it commits the same again"),
        pytest.param(window((5, 0, 3), (5, 10, 3), (5, 20, 2)), 2, 30, State.STALL, id="the same, with a smaller lag"),
        pytest.param(window((5, 0, 0), (5, 10, 4), (5, 20, 5)), 5, 30, State.OK, id="the same, once caught up"),
        pytest.param(window((1, 0, 5), (3, 10, 4), (5, 20, 3)), 3, 40, State.OK, id="as silent as the window is long"),
        pytest.param(window((1, 0, 5), (3, 10, 4), (5, 20, 3)), 3, 41, State.STOP, id="silent for longer"),
        pytest.param(window((5, 0, 5)), 5, 0.1, State.STOP, id="one commit, and then none"),
        pytest.param(window((1, 0, 0), (5, 20, 0)), 3, 41, State.STOP, id="silent, though it was caught up once"),
        pytest.param(window((1, 0, 5), (5, 20, 0), ends=(5, 6)), 3, 41, State.OK, id="silent, and had all a while ago"),
        pytest.param(window((9, 0, 5), (3, 20, 11), ends=(4, 14)), 11, 41, State.STOP, id="silent after it went back"),
        pytest.param(window((7, 0, 5), (3, 10, 9), (5, 20, 7)), 7, 30, State.REWIND, id="it went back"),
        pytest.param(window((7, 0, 5), (3, 10, 9), (7, 20, 6)), 6, 30, State.OK, id="it has made up for it"),
        pytest.param(window((7, 0, 0), (3, 10, 4)), 4, 15, State.REWIND, id="it went back, from when it was caught up"),
    ],
)  # fmt: skip
def test_each_rule(seen: Window, lag: int, now_s: float, state: State) -> None:
    assert judge(seen, lag, now_s, RULES).state is state


def test_what_is_allowed_is_no_lag_at_any_time() -> None:
    stuck = window((5, 0, 3), (5, 10, 4), (5, 20, 5))

    assert judge(stuck, 5, 30, Rules(allowed_lag=5)).state is State.OK
    assert judge(stuck, 6, 30, Rules(allowed_lag=3)).state is State.OK  # it was within it at the first commit
    assert judge(stuck, 6, 30, Rules(allowed_lag=2)).state is State.STALL


def test_where_too_little_was_seen_only_who_is_caught_up_is_judged() -> None:
    half = replace(window((5, 0, 3), (5, 10, 4)), complete=0.4)

    assert judge(half, 4, 15, Rules(minimum_complete=0.5)).state is None
    assert judge(half, 0, 15, Rules(minimum_complete=0.5)).state is State.OK
    assert judge(half, 4, 15, Rules(minimum_complete=0.4)).state is State.STALL


def test_without_any_commit_nothing_is_known() -> None:
    assert judge(Window([], [10]), 5, 10, RULES).state is None


@pytest.mark.parametrize(
    ("states", "together"),
    [
        ([State.OK, State.OK], State.OK),
        ([State.OK, None], None),
        ([None, State.WARN], State.WARN),
        ([State.WARN, State.STALL, State.OK], State.STALL),
        ([State.REWIND, State.STOP], State.REWIND),
        ([State.STALL, State.STOP], State.STOP),
    ],
)
def test_a_group_is_as_bad_as_its_worst_partition(states: list[State | None], together: State | None) -> None:
    assert worst(states) is together
    assert worst(reversed(states)) is together


offsets = st.integers(0, 20)
lags = st.none() | st.integers(0, 20)
windows = st.builds(
    lambda commits, ends, complete: Window(
        [Commit(offset, 10.0 * index, lag) for index, (offset, lag) in enumerate(commits)], ends, complete
    ),
    st.lists(st.tuples(offsets, lags), max_size=6),
    st.lists(offsets, max_size=6),
    st.floats(0, 1),
)
rules = st.builds(Rules, st.integers(0, 20), st.floats(0, 1))
moments = st.floats(60, 200)


@given(windows, moments, rules, st.integers(0, 20))
def test_who_is_caught_up_is_ok_whatever_was_before(seen: Window, now_s: float, given_: Rules, lag: int) -> None:
    assert judge(seen, min(lag, given_.allowed_lag), now_s, given_).state is State.OK


@given(windows, moments, rules, st.integers(0, 20), st.integers(0, 20))
def test_what_is_allowed_makes_nothing_worse(seen: Window, now_s: float, given_: Rules, lag: int, more: int) -> None:
    before = judge(seen, lag, now_s, given_).state
    after = judge(seen, lag, now_s, replace(given_, allowed_lag=given_.allowed_lag + more)).state

    assert after in (before, State.OK)


@given(windows, moments, rules, st.integers(0, 20), st.data())
def test_lags_that_are_not_known_hide_no_stop_and_no_rewind(
    seen: Window, now_s: float, given_: Rules, lag: int, data: st.DataObject
) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=len(seen.commits), max_size=len(seen.commits)))
    commits = [one if kept else replace(one, lag=None) for one, kept in zip(seen.commits, keep, strict=True)]

    whole = judge(seen, lag, now_s, given_).state
    holed = judge(replace(seen, commits=commits), lag, now_s, given_).state

    assert (holed in (State.STOP, State.REWIND)) == (whole in (State.STOP, State.REWIND))


@given(windows, moments, rules, st.integers(0, 20), st.data())
def test_it_does_not_matter_which_of_the_commits_at_one_offset_had_no_lag(
    seen: Window, now_s: float, given_: Rules, lag: int, data: st.DataObject
) -> None:
    """What is not known is passed over: the others count in their order, wherever the gaps are."""
    known = [one.lag for one in seen.commits if one.lag is not None]
    places = data.draw(st.permutations(range(len(seen.commits))))[: len(known)]
    moved = dict(zip(sorted(places), known, strict=True))
    commits = [replace(one, lag=moved.get(index)) for index, one in enumerate(seen.commits)]

    assert judge(replace(seen, commits=commits), lag, now_s, given_) == judge(seen, lag, now_s, given_)


@given(windows, moments, rules, st.integers(0, 20))
def test_a_stall_is_a_partition_that_does_not_move_and_a_rewind_one_below_what_it_had(
    seen: Window, now_s: float, given_: Rules, lag: int
) -> None:
    state = judge(seen, lag, now_s, given_).state

    found = [one.offset for one in seen.commits]
    if state is State.STALL:
        assert len(set(found)) == 1
    if state is State.REWIND:
        assert found[-1] < max(found)
