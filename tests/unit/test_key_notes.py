"""Notes of parked keys: what is written is read, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.dlq.key_notes import Note, ParkedKey, ParkedKeys, letter_of, read_note
from streamworker.record import TopicPartition

AT = TopicPartition("orders", 3)
NOTE = Note(ParkedKey("shop", AT, b"k"), 17)


@given(st.text(), st.text(), st.integers(0, 2**31), st.binary(), st.none() | st.integers(0, 2**63))
def test_a_note_is_read_as_it_was_written(group: str, topic: str, number: int, key: bytes, first: int | None) -> None:
    note = Note(ParkedKey(group, TopicPartition(topic, number), key), first)
    letter = letter_of(note, "dlq.keys", 5)

    assert read_note(letter.key, letter.value) == note
    assert (letter.topic, letter.partition, letter.timestamp_ms) == ("dlq.keys", 0, 5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b'{"first": 1}'),
        (b"", b'{"first": 1}'),
        (b'["g","t",1]', b'{"first": 1}'),
        (b'["g","t"]\nk', b'{"first": 1}'),
        (b'["g","t","1"]\nk', b'{"first": 1}'),
        (b'["g","t",true]\nk', b'{"first": 1}'),
        (b'[1,"t",1]\nk', b'{"first": 1}'),
        (b'["g",null,1]\nk', b'{"first": 1}'),
        (b'{"g":1}\nk', b'{"first": 1}'),
        (b"17\nk", b'{"first": 1}'),
        (b'["g","t",1]\nk', b"{}"),
        (b'["g","t",1]\nk', b'{"first": "1"}'),
        (b'["g","t",1]\nk', b"[1]"),
        (b'["g","t",1]\nk', b"\xff"),
        (b"\xff\xfe\nk", None),
        (b"[" * 100_000 + b"\nk", None),
    ],
)
def test_what_is_no_note_is_none(key: bytes | None, value: bytes | None) -> None:
    assert read_note(key, value) is None


def test_a_key_is_parked_from_the_lowest_offset_until_it_is_released() -> None:
    keys = ParkedKeys("shop")
    seen = keys.of(AT)

    assert keys.take(NOTE) is None
    assert seen == {b"k": 17}
    assert keys.take(Note(NOTE.parked, 20)) == 17
    assert keys.take(Note(NOTE.parked, 9)) == 17
    assert keys.take(Note(NOTE.parked, None)) == 9
    assert keys.take(Note(NOTE.parked, None)) is None
    assert seen == {}


def test_other_groups_and_partitions_are_apart() -> None:
    keys = ParkedKeys("shop")
    keys.take(Note(ParkedKey("another", AT, b"k"), 1))
    keys.take(Note(ParkedKey("shop", TopicPartition("orders", 4), b"k"), 1))

    assert keys.of(AT) == {}
