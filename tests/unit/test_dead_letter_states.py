"""What is said of dead letters: its form, what may follow what, and what all that was said adds up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.replay.dead_record import LetterId
from streamworker.replay.standings import Standings, Unreadable
from streamworker.replay.states import (
    AGAIN,
    FOLLOWERS,
    ONLY_PENDING,
    RESTORABLE,
    SENT,
    Disposition,
    Standing,
    State,
    Target,
    believed,
    decode,
    digest,
    encode,
    key_of,
    letter_of,
    may_follow,
    state_now,
)

LETTER = LetterId(3, 1042)
WHOLE = Disposition(
    state=State.REPAIRED,
    op_id="op-1",
    actor="ann@desk",
    at_ms=1_700_000_000_000,
    topic_id="uJ8wIw",
    payload_sha256="ab" * 32,
    reason_code="bug",
    note="schema v2",
    target=Target("orders.replay.billing", 4, 99),
    replay_id="cd" * 32,
    edited_sha256="ef" * 32,
    replay_count=2,
    of="3:7",
    assigned_to="bob",
    snoozed_until_ms=1_800_000_000_000,
)

texts = st.none() | st.text(max_size=5)
numbers = st.none() | st.integers(0, 2**53)
dispositions = st.builds(
    Disposition,
    state=st.sampled_from(State),
    op_id=st.text(max_size=5),
    actor=st.text(max_size=5),
    at_ms=st.integers(0, 2**53),
    topic_id=texts,
    payload_sha256=texts,
    reason_code=texts,
    note=texts,
    target=st.none() | st.builds(Target, st.text(max_size=5), st.integers(0, 9), numbers),
    replay_id=texts,
    edited_sha256=texts,
    replay_count=st.integers(0, 9),
    of=texts,
    assigned_to=texts,
    snoozed_until_ms=numbers,
)


def said(state: State, *, topic_id: str | None = "id", payload: bytes | None = b"v", replay: str = "r1") -> Disposition:
    return Disposition(
        state=state,
        op_id="op",
        actor="ann",
        at_ms=1,
        topic_id=topic_id,
        payload_sha256=digest(payload),
        replay_id=replay if state in SENT else None,
    )


def test_a_record_of_the_state_topic_is_these_bytes() -> None:
    """Others read them, and older and newer versions."""
    assert key_of(LETTER) == b"3:1042"
    assert encode(said(State.DISCARDED)) == (
        b'{"state":"discarded","op_id":"op","actor":"ann","at_ms":1,"topic_id":"id",'
        b'"payload_sha256":"4c94485e0c21ae6c41ce1dfe7b6bfaceea5ab68e40a2476f50208e526f506080"}'
    )
    assert encode(WHOLE) == (
        b'{"state":"repaired","op_id":"op-1","actor":"ann@desk","at_ms":1700000000000,"topic_id":"uJ8wIw",'
        b'"payload_sha256":"' + b"ab" * 32 + b'","reason_code":"bug","note":"schema v2",'
        b'"target":{"topic":"orders.replay.billing","partition":4,"offset":99},"replay_id":"' + b"cd" * 32 + b'",'
        b'"edited_sha256":"' + b"ef" * 32 + b'","replay_count":2,"of":"3:7","assigned_to":"bob",'
        b'"snoozed_until_ms":1800000000000}'
    )


@given(dispositions)
def test_what_is_written_is_read_again(one: Disposition) -> None:
    assert decode(encode(one)) == one


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"null", b"\xff", encode(WHOLE).replace(b"{", b'{"v":2,', 1)])
def test_what_is_none_or_of_a_later_version_is_not_read(value: bytes) -> None:
    assert decode(value) is None


@given(st.integers(0, 999_999_999), st.integers(0, 10**18 - 1))
def test_a_key_names_its_letter(partition: int, offset: int) -> None:
    assert letter_of(key_of(LetterId(partition, offset))) == (partition, offset)


@pytest.mark.parametrize("key", [None, b"", b"3", b"3:", b"3:-1", b"3:1 ", b"\xff:1", "٣:1".encode()])
def test_another_key_names_none(key: bytes | None) -> None:
    assert letter_of(key) is None


@pytest.mark.parametrize("now", State)
@pytest.mark.parametrize("then", State)
def test_what_may_follow_is_what_the_table_says_and_who_writes_expects(now: State, then: State) -> None:
    last, next_ = Standing.of(said(now)), said(then, replay="r2")
    allowed = {expected: may_follow(last, next_, expected) for expected in (ONLY_PENDING, AGAIN, RESTORABLE)}

    in_the_table = then in FOLLOWERS[now]
    assert allowed == {expected: in_the_table and now in expected for expected in allowed}


def test_nothing_goes_out_but_what_is_pending_unless_it_is_meant() -> None:
    by_itself = [
        now for now in State if may_follow(Standing.of(said(now)), said(State.REPLAYED, replay="r2"), ONLY_PENDING)
    ]

    assert by_itself == [State.PENDING]
    assert State.UNCERTAIN not in AGAIN
    assert FOLLOWERS[State.DISCARDED] == {State.PENDING}


@pytest.mark.parametrize("state", sorted(SENT))
def test_the_same_replay_is_not_made_again(state: State) -> None:
    last = Standing.of(said(state, replay="r1"))

    assert not may_follow(last, said(State.REPLAYED, replay="r1"), AGAIN)
    assert may_follow(last, said(State.REPLAYED, replay="r2"), AGAIN)


@pytest.mark.parametrize(
    ("topic_id", "payload", "believes"),
    [
        ("id", b"v", True),
        (None, b"v", True),
        ("older", b"v", False),
        ("id", b"other", False),
        ("id", None, False),
        ("id", b"", False),
    ],
)
def test_what_was_said_of_another_topic_or_payload_is_not_believed(
    topic_id: str | None, payload: bytes | None, believes: bool
) -> None:
    one, then = said(State.DISCARDED, topic_id=topic_id, payload=payload), said(State.REPLAYED)

    assert believed(one, topic_id="id", payload_sha256=digest(b"v")) == believes
    assert (state_now(Standing.of(one), then) is State.DISCARDED) == believes
    assert believed(one, topic_id=None, payload_sha256=digest(payload))


# Beside, before and after the border of a page, and one that is far away.
offsets = st.sampled_from([0, 1, 254, 255, 256, 257, 100_000])
records = st.tuples(offsets, st.none() | st.just(b"of a later version") | dispositions.map(encode))


@given(st.lists(records), offsets)
def test_the_last_that_was_said_of_each_letter_holds(log: list[tuple[int, bytes | None]], first: int) -> None:
    standings, last = Standings(3), dict[int, bytes]()
    for offset, value in log:
        standings.take(b"3:%d" % offset, value, 200_000)
        if value is None:
            last.pop(offset, None)
        else:
            last[offset] = value

    for offset in (0, 1, 254, 255, 256, 257, 100_000):
        value = last.get(offset)
        one = None if value is None else decode(value)
        if value is not None and one is None:
            with pytest.raises(Unreadable):
                standings.of(LetterId(3, offset))
        else:
            assert standings.of(LetterId(3, offset)) == (None if one is None else Standing.of(one))
    assert [letter.offset for letter in standings.before(first)] == sorted(one for one in last if one < first)


def test_what_is_said_of_another_partition_or_of_a_letter_that_is_not_there_is_left_out() -> None:
    standings, value = Standings(3), encode(said(State.REPLAYED))

    taken = [standings.take(key, value, 10) for key in (b"2:1", b"3:10", b"3:999999999999", b"x", None)]

    assert taken == [None] * 5
    assert standings.of(LetterId(3, 10)) is None
    assert standings.take(b"3:9", value, 10) == (LetterId(3, 9), decode(value))


def test_a_million_letters_take_less_than_thirty_megabytes() -> None:
    standings, one = Standings(0), said(State.REPLAYED)
    for offset in range(0, 1_000_000, 256):  # one letter of each page is enough
        standings.note(LetterId(0, offset), one)

    assert sum(map(len, standings._pages.values())) < 30_000_000


def test_what_is_forgotten_takes_no_room() -> None:
    standings = Standings(0)
    standings.note(LetterId(0, 1), said(State.REPLAYED))
    standings.forget(LetterId(0, 1))
    standings.forget(LetterId(0, 5000))

    assert not standings._pages
