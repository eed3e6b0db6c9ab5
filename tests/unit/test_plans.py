"""What a request comes to: what is acted on, is a duplicate, or is refused and why; and when it is the same plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError
from streamworker.record import Origin
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Request
from streamworker.replay.filters import Filter, parse
from streamworker.replay.plans import Candidate, Ids, chosen_by, difference, make_plan
from streamworker.replay.states import State
from streamworker.replay.targets import SOURCE, Destination, NoTarget, Targets

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW_MS = 1_000_000
TARGETS = Targets({"orders": 4, "orders.replay.shop": 4, "fix": 2}, groups=["shop"], listed=["fix"])
REPLAY = Request(topic="orders.dlq", action=Action.REPLAY, filter=Filter())


def candidate(offset: int, **changes: object) -> Candidate:
    one = Candidate(
        id=LetterId(0, offset),
        state=State.PENDING,
        reason="poison",
        handler="StoreOrders",
        group="shop",
        origin=Origin("orders", 3, offset),
        sw_id=f"shop/orders/3/{offset}",
        replay_id=None,
        replay_count=0,
        size_bytes=10,
        snoozed_until_ms=None,
    )
    return one._replace(**changes)  # type: ignore[arg-type]


def offsets(ids: Sequence[LetterId]) -> list[int]:
    return [one.offset for one in ids]


def test_pending_letters_are_acted_on_and_counted_by_reason_handler_and_target() -> None:
    found = [candidate(1), candidate(5, reason="exhausted"), candidate(9, state=State.REPLAYED)]

    plan = make_plan(REPLAY, found, TARGETS, NOW_MS, ends={})

    assert offsets(plan.ids) == [1, 5]
    assert plan.by_reason == {"poison": 1, "exhausted": 1}
    assert plan.by_handler == {"StoreOrders": 2}
    assert plan.by_target == {"orders.replay.shop": 2}
    assert plan.bytes == 20
    assert plan.refused == {LetterId(0, 9): "it was replayed already; --again sends it once more"}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("action", list(Action))
def test_each_action_takes_letters_of_its_states_only(action: Action, state: State) -> None:
    takes = {Action.RESTORE: {State.DISCARDED}, Action.DISCARD: {State.PENDING, State.UNCERTAIN}}

    plan = make_plan(replace(REPLAY, action=action), [candidate(1, state=state)], TARGETS, NOW_MS, ends={})

    assert (len(plan.ids) == 1) == (state in takes.get(action, {State.PENDING}))


@pytest.mark.parametrize("state", [State.REPLAYED, State.REPAIRED, State.UNCERTAIN])
def test_what_was_sent_is_sent_again_only_when_that_is_said(state: State) -> None:
    plan = make_plan(replace(REPLAY, again=True), [candidate(1, state=state)], TARGETS, NOW_MS, ends={})

    assert offsets(plan.ids) == [1]


def test_letters_that_a_crash_wrote_of_one_record_are_one_and_what_came_back_is_another() -> None:
    twice = [candidate(1, sw_id="a"), candidate(2, sw_id="a"), candidate(3, sw_id="a", replay_id="r1")]

    plan = make_plan(REPLAY, twice, TARGETS, NOW_MS, ends={})

    assert offsets(plan.ids) == [1, 3]
    assert plan.duplicates == {LetterId(0, 2): LetterId(0, 1)}


def test_a_fourth_replay_is_refused_unless_it_is_forced() -> None:
    thrice = [candidate(1, replay_count=3), candidate(2, replay_count=2)]

    plan = make_plan(REPLAY, thrice, TARGETS, NOW_MS, ends={})
    forced = make_plan(replace(REPLAY, force=True), thrice, TARGETS, NOW_MS, ends={})

    assert offsets(plan.ids) == [2]
    assert "replayed 3 times" in plan.refused[LetterId(0, 1)]
    assert offsets(forced.ids) == [1, 2]


def test_a_filter_leaves_snoozed_letters_alone_and_a_name_does_not() -> None:
    snoozed = [candidate(1, snoozed_until_ms=NOW_MS + 1), candidate(2, snoozed_until_ms=NOW_MS)]
    by_name = replace(REPLAY, filter=None, ids=[LetterId(0, 1)])

    assert offsets(make_plan(REPLAY, snoozed, TARGETS, NOW_MS, ends={}).ids) == [2]
    assert offsets(make_plan(by_name, snoozed[:1], TARGETS, NOW_MS, ends={}).ids) == [1]


def test_a_filter_that_asks_for_snoozed_letters_acts_on_them() -> None:
    asked = replace(REPLAY, action=Action.SNOOZE, until_ms=NOW_MS, filter=parse("snoozed:yes", NOW_MS))

    plan = make_plan(asked, [candidate(1, snoozed_until_ms=NOW_MS + 1)], TARGETS, NOW_MS, ends={})

    assert offsets(plan.ids) == [1]


def test_a_plan_is_the_same_while_its_letters_and_what_is_done_with_them_are() -> None:
    before = make_plan(REPLAY, [candidate(1), candidate(2)], TARGETS, NOW_MS, ends={})
    later = make_plan(REPLAY, [candidate(1), candidate(2)], TARGETS, NOW_MS + 5, ends={})
    two_of_three = [candidate(1), candidate(2, state=State.DISCARDED), candidate(3)]
    fewer = make_plan(REPLAY, two_of_three, TARGETS, NOW_MS, ends={})
    elsewhere = make_plan(replace(REPLAY, target="fix"), [candidate(1), candidate(2)], TARGETS, NOW_MS, ends={})

    assert later.sha256 == before.sha256
    assert fewer.sha256 != before.sha256
    assert difference(before, fewer) == "1 left it, for instance 0:2; 1 came to it, for instance 0:3"
    assert elsewhere.sha256 != before.sha256
    assert difference(before, elsewhere) == "other options"


def test_a_plan_that_is_gone_on_with_counts_what_it_did_as_still_to_be_done() -> None:
    before = make_plan(REPLAY, [candidate(1), candidate(2)], TARGETS, NOW_MS, ends={})
    half = [candidate(1, state=State.REPLAYED, op_id="op"), candidate(2), candidate(3, state=State.REPLAYED, op_id="x")]

    assert make_plan(REPLAY, half, TARGETS, NOW_MS, ends={}, resumed="op").sha256 == before.sha256


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**40)), unique=True).map(sorted))
def test_many_ids_are_a_sequence_of_them(pairs: list[tuple[int, int]]) -> None:
    expected = [LetterId(*one) for one in pairs]

    ids = Ids(expected)

    assert list(ids) == expected
    assert len(ids) == len(expected)
    assert ids[1:3] == expected[1:3]
    assert all(one in ids for one in expected)


def test_a_replay_goes_to_the_replay_topic_of_its_group_in_the_partition_of_its_source() -> None:
    destination = TARGETS.of(Origin("orders", 7, 1), "shop")

    assert destination == Destination("orders.replay.shop", 3, "shop")
    assert TARGETS.options(Origin("orders", 7, 1), "shop") == ["orders.replay.shop", "fix"]


@pytest.mark.parametrize(
    ("origin", "group", "wanted", "why"),
    [
        (Origin("payments", 0, 1), "shop", None, "there is no topic 'payments.replay.shop'"),
        (Origin("orders", 0, 1), "billing", None, "group 'billing' is none"),
        (Origin("__consumer_offsets", 0, 1), "shop", None, "there is no topic"),
        (None, None, None, "name a --target"),
        (Origin("orders", 0, 1), "shop", SOURCE, "replay.key_file"),
    ],
)
def test_what_a_letter_says_of_itself_does_not_send_it_where_nothing_may_go(
    origin: Origin | None, group: str | None, wanted: str | None, why: str
) -> None:
    with pytest.raises(NoTarget, match=why):
        TARGETS.of(origin, group, wanted)


def test_with_a_key_a_replay_can_be_addressed_to_one_group_of_the_source_topic() -> None:
    destination = replace(TARGETS, can_address=True).of(Origin("orders", 2, 1), "shop", SOURCE)

    assert destination == Destination("orders", 2, "shop", is_shared=True)


def test_a_letter_cannot_name_a_source_topic_that_its_group_does_not_read() -> None:
    with pytest.raises(NoTarget, match="has no replay topic of group 'shop'"):
        replace(TARGETS, can_address=True).of(Origin("__consumer_offsets", 0, 1), "shop", SOURCE)


def test_what_goes_to_the_replay_topic_of_another_group_is_for_that_group() -> None:
    targets = replace(TARGETS, groups=["shop", "billing"])
    targets = replace(targets, partitions={**targets.partitions, "orders.replay.billing": 4})

    assert targets.of(Origin("orders", 2, 1), "shop", "orders.replay.billing").group == "billing"
    assert targets.of(Origin("orders", 2, 1), "shop", "fix").group is None


def test_a_topic_that_is_not_listed_is_no_target_for_a_single_letter_either() -> None:
    with pytest.raises(NoTarget, match="'orders' is no topic that replays may go to"):
        TARGETS.of(Origin("orders", 2, 1), "shop", "orders")


@pytest.mark.parametrize("target", ["orders", "__consumer_offsets", "orders.replay.billing"])
def test_a_target_that_nobody_has_named_is_refused_for_all(target: str) -> None:
    request = replace(REPLAY, target=target)

    with pytest.raises(ConfigurationError, match="neither a replay topic of a configured group"):
        make_plan(request, [candidate(1)], TARGETS, NOW_MS, ends={})


def test_letters_that_are_named_and_are_not_there_are_told() -> None:
    request = replace(REPLAY, filter=None, ids=[LetterId(0, 1), LetterId(0, 99)])

    plan = make_plan(request, [candidate(1)], TARGETS, NOW_MS, ends={})

    assert offsets(plan.ids) == [1]
    assert plan.refused == {LetterId(0, 99): "there is no such letter, or not any more"}


def test_what_may_be_sent_again_is_another_plan() -> None:
    once = make_plan(REPLAY, [candidate(1)], TARGETS, NOW_MS, ends={})

    again = make_plan(replace(REPLAY, again=True), [candidate(1)], TARGETS, NOW_MS, ends={})

    assert once.sha256 != again.sha256


def test_more_letters_than_a_filter_holds_are_named_in_parts() -> None:
    named = [LetterId(0, offset) for offset in range(450)]

    parts = chosen_by(replace(REPLAY, filter=None, ids=[*reversed(named), named[7]]))

    assert [one for part in parts for term in part.terms for one in term.values] == named
    assert [len(part.terms[0].values) for part in parts] == [200, 200, 50]
