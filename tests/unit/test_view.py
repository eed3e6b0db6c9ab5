"""The view of a dead-letter topic: what it answers, and what it believes of what was said of letters."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from dead_letters import NOW_MS, TOPIC, disposition, letter

from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError
from streamworker.record import Origin
from streamworker.replay.dead_record import LetterId, Pointer
from streamworker.replay.filters import Filter, parse
from streamworker.replay.states import State, digest
from streamworker.replay.view import Candidate, Said, View
from streamworker.replay.view_database import ViewError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dead_letters import Facts

    from streamworker.replay.desk import Page
    from streamworker.replay.states import Disposition

ALL = Filter()
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    with closing(View(TOPIC, SystemClock(), topic_id="id", folder=tmp_path)) as view:
        yield view


def chosen(text: str) -> Filter:
    return parse(text, NOW_MS)


def places(page: Page) -> list[str]:
    return [str(row.letter.id) for row in page.letters]


def state_of(view: View, place: LetterId) -> State:
    row = view.row(place)
    assert row is not None
    return row.state


def candidates(
    view: View, text: str, *, ends: Mapping[int, int] | None = None, op_id: str | None = None
) -> Sequence[str]:
    found = view.candidates(chosen(text), view.ends() if ends is None else ends, op_id=op_id)
    return [str(one.id) for one in found]


def said(place: str, *dispositions: Disposition | None, first: int = 0) -> Sequence[Said]:
    return [Said(LetterId.parse(place), first + number, one) for number, one in enumerate(dispositions)]


def test_letters_are_listed_newest_first_over_all_partitions(view: View) -> None:
    view.add([letter(0, 1, written_ms=10), letter(1, 1, written_ms=30), letter(0, 2, written_ms=20)])
    view.add([letter(1, 2, written_ms=20), letter(2, 0, written_ms=None), letter(0, 0, written_ms=0)])

    assert places(view.page(ALL, limit=9)) == ["1:1", "1:2", "0:2", "0:1", "0:0", "2:0"]


def test_pages_follow_each_other_without_gap_or_repetition(view: View) -> None:
    """Also while letters come that are newer."""
    view.add([letter(number % 3, number, written_ms=number // 4 or None) for number in range(50)])
    found: list[str] = []

    page = view.page(ALL, limit=7)
    matching = page.matching
    while page.next is not None:
        found += places(page)
        view.add([letter(9, len(found), written_ms=NOW_MS)])
        page = view.page(ALL, limit=7, after=page.next, count=False)

    assert matching == 50
    assert page.matching is None
    assert len({*found, *places(page)}) == len(found) + len(page.letters) == 50


@pytest.mark.parametrize("after", ["", "1:2", "1:2:3:4", "a:b:c", "1:2:3; DROP TABLE letters", "٣:1:1"])
def test_a_cursor_of_ones_own_making_is_refused(view: View, after: str) -> None:
    with pytest.raises(ConfigurationError, match="expected what a page says of the next one"):
        view.page(ALL, limit=1, after=after)


def test_a_row_says_what_lists_show(view: View) -> None:
    one = letter(
        3,
        7,
        key=b"k",
        value=b"value",
        origin=Origin("orders", 1, 2),
        group="shop",
        handler="orders",
        reason="poison",
        exception="shop.Refused",
        message="no",
        fingerprint="ab12",
        attempts=3,
        sw_id="shop/orders/1/2",
        parent="orders.dlq/0/1",
        replay_id="r",
        replay_count=1,
    )

    view.add([one])
    row = view.row(LetterId(3, 7))

    assert row is not None
    same = {name: getattr(row.letter, name) for name in row.letter.__slots__ if hasattr(one, name)}
    assert same == {name: getattr(one, name) for name in same}
    assert (row.letter.size_bytes, row.letter.payload_sha256) == (5, digest(b"value"))
    assert (row.disposition, row.state) == (None, State.PENDING)
    assert row.letter.place == one.place
    assert view.page(ALL, limit=1).letters == [row]
    assert view.row(LetterId(3, 8)) is None


def test_a_pointer_stands_for_the_payload(view: View) -> None:
    far = Pointer(sha256=digest(b"far"), size_bytes=9_000_000, at=Origin("orders", 0, 0))

    view.add([letter(0, 0, value=None, pointer=far)])
    view.say(said("0:0", disposition(State.REPLAYED, b"far")))
    row = view.row(LetterId(0, 0))

    assert row is not None
    assert (row.letter.size_bytes, row.letter.payload_sha256) == (9_000_000, digest(b"far"))
    assert row.state is State.REPLAYED


@pytest.mark.parametrize("told", [None, "ab", "é" * 64, "AB" * 32])
def test_a_pointer_that_claims_anything_else_stands_for_none(view: View, told: str | None) -> None:
    view.add([letter(0, 0, value=None, pointer=Pointer(sha256=told, size_bytes=None, at=Origin("orders", 0, 0)))])
    row = view.row(LetterId(0, 0))

    assert row is not None
    assert (row.letter.size_bytes, row.letter.payload_sha256) == (None, None)


@pytest.mark.parametrize("letters_first", [True, False])
def test_the_last_that_was_said_holds(view: View, letters_first: bool) -> None:
    replayed, taken = disposition(State.REPLAYED), disposition(State.PENDING, assigned_to="ben")
    entries = [
        *said("0:1", taken, replayed),
        *said("0:2", replayed, taken, first=2),
        *said("0:3", replayed, None, first=4),
    ]
    steps = [lambda: view.add([letter(0, number) for number in range(4)]), lambda: view.say(entries)]

    for step in steps if letters_first else reversed(steps):
        step()

    assert [state_of(view, LetterId(0, number)) for number in range(4)] == [
        State.PENDING,
        State.REPLAYED,
        State.PENDING,
        State.PENDING,
    ]
    assert view.count(chosen("state:replayed")) == 1
    assert view.count(chosen("assigned:ben")) == 1
    assert view.summary(NOW_MS, None).states[State.REPLAYED] == 1
    assert view.history(LetterId(0, 1)) == [taken, replayed]
    assert view.history(LetterId(0, 3)) == []
    assert view.ignored == 0


@pytest.mark.parametrize("letters_first", [True, False])
def test_behind_what_is_not_believed_nothing_holds(view: View, letters_first: bool) -> None:
    """Compaction would leave only that, and a view says the same before and after it."""
    entries = said("0:1", disposition(State.REPLAYED), disposition(State.DISCARDED, value=b"other"))
    steps = [lambda: view.add([letter(0, 1)]), lambda: view.say(entries)]

    for step in steps if letters_first else reversed(steps):
        step()

    row = view.row(LetterId(0, 1))
    assert row is not None
    assert (row.state, row.disposition, view.ignored) == (State.PENDING, None, 1)
    assert view.count(chosen("state:pending")) == view.summary(NOW_MS, None).pending == 1


@pytest.mark.parametrize("letters_first", [True, False])
def test_what_was_said_of_another_letter_in_its_place_is_ignored_and_counted(view: View, letters_first: bool) -> None:
    """As when the topic was deleted and made anew, and the state topic was not."""
    entries = [
        *said("0:0", disposition(State.REPLAYED, value=b"other")),
        *said("0:1", disposition(State.REPLAYED, topic_id="id of another")),
        *said(
            "0:2",
            disposition(State.REPLAYED, value=b"other", topic_id="id"),
            disposition(State.DISCARDED, topic_id="id"),
        ),
        *said("0:3", disposition(State.REPLAYED, value=None)),
    ]
    steps = [lambda: view.add([letter(0, number) for number in range(4)]), lambda: view.say(entries, unreadable=2)]

    for step in steps if letters_first else reversed(steps):
        step()

    assert list(view.ids(chosen("-state:pending"))) == [LetterId(0, 2)]
    assert state_of(view, LetterId(0, 2)) is State.DISCARDED
    assert len(view.history(LetterId(0, 2))) == 1
    assert view.summary(NOW_MS, None).ignored == view.ignored == 6


def test_what_comes_twice_changes_nothing(view: View) -> None:
    entries = said("0:1", disposition(State.REPLAYED))

    for _ in range(2):
        view.add([letter(0, 1), letter(0, 1), letter(0, 2)])
        view.say(entries)

    assert view.count(ALL) == 2
    assert view.summary(NOW_MS, None).states[State.REPLAYED] == 1
    assert len(view.history(LetterId(0, 1))) == 1


def test_what_the_topic_deleted_is_forgotten(view: View) -> None:
    view.add([letter(partition, offset) for partition in range(2) for offset in range(6000)])
    view.say(said("0:1", disposition(State.REPLAYED)))

    view.forget(0, 5999)

    assert view.count(ALL) == view.count(chosen("replays:0")) == 6001
    assert list(view.ids(chosen("partition:0"))) == [LetterId(0, 5999)]
    assert view.summary(NOW_MS, None).states[State.REPLAYED] == 0
    assert view.history(LetterId(0, 1)) == []


def test_it_can_begin_anew(view: View) -> None:
    view.add([letter(0, 1, handler="orders")])
    view.say(said("0:1", disposition(State.REPLAYED, value=b"other")))

    view.clear()
    view.add([letter(0, 2, handler="orders")])

    assert (view.ignored, view.count(ALL), list(view.ids(chosen("handler:orders")))) == (0, 1, [LetterId(0, 2)])


def test_letters_are_grouped_by_their_mistake(view: View) -> None:
    """Handlers and reasons may differ within one; what has no fingerprint is told apart by its class."""
    view.add([letter(0, n, written_ms=n, fingerprint="f1", handler="a", message=f"m{n}") for n in range(3)])
    view.add([letter(1, n, written_ms=10 + n, fingerprint="f1", handler="b", message=f"m{n}") for n in range(2)])
    view.add([letter(2, n, written_ms=n, exception="E") for n in range(2)])
    view.add([letter(3, n, written_ms=None) for n in range(7)])
    view.say([Said(LetterId(3, n), n, disposition(State.DISCARDED)) for n in range(7)])

    groups = view.groups(ALL)

    assert [(one.fingerprint, one.exception, one.count, one.pending) for one in groups] == [
        ("f1", None, 5, 5),
        (None, "E", 2, 2),
        (None, None, 7, 0),
    ]
    assert (groups[0].handler, groups[0].message, groups[0].first_ms, groups[0].last_ms) == ("b", "m1", 0, 11)
    assert (groups[2].first_ms, groups[2].last_ms) == (None, None)
    assert [one.count for one in view.groups(chosen("handler:a offset:1.."))] == [2]
    assert len(view.groups(ALL, limit=2)) == 2


def test_a_topic_is_told_at_a_glance(view: View) -> None:
    view.built = 0.5
    view.add([letter(0, 0, written_ms=NOW_MS - 9 * DAY_MS), letter(0, 1, written_ms=NOW_MS - 8 * DAY_MS)])
    view.add([letter(0, 2, written_ms=NOW_MS - DAY_MS), letter(0, 3, written_ms=NOW_MS - 1, fingerprint="f")])
    view.add([letter(0, 4, written_ms=None)])
    view.say(said("0:0", disposition(State.REPLAYED)))

    told = view.summary(NOW_MS, retention_ms=9 * DAY_MS)

    assert (told.topic, told.records, told.pending, told.built) == (TOPIC, 5, 4, 0.5)
    assert (told.states[State.PENDING], told.states[State.REPLAYED], told.states[State.DISCARDED]) == (4, 1, 0)
    assert (told.oldest_pending_ms, told.newest_ms) == (NOW_MS - 8 * DAY_MS, NOW_MS - 1)
    assert (told.per_hour, told.expiring) == (1.0, 1)
    assert {(group.fingerprint, group.pending) for group in told.top} == {("f", 1), (None, 3)}
    assert view.summary(NOW_MS, None).expiring == 0


def test_an_empty_topic_is_told_at_a_glance(view: View) -> None:
    told = view.summary(NOW_MS, retention_ms=DAY_MS)

    assert (told.records, told.pending, told.oldest_pending_ms, told.newest_ms, told.top) == (0, 0, None, None, [])


def test_letters_are_told_in_the_order_of_their_places(view: View) -> None:
    view.add(
        [letter(1, 3, handler="a"), letter(0, 9, handler="a"), letter(1, 2, handler="b"), letter(0, 1, handler="a")]
    )

    assert [str(one) for one in view.ids(chosen("handler:a"))] == ["0:1", "0:9", "1:3"]
    assert [str(one) for one in view.ids(chosen("id:1:3,0:9,0:7"))] == ["0:9", "1:3"]
    assert candidates(view, "handler:a") == ["0:1", "0:9", "1:3"]


def test_of_a_candidate_all_is_told_that_a_plan_asks_about(view: View) -> None:
    known: Facts = {"reason": "poison", "handler": "a", "group": "shop", "replay_id": "r", "replay_count": 2}
    view.add(
        [
            letter(0, 1, origin=Origin("orders", 3, 4), value=b"value", **known),
            letter(0, 2, origin=None, origin_topic="orders", value=None),
        ]
    )
    view.say(said("0:1", disposition(State.PENDING, b"value", snoozed_until_ms=7)))

    assert list(view.candidates(ALL, view.ends())) == [
        Candidate(
            LetterId(0, 1), State.PENDING, "poison", "a", "shop", Origin("orders", 3, 4), None, "r", 2, 5, 7, "op"
        ),
        Candidate(LetterId(0, 2), State.PENDING, None, None, None, None, None, None, 0, 0, None, None),
    ]


def test_what_comes_behind_the_ends_of_a_plan_is_none_of_its_letters(view: View) -> None:
    view.add([letter(0, 3), letter(1, 9)])
    ends = view.ends()

    view.add([letter(0, 4), letter(0, 2), letter(1, 10), letter(2, 0)])

    assert ends == {0: 4, 1: 10}
    assert candidates(view, "", ends=ends) == ["0:2", "0:3", "1:9"]


def test_what_an_operation_has_acted_on_is_still_chosen_for_it(view: View) -> None:
    view.add([letter(0, number, handler="a") for number in range(5)])
    view.say(said("0:1", disposition(State.REPLAYED, op_id="this")))
    view.say(said("0:2", disposition(State.REPLAYED, op_id="another")))
    view.say(said("0:3", disposition(State.REPLAYED, op_id="this"), disposition(State.PENDING, op_id="another")))

    assert candidates(view, "state:pending") == ["0:0", "0:3", "0:4"]
    assert candidates(view, "state:pending", op_id="this") == ["0:0", "0:1", "0:3", "0:4"]
    assert candidates(view, "state:pending handler:b", op_id="this") == ["0:1"]


def test_the_record_of_a_letter_is_told_where_others_are_of_it_too(view: View) -> None:
    """A crash may write a letter twice."""
    view.add([letter(0, 5, sw_id="r1"), letter(0, 2, sw_id="r1"), letter(0, 3, sw_id="r2"), letter(0, 4)])

    assert [(one.id.offset, one.sw_id) for one in view.candidates(ALL, view.ends())] == [
        (2, "r1"),
        (3, None),
        (4, None),
        (5, "r1"),
    ]


def test_a_list_of_letters_is_that_of_one_moment(view: View) -> None:
    view.add([letter(0, number) for number in range(10)])
    found = view.ids(ALL)

    first = next(found)
    view.add([letter(0, number) for number in range(10, 20)])
    view.forget(0, 5)

    assert [first, *found] == [LetterId(0, number) for number in range(10)]


def test_a_letter_knows_those_around_it(view: View) -> None:
    view.add([letter(0, offset, written_ms=offset, key=b"k") for offset in (2, 5, 9)])
    view.add([letter(1, 5, key=b"other")])

    assert view.neighbours(LetterId(0, 5)) == (LetterId(0, 2), LetterId(0, 9))
    assert view.neighbours(LetterId(1, 5)) == (None, None)


def test_a_line_of_replays_is_followed_in_both_directions(view: View) -> None:
    view.add([letter(0, 0)])
    view.add([letter(0, offset, parent=f"{TOPIC}/0/{offset - 1}") for offset in (1, 2, 3)])
    view.add(
        [letter(1, 0, parent=f"{TOPIC}/0/1"), letter(1, 1, parent="elsewhere/0/1"), letter(1, 2, parent="nonsense")]
    )

    assert [str(one) for one in view.lineage(LetterId(0, 1))] == ["0:0", "0:2", "1:0", "0:3"]
    assert [str(one) for one in view.lineage(LetterId(0, 3))] == ["0:0", "0:1", "0:2"]
    assert view.lineage(LetterId(1, 1)) == view.lineage(LetterId(1, 2)) == []
    assert view.children(f"{TOPIC}/0/1") == [LetterId(0, 2), LetterId(1, 0)]


def test_letters_that_claim_to_be_their_own_parents_end_nowhere_else(view: View) -> None:
    view.add(
        [letter(0, 0, parent=f"{TOPIC}/0/1"), letter(0, 1, parent=f"{TOPIC}/0/0"), letter(0, 2, parent=f"{TOPIC}/0/2")]
    )

    assert view.lineage(LetterId(0, 0)) == [LetterId(0, 1)]
    assert view.lineage(LetterId(0, 2)) == []


def test_what_headers_claim_may_be_no_text_and_no_number_that_a_database_holds(view: View) -> None:
    hostile = letter(
        0, 1, written_ms=2**63, attempts=2**80, message="\udc80 \ud800", handler="\udc80", sw_id="\ud800",
        own_headers=(("\udc80", b"x"),), origin=Origin("\udc80", 2**70, -(2**70)), exception="\udfff" * 5000,
    )  # fmt: skip

    view.add([letter(0, 0), hostile, letter(0, 2)])

    assert view.count(ALL) == view.count(chosen("replays:0")) == 3
    assert len(view.page(ALL, limit=9).letters) == 3
    assert view.count(chosen("attempts:>1000")) == 1


def test_a_write_that_fails_leaves_everything_as_it_was(view: View) -> None:
    """Also the numbers of mistakes that were made for it."""
    view.add([letter(0, 0)])
    no_bytes: Facts = {"own_headers": (("name", "text"),)}  # type: ignore[typeddict-item]

    with pytest.raises(TypeError):
        view.add([letter(0, 1, handler="new"), letter(0, 2, **no_bytes)])
    with pytest.raises(OverflowError):
        view.say([*said("0:3", disposition(State.REPLAYED)), *said("0:3", disposition(State.REPLAYED), first=2**63)])
    view.add([letter(0, 1, handler="new"), letter(0, 3)])

    assert view.summary(NOW_MS, None).states[State.PENDING] == 3
    assert list(view.ids(chosen("state:replayed"))) == []
    assert list(view.ids(chosen("handler:new"))) == [LetterId(0, 1)]


def test_a_question_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with closing(View(TOPIC, SystemClock(), folder=tmp_path, answer_within_s=0.0)) as view:
        view.add([letter(0, number, message="m") for number in range(5000)])

        with pytest.raises(ViewError, match=r"no answer within 0 s; ask for fewer letters"):
            view.count(chosen("text:nowhere"))
        assert len(view.page(chosen("text:m"), limit=1).letters) == 1  # which is found at once, and not counted


def test_more_questions_at_once_than_it_has_seats_are_refused(tmp_path: Path) -> None:
    with closing(View(TOPIC, SystemClock(), folder=tmp_path, answer_within_s=0.0)) as view:
        view.add([letter(0, number) for number in range(9)])
        under_way = [view.ids(ALL) for _ in range(4)]
        for one in under_way:
            next(one)

        with pytest.raises(ViewError, match="4 other questions"):
            view.row(LetterId(0, 0))
        under_way[0].close()  # type: ignore[attr-defined]
        assert view.row(LetterId(0, 0)) is not None
        for one in under_way:
            list(one)


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    view = View(TOPIC, SystemClock(), folder=tmp_path)
    view.add([letter(0, 0)])
    [folder] = tmp_path.iterdir()
    mode = folder.stat().st_mode & 0o777

    view.close()
    view.close()

    assert mode == 0o700
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ViewError, match="cannot be read"):
        view.page(ALL, limit=1)
    with pytest.raises(ViewError, match="cannot be written"):
        view.add([letter(0, 1)])


def test_what_is_in_memory_does_not_grow_with_the_letters(view: View) -> None:
    """Nor with what they claim: all of these are mistakes of their own."""

    def fill(first: int) -> int:
        for start in range(first, first + 4_000, 500):
            view.add(
                [
                    letter(0, n, message="m" * 100, fingerprint=str(n), value=b"v" * 1000)
                    for n in range(start, start + 500)
                ]
            )
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        once = fill(0)
        grown = fill(4_000) - once
    finally:
        tracemalloc.stop()

    assert grown < 100_000


def test_states_come_in_any_number(view: View) -> None:
    entries = (Said(LetterId(0, n), n, disposition(State.REPLAYED)) for n in range(3000))

    while batch := list(islice(entries, 1000)):
        view.say(batch)
    view.add([letter(0, n) for n in range(4000)])

    assert view.count(chosen("state:replayed")) == 3000
