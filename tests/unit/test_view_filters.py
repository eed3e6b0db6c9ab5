"""What the view's database chooses is what a filter means, for any letters and any filter."""

from __future__ import annotations

import string
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from dead_letters import NOW_MS, TOPIC, disposition, letter
from hypothesis import given
from hypothesis import strategies as st

from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError
from streamworker.record import Origin
from streamworker.replay.dead_record import LetterId
from streamworker.replay.filters import (
    LONGEST_VALUE,
    SEARCHED_CHARS,
    Exactly,
    Field,
    Filter,
    Part,
    Prefix,
    Span,
    Term,
    matches,
    parse,
)
from streamworker.replay.states import State
from streamworker.replay.view import Said, View

if TYPE_CHECKING:
    from pathlib import Path

    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.filters import Value
    from streamworker.replay.states import Disposition

# Some that databases and patterns know as special, and some at the edge of what is kept.
SOME_TEXTS = ["", "a", "AB", "b.a", "%", "ä", "Ä", "ß", "a\0b", "x" * LONGEST_VALUE]
LONG_TEXTS = [*SOME_TEXTS, "abc", "ss", "x.b.a", "x" * (LONGEST_VALUE + 1), "a" * SEARCHED_CHARS + "b"]
SOME_BYTES = [b"", b"a", b"\0", b"\1", b"\2", b"\2a", b"a\0", b"a\0a", b"\xff", b"x" * LONGEST_VALUE]
LONG_BYTES = [*SOME_BYTES, b"ab", b"a\0b", b"\2a\0", b"x" * (LONGEST_VALUE + 1)]
NAMES = st.sampled_from(["a", "\0"])
NUMBERS = st.integers(0, 4)
LETTERS = st.builds(
    letter,
    NUMBERS,
    NUMBERS,
    written_ms=st.none() | NUMBERS,
    key=st.none() | st.sampled_from(LONG_BYTES),
    own_headers=st.lists(st.tuples(NAMES, st.none() | st.sampled_from(LONG_BYTES)), max_size=3).map(tuple),
    origin=st.none() | st.builds(Origin, st.sampled_from(LONG_TEXTS), NUMBERS, NUMBERS),
    group=st.none() | st.sampled_from(LONG_TEXTS),
    handler=st.none() | st.sampled_from(LONG_TEXTS),
    reason=st.none() | st.sampled_from(LONG_TEXTS),
    exception=st.none() | st.sampled_from(LONG_TEXTS),
    message=st.none() | st.sampled_from(LONG_TEXTS),
    fingerprint=st.none() | st.sampled_from(LONG_TEXTS),
    attempts=st.none() | NUMBERS | st.just(2**70),
    replay_count=NUMBERS,
)
DISPOSITIONS = st.none() | st.builds(
    disposition,
    st.sampled_from(State),
    assigned_to=st.none() | st.sampled_from(SOME_TEXTS),
    snoozed_until_ms=st.none() | NUMBERS,
)
WORDS = st.sampled_from([kind(text) for text in SOME_TEXTS for kind in (Exactly, Prefix)])
RAW = st.sampled_from([kind(part) for part in SOME_BYTES for kind in (Exactly, Prefix)])
ENDS = st.tuples(NUMBERS, NUMBERS).map(sorted)
SPANS = st.one_of(
    ENDS.map(lambda ends: Span(*ends)),
    NUMBERS.map(lambda low: Span(low, None)),
    NUMBERS.map(lambda high: Span(None, high)),
)
VALUES: dict[Field, st.SearchStrategy[Value]] = {
    Field.STATE: st.sampled_from(State).map(lambda state: Exactly(state.value)),
    Field.ID: st.builds(LetterId, NUMBERS, NUMBERS),
    Field.KEY: RAW,
    Field.HEADER: RAW,
    Field.TEXT: st.sampled_from([Part(text) for text in SOME_TEXTS if text]),
    **dict.fromkeys(
        [Field.PARTITION, Field.OFFSET, Field.ATTEMPTS, Field.REPLAYS, Field.WRITTEN, Field.SNOOZED], SPANS
    ),
}


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    chosen = []
    for field in draw(st.lists(st.sampled_from([field for field in Field if field is not Field.PAYLOAD]), max_size=2)):
        values = draw(st.lists(VALUES.get(field, WORDS), min_size=1, max_size=2))
        chosen.append(
            Term(field, tuple(values), draw(NAMES) if field is Field.HEADER else None, negated=draw(st.booleans()))
        )
    return Filter.of(*chosen)


def each(name: str, values: list[object]) -> list[DeadRecord]:
    return [letter(0, number, **{name: value}) for number, value in enumerate(values)]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "letters", "asked"),
    [
        (Field.HANDLER, each("handler", [*LONG_TEXTS, None]), SOME_TEXTS),
        (Field.EXCEPTION, each("exception", [*LONG_TEXTS, None]), SOME_TEXTS),
        (Field.TOPIC, each("origin", [Origin(text, 0, 0) for text in LONG_TEXTS]), SOME_TEXTS),
        (Field.KEY, each("key", [*LONG_BYTES, None]), SOME_BYTES),
        (
            Field.HEADER,
            each("own_headers", [(("x", b"a"), ("a", value), ("\0", b"x")) for value in [*LONG_BYTES, None]]),
            SOME_BYTES,
        ),
        (Field.TEXT, each("message", LONG_TEXTS), SOME_TEXTS),
        (Field.TEXT, each("exception", LONG_TEXTS), SOME_TEXTS),
    ],
)
def test_special_values_are_found_as_any(field: Field, letters: list[DeadRecord], asked: list[str | bytes]) -> None:
    kinds = [Part] if field is Field.TEXT else [Exactly, Prefix]
    header = "a" if field is Field.HEADER else None
    with closing(View(TOPIC, SystemClock())) as view:
        view.add(letters)

        for value in asked:
            for kind in kinds:
                filter_ = Filter.of(Term(field, (kind(value),), header))
                expected = [one.id for one in letters if matches(filter_, one, None)]
                assert list(view.ids(filter_)) == expected, filter_


@given(
    st.lists(st.tuples(LETTERS, DISPOSITIONS), max_size=8, unique_by=lambda pair: pair[0].id),
    st.lists(filters(), max_size=8),
)
def test_the_database_chooses_what_a_filter_means(
    letters: list[tuple[DeadRecord, Disposition | None]], chosen: list[Filter]
) -> None:
    with closing(View(TOPIC, SystemClock())) as view:
        view.add([one for one, _ in letters])
        view.say([Said(one.id, 0, said) for one, said in letters if said is not None])

        for filter_ in chosen:
            expected = sorted(one.id for one, said in letters if matches(filter_, one, said))
            assert list(view.ids(filter_)) == expected
            assert view.count(filter_) == len(expected)


@pytest.mark.parametrize("text", ["payload~a", "state:pending -payload~a"])
def test_payloads_cannot_be_asked_of_it(tmp_path: Path, text: str) -> None:
    with (
        closing(View(TOPIC, SystemClock(), folder=tmp_path)) as view,
        pytest.raises(ConfigurationError, match="payload~"),
    ):
        view.page(parse(text, NOW_MS), limit=1)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), st.text(max_size=40))
def test_capitals_make_no_difference_in_any_script(wanted: str, message: str) -> None:
    one = letter(message=message + string.ascii_letters)

    with closing(View(TOPIC, SystemClock())) as view:
        view.add([one])
        filter_ = Filter.of(Term(Field.TEXT, (Part(wanted),)))

        assert view.count(filter_) == matches(filter_, one, None)
