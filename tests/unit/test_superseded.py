"""Newer records of a failed record's key: which count, how much is read, and what is said when it was not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from memory_log import MemoryLog

from streamworker.errors import ClientError
from streamworker.record import Origin, TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import Target
from streamworker.replay.superseded import DELETED, NO_KEY, NO_ORIGIN, NOT_READ, Asked, Budget, superseded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.replay.superseded import Superseded

ORDERS = TopicPartition("orders", 0)


class Clock:
    """Goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 1.0
        return self.now_s

    def wall_ms(self) -> int:
        return 0


def log_of(keys: str, *, at_once: int = 100) -> MemoryLog:
    """Records of topic orders, each with one of these letters as its key; a blank has none."""
    log = MemoryLog(at_once=at_once)
    for key in keys:
        log.append("orders", key=None if key == " " else key.encode(), value=b"v")
    return log


def asked(key: str | None, offset: int | None, letter: int = 0) -> Asked:
    origin = None if offset is None else Origin("orders", 0, offset)
    return Asked(LetterId(0, letter), origin, None if key is None else key.encode())


def look(log: MemoryLog, *letters: Asked, budget: Budget | None = None) -> Superseded:
    return superseded(log, letters, clock=Clock(), timeout_s=5.0, budget=budget or Budget(seconds=1000.0))


def test_a_later_record_of_the_key_is_newer_and_the_first_one_is_told() -> None:
    found = look(log_of("abcaa"), asked("a", 0), asked("b", 1, 1))

    assert found.newer == {LetterId(0, 0): Target("orders", 0, 3)}
    assert found.complete


def test_an_earlier_record_of_the_key_is_not() -> None:
    found = look(log_of("aab"), asked("a", 1))

    assert (found.newer, found.unknown) == ({}, {})


def test_a_copy_of_the_record_itself_or_of_an_older_one_is_not_newer() -> None:
    log = log_of("aa")
    for offset in (b"0", b"1"):
        origin = [("sw-origin-topic", b"orders"), ("sw-origin-partition", b"0"), ("sw-origin-offset", offset)]
        log.append("orders", key=b"a", headers=origin)

    found = look(log, asked("a", 1))

    assert found.newer == {}
    assert look(log, asked("a", 0)).newer == {LetterId(0, 0): Target("orders", 0, 1)}


def test_a_copy_from_another_topic_is_a_record_like_any_other() -> None:
    log = log_of("a")
    origin = [("sw-origin-topic", b"returns"), ("sw-origin-partition", b"0"), ("sw-origin-offset", b"0")]
    log.append("orders", key=b"a", headers=origin)

    assert look(log, asked("a", 0)).newer == {LetterId(0, 0): Target("orders", 0, 1)}


def test_letters_without_key_or_origin_are_said_to_be_unknown() -> None:
    found = look(log_of("ab"), asked(None, 0), asked("a", None))

    assert found.unknown == {NO_KEY: 1, NO_ORIGIN: 1}


def test_reading_ends_when_all_have_a_newer_record() -> None:
    found = look(log_of("abab" + "c" * 1000, at_once=4), asked("a", 0), asked("b", 1, 1))

    assert len(found.newer) == 2
    assert found.spent.records == 4  # one batch


def test_only_what_is_behind_the_first_of_them_is_read() -> None:
    log = log_of("abcdef")

    look(log, asked("c", 2), asked("e", 4, 1))

    assert log.read_ranges == [{ORDERS: (3, 6)}]


def test_what_the_budget_has_no_room_for_is_said() -> None:
    log = log_of("ab" + "c" * 100 + "a", at_once=10)

    for budget in (Budget(records=30, seconds=1000.0), Budget(bytes=30, seconds=1000.0), Budget(seconds=5.0)):
        found = look(log, asked("a", 0), asked("b", 1, 1), budget=budget)

        assert found.unknown == {NOT_READ: 2}
        assert 30 <= found.spent.records <= 50
    assert list(found.warnings()) == [
        "whether 2 letters are superseded by a newer record of the same key is not known: it was not read to the end"
    ]


def test_what_one_partition_leaves_over_goes_to_the_next_and_no_partition_takes_all() -> None:
    log = MemoryLog(at_once=10)
    for partition, count in ((0, 20), (1, 1000), (2, 150)):
        for _ in range(count):
            log.append("orders", partition, key=b"other", value=b"v")
    letters = [Asked(LetterId(number, 0), Origin("orders", number, 0), b"key") for number in (0, 1, 2)]

    found = superseded(log, letters, clock=Clock(), timeout_s=5.0, budget=Budget(records=300, seconds=1000.0))

    assert found.unknown == {NOT_READ: 2}  # the second has 140 of 280, and so has the third, which would need 149
    assert 290 <= found.spent.records <= 310


def test_where_retention_has_taken_records_nothing_is_claimed() -> None:
    log = log_of("abbbbc")
    log.delete_before("orders", 0, 3)

    found = look(log, asked("a", 0), asked("b", 1, 1), asked("b", 2, 2))

    assert found.newer == {LetterId(0, 1): Target("orders", 0, 3), LetterId(0, 2): Target("orders", 0, 3)}
    assert found.unknown == {DELETED: 1}


def test_a_topic_that_cannot_be_read_is_said_and_the_others_are_read() -> None:
    log = log_of("aa")
    log.errors[TopicPartition("gone", 0)] = ClientError("there is none", code="UNKNOWN_TOPIC_OR_PART")

    found = look(log, Asked(LetterId(0, 9), Origin("gone", 0, 0), b"a"), asked("a", 0))

    assert found.newer == {LetterId(0, 0): Target("orders", 0, 1)}
    assert found.unknown == {"gone cannot be read (UNKNOWN_TOPIC_OR_PART)": 1}


def test_a_warning_names_some_of_them() -> None:
    letters = [asked("a", offset, offset) for offset in range(5)]

    [warning] = look(log_of("aaaaaa"), *letters).warnings()

    assert warning == (
        "5 letters are superseded by a newer record of the same key, for instance 0:0 by orders[0]@1, 0:1 by"
        " orders[0]@2, 0:2 by orders[0]@3; sent again, they may undo what that one did"
    )


def test_of_a_long_key_the_beginning_that_views_keep_will_do() -> None:
    log = MemoryLog()
    log.append("orders", key=b"k" * 3000)
    log.append("orders", key=b"k" * 3000)

    found = look(log, Asked(LetterId(0, 0), Origin("orders", 0, 0), b"k" * 1025))

    assert found.newer == {LetterId(0, 0): Target("orders", 0, 1)}


@given(keys=st.text("abc ", max_size=30), at_once=st.integers(1, 7), chosen=st.sets(st.integers(0, 29)))
def test_with_budget_enough_it_says_what_the_log_says(keys: str, at_once: int, chosen: set[int]) -> None:
    offsets = [one for one in sorted(chosen) if one < len(keys)]
    letters = [asked(None if keys[one] == " " else keys[one], one, one) for one in offsets]

    found = look(log_of(keys, at_once=at_once), *letters)

    expected = {one: _later(keys, one) for one in offsets if keys[one] != " "}
    assert {letter.offset: target.offset for letter, target in found.newer.items()} == {
        one: later[0] for one, later in expected.items() if later
    }
    assert sum(found.unknown.values()) == sum(keys[one] == " " for one in offsets)


def _later(keys: str, offset: int) -> Sequence[int]:
    return [one for one in range(offset + 1, len(keys)) if keys[one] == keys[offset]]
