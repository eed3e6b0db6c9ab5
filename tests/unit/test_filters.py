"""The language in which dead letters are chosen: what is read of a text, what it means, and what is refused how."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from dead_letters import NOW_MS, disposition, letter
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError
from streamworker.replay.dead_record import LetterId
from streamworker.replay.filters import (
    LONGEST_VALUE,
    MOST_VALUES,
    Exactly,
    Field,
    Filter,
    Part,
    Prefix,
    Span,
    Term,
    matches,
    parse,
    payload_matches,
)
from streamworker.replay.states import State

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOVEMBER_MS = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  \t\n", []),
        ("state:pending", [Term(Field.STATE, (Exactly("pending"),))]),
        ("State:Pending,REPLAYED", [Term(Field.STATE, (Exactly("pending"), Exactly("replayed")))]),
        ("-reason:poison", [Term(Field.REASON, (Exactly("poison"),), negated=True)]),
        ("handler:or*", [Term(Field.HANDLER, (Prefix("or"),))]),
        ("handler:*", [Term(Field.HANDLER, (Prefix(""),))]),
        ('handler:"or*"', [Term(Field.HANDLER, (Exactly("or*"),))]),
        (r"handler:or\*", [Term(Field.HANDLER, (Exactly("or*"),))]),
        ('handler:"a b"*', [Term(Field.HANDLER, (Prefix("a b"),))]),
        ('handler:"a,b",c', [Term(Field.HANDLER, (Exactly("a,b"), Exactly("c")))]),
        (r'handler:"say \"a\\b\""', [Term(Field.HANDLER, (Exactly(r'say "a\b"'),))]),
        ('group:""', [Term(Field.GROUP, (Exactly(""),))]),
        ("key:42", [Term(Field.KEY, (Exactly(b"42"),))]),
        ("key:ü", [Term(Field.KEY, (Exactly("ü".encode()),))]),
        ("key:0x2aFF", [Term(Field.KEY, (Exactly(b"\x2a\xff"),))]),
        ("key:0x2a*", [Term(Field.KEY, (Prefix(b"\x2a"),))]),
        ('key:"0x2a"', [Term(Field.KEY, (Exactly(b"0x2a"),))]),
        ("header.tenant:acme", [Term(Field.HEADER, (Exactly(b"acme"),), "tenant")]),
        ('header."my name":x', [Term(Field.HEADER, (Exactly(b"x"),), "my name")]),
        ("header.a.b:x", [Term(Field.HEADER, (Exactly(b"x"),), "a.b")]),
        ("exception:TimeoutError", [Term(Field.EXCEPTION, (Exactly("TimeoutError"),))]),
        (
            "topic:orders fp:ab12",
            [Term(Field.TOPIC, (Exactly("orders"),)), Term(Field.FINGERPRINT, (Exactly("ab12"),))],
        ),
        ("assigned:anna", [Term(Field.ASSIGNED, (Exactly("anna"),))]),
        ("id:3:1042,4:7", [Term(Field.ID, (LetterId(3, 1042), LetterId(4, 7)))]),
        ("partition:3", [Term(Field.PARTITION, (Span(3, 3),))]),
        ("offset:100..200", [Term(Field.OFFSET, (Span(100, 200),))]),
        ("offset:1,5,7..,..2", [Term(Field.OFFSET, (Span(1, 1), Span(5, 5), Span(7, None), Span(None, 2)))]),
        ("attempts:>2", [Term(Field.ATTEMPTS, (Span(3, None),))]),
        ("attempts:<=2", [Term(Field.ATTEMPTS, (Span(None, 2),))]),
        ("replays:>=1", [Term(Field.REPLAYS, (Span(1, None),))]),
        ("replays:<1", [Term(Field.REPLAYS, (Span(None, 0),))]),
        ("age:>1h", [Term(Field.WRITTEN, (Span(None, NOW_MS - HOUR_MS - 1),))]),
        ("age:>=1h", [Term(Field.WRITTEN, (Span(None, NOW_MS - HOUR_MS),))]),
        ("age:<2d", [Term(Field.WRITTEN, (Span(NOW_MS - 2 * DAY_MS + 1, None),))]),
        ("age:1h30m..1w", [Term(Field.WRITTEN, (Span(NOW_MS - 7 * DAY_MS, NOW_MS - HOUR_MS * 3 // 2),))]),
        ("age:90s..", [Term(Field.WRITTEN, (Span(None, NOW_MS - 90_000),))]),
        ("written:2026-11-01", [Term(Field.WRITTEN, (Span(NOVEMBER_MS, NOVEMBER_MS + DAY_MS - 1),))]),
        ("written:>2026-11-01", [Term(Field.WRITTEN, (Span(NOVEMBER_MS + DAY_MS, None),))]),
        ("written:>=2026-11-01", [Term(Field.WRITTEN, (Span(NOVEMBER_MS, None),))]),
        ("written:<2026-11-01T00:00", [Term(Field.WRITTEN, (Span(None, NOVEMBER_MS - 1),))]),
        ("written:2026-11-01T01:00:00+01:00", [Term(Field.WRITTEN, (Span(NOVEMBER_MS, NOVEMBER_MS),))]),
        ("snoozed:yes", [Term(Field.SNOOZED, (Span(NOW_MS + 1, None),))]),
        ("-snoozed:yes", [Term(Field.SNOOZED, (Span(NOW_MS + 1, None),), negated=True)]),
        ("snoozed:>2026-11-01", [Term(Field.SNOOZED, (Span(NOVEMBER_MS + DAY_MS, None),))]),
        ('text:"timed out"', [Term(Field.TEXT, (Part("timed out"),))]),
        ("text~time*", [Term(Field.TEXT, (Part("time*"),))]),
        ("timeout", [Term(Field.TEXT, (Part("timeout"),))]),
        ('-"timed out"', [Term(Field.TEXT, (Part("timed out"),), negated=True)]),
        ("10:30 a.b.C", [Term(Field.TEXT, (Part("10:30"),)), Term(Field.TEXT, (Part("a.b.C"),))]),
        ('payload~"needle"', [Term(Field.PAYLOAD, (Part(b"needle"),))]),
        ("payload:0xdead", [Term(Field.PAYLOAD, (Part(b"\xde\xad"),))]),
    ],
)
def test_a_text_is_read(text: str, expected: list[Term]) -> None:
    assert list(parse(text, NOW_MS).terms) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a stat:x", "character 3: no field is called 'stat', did you mean 'state'?"),
        ("agee:>1h", "character 1: no field is called 'agee', did you mean 'age'?"),
        ("http://x", "To search for it as text, put it in quotes"),
        ("state:pending,replaied", "character 15: no state is called 'replaied', did you mean 'replayed'?"),
        ("state:*", "no state is called '*'"),
        ("handler~x", "character 8: only text and payload are searched; handler:abc* is what begins with abc"),
        ("handler:>3", "character 9: handler has no order"),
        ("header:x", "character 1: expected header.NAME:VALUE"),
        ("header.tenant", "character 14: "),
        ("key:", 'character 5: expected a value; nothing is ""'),
        ("handler:a,", 'character 11: expected a value; nothing is ""'),
        ("- a", "character 2: expected a value"),
        ('""', "expected something to search for"),
        ('handler:"a', "character 9: the quotes are not closed"),
        ("handler:a\\", "character 10: expected a character behind the backslash"),
        ("key:0x2", "character 5: '0x2' is no even number of hexadecimal digits; as text it goes in quotes"),
        ("id:3", "character 4: expected a dead letter as PARTITION:OFFSET"),
        ("attempts:two", "character 10: attempts: expected a whole number, got 'two'"),
        ("attempts:-3", "expected a whole number, got '-3'"),
        ("attempts:1234567890123456789", "expected a whole number"),
        ("attempts:٣", "expected a whole number"),
        ("offset:5..3", "character 8: the range 5..3 ends before it begins"),
        ("offset:5..x", "character 11: offset: expected a whole number, got 'x'"),
        ("offset:..", "expected a range with a beginning or an end"),
        ("age:1h", "no letter has exactly this age; expected for instance age:>1h or age:1h..2h"),
        ("age:>1y", "age: expected a duration as 90s, 15m, 1h, 2d or 1w, got '1y'"),
        ("age:>9999w", "age: 9999w ago was before 1970"),
        ("written:>1h", "written: expected 2026-11-01 or 2026-11-01T14:30:00Z, got '1h'; age counts back from now"),
        ("written:2026-13-01", "character 9: written: expected 2026-11-01"),
        ("written:1969-12-31", "written: expected a time from 1970 to 9998"),
        ("written:9999-01-02", "written: expected a time from 1970 to 9998"),
        ("written:0001-01-01T00:00+14:00", "written: expected a time from 1970 to 9998"),
        ("handler:" + "x" * (LONGEST_VALUE + 1), f"expected at most {LONGEST_VALUE} characters"),
        ("key:" + "ü" * LONGEST_VALUE, f"expected at most {LONGEST_VALUE} bytes"),
        ("x " * (MOST_VALUES + 1), f"expected at most {MOST_VALUES} values in all"),
        ("a \udc80", "character 3: this is no character"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text, NOW_MS)

    assert told in str(refused.value)
    assert str(refused.value).startswith("filter, character ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  timeout   state:PENDING ", "text:timeout state:pending"),
        ("age:>1h", "written:<2026-11-28T11:00:00Z"),
        ("age:<1h", "written:>2026-11-28T11:00:00Z"),
        ("written:2026-11-01", "written:2026-11-01T00:00:00Z..2026-11-01T23:59:59.999Z"),
        ("snoozed:yes", "snoozed:>2026-11-28T12:00:00Z"),
        ("attempts:>=3", "attempts:>2"),
        ("handler:* key:0x00ff key:0x6162", "handler:* key:0x00ff key:ab"),
        ('-key:"0x2a"', '-key:"0x2a"'),
        ("payload:a", "payload~a"),
    ],
)
def test_its_text_says_the_same_at_any_time(text: str, shown: str) -> None:
    filter_ = parse(text, NOW_MS)

    assert filter_.text == shown
    assert parse(filter_.text, NOW_MS + DAY_MS) == filter_


def numbers(most: int) -> st.SearchStrategy[Span]:
    ends = st.none() | st.integers(0, most)
    return (
        st.tuples(ends, ends)
        .filter(lambda pair: pair != (None, None) and (None in pair or pair[0] <= pair[1]))
        .map(lambda pair: Span(*pair))
    )


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORDS = st.one_of(TEXTS.map(Exactly), TEXTS.map(Prefix))
BYTES = st.one_of(
    st.binary(max_size=8).map(Exactly),
    st.binary(max_size=8).map(Prefix),
    TEXTS.map(lambda text: Exactly(text.encode())),
)
VALUES = {
    Field.STATE: st.sampled_from([Exactly(state.value) for state in State]),
    Field.ID: st.builds(LetterId, st.integers(0, 10**9 - 1), st.integers(0, 10**18 - 1)),
    Field.KEY: BYTES,
    Field.HEADER: BYTES,
    Field.TEXT: TEXTS.filter(bool).map(Part),
    Field.PAYLOAD: st.binary(min_size=1, max_size=8).map(Part),
    Field.WRITTEN: numbers(253_370_764_800_000),
    Field.SNOOZED: numbers(253_370_764_800_000),
    **dict.fromkeys([Field.PARTITION, Field.OFFSET, Field.ATTEMPTS, Field.REPLAYS], numbers(10**18 - 1)),
}


@st.composite
def terms(draw: st.DrawFn) -> Term:
    field = draw(st.sampled_from(Field))
    values = draw(st.lists(VALUES.get(field, WORDS), min_size=1, max_size=3))
    header = draw(TEXTS) if field is Field.HEADER else None
    return Term(field, tuple(values), header, draw(st.booleans()))


@given(st.lists(terms(), max_size=4), st.integers(0, 10**13))
def test_whatever_a_filter_is_its_text_is_read_as_it(chosen: list[Term], now_ms: int) -> None:
    filter_ = Filter.of(*chosen)

    assert parse(filter_.text, now_ms) == filter_


@given(st.text(st.characters()))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        filter_ = parse(text, NOW_MS)
    except ConfigurationError:
        return

    assert parse(filter_.text, NOW_MS) == filter_


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("", True),
        ("state:pending reason:poison handler:orders group:shop topic:orders fp:ab12", True),
        ("exception:shop.errors.Refused", True),
        ("exception:Refused", True),
        ("exception:shop.*", True),
        ("exception:Ref*", True),
        ("exception:errors", False),
        ("text:REFUSED", True),
        ('text:"straße 7"', True),
        ("text:STRASSE", True),
        ("text:nowhere", False),
        ("-text:nowhere", True),
        ("key:42", True),
        ("key:0x3432", True),
        ("key:4*", True),
        ("key:43", False),
        ("header.tenant:acme", True),
        ("header.tenant:second", True),
        ("header.tenant:ac*", True),
        ("header.tenant:sw", False),
        ("header.empty:*", False),
        ("header.other:acme", False),
        ("id:3:1042", True),
        ("partition:3 offset:1000..1042", True),
        ("attempts:>2", True),
        ("attempts:>3", False),
        ("replays:0", True),
        ("assigned:*", False),
        ("-assigned:*", True),
        ("age:>30m age:<2h", True),
        ("payload~qty", True),
        ("payload~QTY", False),
        ("reason:exhausted,poison", True),
        ("reason:exhausted handler:orders", False),
    ],
)
def test_a_filter_chooses_letters(text: str, held: bool) -> None:
    one = letter(
        3,
        1042,
        written_ms=NOW_MS - HOUR_MS,
        reason="poison",
        handler="orders",
        group="shop",
        fingerprint="ab12",
        exception="shop.errors.Refused",
        message="refused: Straße 7",
        key=b"42",
        value=b'{"qty": 1}',
        own_headers=(("tenant", b"acme"), ("tenant", b"second"), ("empty", None)),
        attempts=3,
    )

    assert matches(parse(text, NOW_MS), one, None) is held


def test_what_was_said_of_a_letter_is_asked_for() -> None:
    said = disposition(State.PENDING, assigned_to="anna", snoozed_until_ms=NOW_MS + HOUR_MS)

    held = [
        text
        for text in ("assigned:anna", "snoozed:yes", "state:pending")
        if matches(parse(text, NOW_MS), letter(), said)
    ]

    assert held == ["assigned:anna", "snoozed:yes", "state:pending"]
    assert not matches(parse("snoozed:yes", NOW_MS + HOUR_MS), letter(), said)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "state:pending,replayed"),
        ("handler:a", "state:pending,replayed handler:a"),
        ("handler:a state:discarded", "handler:a state:discarded"),
        ("-state:discarded", "-state:discarded"),
    ],
)
def test_states_are_meant_that_a_filter_says_nothing_of(text: str, shown: str) -> None:
    filter_ = parse(text, NOW_MS).in_states(State.PENDING, State.REPLAYED)

    assert filter_.text == shown
    assert parse(filter_.text, NOW_MS) == filter_


def test_the_topic_of_an_origin_is_known_also_where_the_rest_is_not() -> None:
    assert matches(parse("topic:orders", NOW_MS), letter(origin=None, origin_topic="orders"), None)


def test_payloads_are_asked_for_apart() -> None:
    filter_ = parse("handler:orders payload~needle -payload~hay", NOW_MS)

    assert filter_.scans
    assert filter_.without_payload == parse("handler:orders", NOW_MS)
    assert [payload_matches(filter_, value) for value in (b"a needle", b"a needle in hay", None)] == [
        True,
        False,
        False,
    ]
