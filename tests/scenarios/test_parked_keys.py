"""`on_exhausted="dlq_key"`: later records of a key follow its dead letter, whoever owns the partition."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.worlds import IN, OTHER, Obedient, ObedientBatches, calls, handled, headers_of, letters_from, make_world

from streamworker import BatchFailed, DeadLetter, DecodeError, Handler, Ordering, PoisonError, Retry, Rule
from streamworker.config import DeadLetterConfig
from streamworker.dlq.key_notes import Note, ParkedKey, letter_of
from streamworker.record import Ending, TopicPartition
from streamworker.testing.handler_run import run_handler
from streamworker.worker import Bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Record, Records
    from streamworker.testing.virtual_world import Member, VirtualWorld

FOLLOWED = DeadLetter("dlq", on_exhausted="dlq_key")


class Followed(Obedient):
    """Does what each record says, and lets a key follow its dead letter."""

    dead_letter = FOLLOWED


class FollowedBatches(ObedientBatches):
    """The same in batches."""

    dead_letter = FOLLOWED


def give(world: VirtualWorld, *records: tuple[bytes | None, bytes], partition: int = 0) -> None:
    """Append records, each a key and a value."""
    for key, value in records:
        world.broker.produce("in", partition, value, key=key)


def note(world: VirtualWorld, key: bytes, first: int | None, *, group: str = "test", of: TopicPartition = IN) -> None:
    """Write a note as another member does, or the command line."""
    world.broker.append(letter_of(Note(ParkedKey(group, of, key), first), "dlq.keys", 0))


def reasons(world: VirtualWorld) -> list[str]:
    """Of all dead letters."""
    return [headers_of(world, number)["sw-reason"] for number in range(len(world.broker.records("dlq")))]


def pauses(member: Member) -> set[str]:
    """Reasons for which a partition was held."""
    return {reason for _, reason in member.story.pauses}


@pytest.mark.parametrize("poison", [b"poison", b"broken"])
@pytest.mark.parametrize("handler", [Followed, FollowedBatches])
def test_later_records_of_a_key_follow_its_dead_letter(handler: type[Followed], poison: bytes) -> None:
    """Promise 2. They go in their order and without a call, and other keys go on."""
    world = make_world()
    give(world, (b"a", b"1"), (b"a", poison), (b"b", b"2"), (b"a", b"3"), (b"b", b"4"), (b"a", b"5"))
    member = world.start(handler)
    world.run_to_end("in")
    give(world, (b"a", b"6"), (b"b", b"7"))
    world.run_to_end("in")

    assert set(handled(world)) == {0, 2, 4, 7}
    assert letters_from(world) == [poison, b"3", b"5", b"6"]
    assert reasons(world)[1:] == ["parked_behind"] * 3
    assert headers_of(world, 3)["sw-parked-behind"] == "1"
    assert headers_of(world, 3)["sw-attempts"] == "0"
    assert member.story.keys == [("parked", IN, 1)]
    assert member.story.count(Ending.DEAD_LETTERED) == 4
    assert world.stop(member) == 0


def test_a_released_key_is_handled_again() -> None:
    world = make_world()
    give(world, (b"a", b"poison"), (b"a", b"behind"))
    member = world.start(Followed)
    world.run_to_end("in")
    note(world, b"a", None)
    world.run_for(1)
    give(world, (b"a", b"fine"), (b"a", b"poison"), (b"a", b"behind again"))
    world.run_to_end("in")

    assert handled(world) == [2]
    assert letters_from(world) == [b"poison", b"behind", b"poison", b"behind again"]
    assert member.story.keys == [("parked", IN, 0), ("released", IN, 0), ("parked", IN, 3)]


def test_whoever_comes_next_knows_the_parked_keys() -> None:
    world = make_world()
    give(world, (b"a", b"poison"), (b"b", b"1"))
    first = world.start(Followed)
    world.run_to_end("in")
    world.stop(first)

    give(world, (b"a", b"behind"), (b"b", b"2"))
    second = world.start(Followed)
    world.run_to_end("in")

    assert handled(world) == [1, 3]
    assert reasons(world) == ["poison", "parked_behind"]
    assert "parked_keys_unread" in pauses(second)


@pytest.mark.parametrize("at_ms", range(1, 40))
def test_a_key_that_a_dead_worker_has_parked_stays_parked(at_ms: int) -> None:
    """Promise 2 through a crash at any moment: a letter may be there twice, and nothing of its key is handled after."""
    world = make_world()
    world.broker.produce_latency_s = world.broker.notes_latency_s = 0.006
    give(world, (b"a", b"1"), (b"a", b"poison"), (b"b", b"2"), (b"a", b"3"), (b"a", b"4"))
    first = world.start(Followed)
    world.run_for(at_ms / 1000)
    world.kill(first)
    world.start(Followed)
    world.run_to_end("in")

    assert {3, 4}.isdisjoint(calls(world))
    assert {1, 3, 4} <= {int(headers_of(world, one)["sw-from-offset"]) for one in range(len(letters_from(world)))}


class Nothing:
    """Cannot decode what says so."""

    def decode(self, data: bytes, topic: str) -> bytes:
        if data == b"garbage":
            raise DecodeError("garbage")
        return data

    def encode(self, value: bytes, topic: str) -> bytes:
        return value


def test_nothing_of_its_slice_overtakes_an_undecodable_record() -> None:
    class Decoding(Followed):
        value = Nothing()

    class DecodingBatches(FollowedBatches):
        value = Nothing()

    for handler in (Decoding, DecodingBatches):
        world = make_world()
        give(world, (b"a", b"1"), (b"a", b"garbage"), (b"b", b"2"), (b"a", b"3"))
        world.start(handler)
        world.run_to_end("in")

        assert set(calls(world)) == {0, 2}
        assert reasons(world) == ["undecodable_value", "parked_behind"]


def test_of_a_batch_that_names_the_record_the_rest_of_its_key_follows() -> None:
    class Naming(FollowedBatches):
        def handle(self, records: Records[bytes]) -> None:
            for index, record in enumerate(records):
                if record.value == b"poison":
                    raise BatchFailed(index, PoisonError("bad"))

    world = make_world()
    give(world, (b"a", b"1"), (b"a", b"poison"), (b"b", b"2"), (b"a", b"3"), (b"b", b"poison"), (b"b", b"4"))
    world.start(Naming)
    world.run_to_end("in")

    assert set(handled(world)) == {0, 2}
    assert reasons(world) == ["poison", "parked_behind", "poison", "parked_behind"]


def test_with_order_by_partition_other_keys_go_on() -> None:
    class InOrder(Followed):
        ordering = Ordering.PARTITION

    world = make_world()
    give(world, (b"a", b"broken"), (b"b", b"1"), (b"a", b"2"), (b"b", b"3"))
    world.start(InOrder)
    world.run_to_end("in")

    assert handled(world) == [1, 3]
    assert reasons(world) == ["exhausted", "parked_behind"]


def test_records_without_a_key_and_skipped_ones_park_nothing() -> None:
    class Skipping(Followed):
        rules = (Rule.skip(ConnectionError),)

    world = make_world()
    give(world, (None, b"poison"), (None, b"1"), (b"a", b"broken"), (b"a", b"2"))
    member = world.start(Skipping)
    world.run_to_end("in")

    assert sorted(handled(world)) == [1, 3]
    assert sorted(reasons(world)) == ["poison", "skipped"]
    assert world.broker.records("dlq.keys") == []
    assert member.story.keys == []


def test_a_key_whose_note_is_refused_holds_its_partition_and_not_another() -> None:
    """Edge case 56. Nothing of the key is handled before it is known to be parked."""
    world = make_world(2)
    give(world, (b"a", b"poison"), (b"a", b"1"))
    give(world, (b"c", b"2"), partition=1)
    world.broker.produce_error = lambda topic: "_MSG_TIMED_OUT" if topic == "dlq.keys" else None
    member = world.start(Followed)
    world.run_for(30)
    stood, committed = calls(world), world.broker.committed(IN)

    world.broker.produce_error = lambda _topic: None
    world.run_to_end("in", timeout_s=40)

    assert (stood, committed) == ([0], 0)
    assert [(key, reason) for key, reason, _ in member.story.stops] == [(IN, "dead_letter_refused")]
    assert handled(world, OTHER) == [0]
    assert reasons(world) == ["poison", "parked_behind"]
    assert calls(world) == [0]


def test_nothing_is_handled_before_all_notes_are_read() -> None:
    """The notes' topic has no leader for a while, then the cluster does not say how far they go."""
    world = make_world()
    note(world, b"a", 0)
    give(world, (b"a", b"1"), (b"b", b"2"))
    world.broker.leaderless = {TopicPartition("dlq.keys", 0)}
    world.broker.ends_error = lambda: "_TIMED_OUT"
    member = world.start(Followed)
    world.run_for(5)
    world.broker.ends_error = lambda: None
    world.run_for(5)
    before = calls(world)
    world.broker.leaderless = set()
    world.run_to_end("in", timeout_s=3)

    assert before == []
    assert handled(world) == [1]
    assert pauses(member) == {"parked_keys_unread"}


def test_notes_of_other_groups_and_partitions_are_not_ours(caplog: pytest.LogCaptureFixture) -> None:
    world = make_world(2)
    note(world, b"a", 0, group="another")
    note(world, b"a", 0, of=OTHER)
    world.broker.produce("dlq.keys", 0, b"no note", key=b"something else")
    give(world, (b"a", b"1"))
    with caplog.at_level(logging.WARNING):
        world.start(Followed)
        world.run_to_end("in")

    assert handled(world) == [0]
    assert "is no note of a parked key: b'something else'" in caplog.text


def test_what_lies_before_the_parked_record_is_handled() -> None:
    """After a crash the group's offset may lie before it."""
    world = make_world()
    note(world, b"a", 1)
    give(world, (b"a", b"before"), (b"a", b"parked"))
    world.start(Followed)
    world.run_to_end("in")

    assert handled(world) == [0]
    assert letters_from(world) == [b"parked"]


def test_a_dead_letter_before_the_parked_record_parks_what_lies_between() -> None:
    """A worker that has lost the partition has parked the key at a later record."""
    world = make_world()
    note(world, b"a", 2)
    give(world, (b"a", b"poison"), (b"a", b"between"), (b"a", b"parked"))
    world.start(Followed)
    world.run_for(1)
    note(world, b"a", 2)
    world.run_for(1)
    give(world, (b"a", b"after"))
    world.run_to_end("in")

    assert calls(world) == [0]
    assert letters_from(world) == [b"poison", b"between", b"parked", b"after"]
    assert headers_of(world, 3)["sw-parked-behind"] == "0"


def test_a_bounded_run_ends_where_no_more_keys_may_be_parked() -> None:
    """Nobody releases keys of a run that waits for its end."""
    world = make_world(dead_letters=DeadLetterConfig(max_parked_keys=1))
    give(world, (b"a", b"poison"), (b"b", b"poison"), (b"b", b"1"), (b"c", b"2"))
    member = world.start(Followed, bounds=Bounds(until_end=True))
    world.run(lambda: member.worker.stopping is not None, timeout_s=60)

    assert world.stop(member) == 3


def test_a_key_that_is_parked_while_its_record_waits_for_a_retry_takes_it_along() -> None:
    """A worker that has lost the partition may park a key late; the topic counts."""
    world = make_world()
    give(world, (b"a", b"broken"), (b"a", b"1"), (b"b", b"2"))
    world.start(Followed)
    world.run(lambda: bool(calls(world)))
    note(world, b"a", 0)
    world.run_to_end("in")

    assert calls(world).count(0) < 4
    assert handled(world) == [2]
    assert reasons(world) == ["parked_behind"] * 2


def test_no_more_keys_are_parked_than_may_be() -> None:
    """The partition stands still with the record in its hand, until keys are released."""
    world = make_world(dead_letters=DeadLetterConfig(max_parked_keys=2))
    give(world, *[(b"%d" % number, b"poison") for number in range(3)], (b"0", b"behind"), (b"9", b"fine"))

    class OneByOne(Followed):
        concurrency = 1

    member = world.start(OneByOne)
    world.run_for(60)
    before = letters_from(world), world.broker.committed(IN)
    paused = "parked_keys_full" in pauses(member)
    note(world, b"1", None)
    world.run_to_end("in")

    assert before == ([b"poison", b"poison", b"behind"], 2)
    assert paused
    assert letters_from(world) == [b"poison", b"poison", b"behind", b"poison"]
    assert handled(world) == [4]


def test_a_drain_waits_for_the_note() -> None:
    world = make_world()
    world.broker.notes_latency_s = 2.0
    give(world, (b"a", b"poison"))
    member = world.start(Followed)
    world.run(lambda: bool(world.broker.records("dlq.keys")))
    code = world.stop(member)

    assert code == 0
    assert world.caught_up(IN)


def test_a_drain_does_not_wait_for_ever_for_the_note() -> None:
    world = make_world()
    give(world, (b"a", b"poison"))
    member = world.start(Followed)
    world.run(lambda: bool(world.broker.records("dlq")))
    world.broker.leaderless = {TopicPartition("dlq.keys", 0)}
    code = world.stop(member)

    assert code == 3
    assert member.story.exit == (3, ("dead letters of in[0]: 1",))
    assert not world.caught_up(IN)


def test_followers_draw_on_the_budget() -> None:
    """Figure of F-67: a key that most records have does not empty the topic into the dead letters."""
    world = make_world(dead_letters=DeadLetterConfig(budget=20))
    give(world, (b"a", b"poison"), *[(b"a", b"behind")] * 100)
    member = world.start(Followed)
    world.run_for(100)

    assert 20 <= len(letters_from(world)) <= 20 + 11
    assert "dead_letter_budget" in pauses(member)


def test_run_handler_makes_the_topic() -> None:
    class Poisoned(Handler[bytes]):
        topics: ClassVar[Sequence[str]] = ("in",)
        dead_letter = FOLLOWED
        retry = Retry(attempts=1)

        def handle(self, record: Record[bytes]) -> None:
            raise PoisonError("never")

    run = run_handler(Poisoned, [b"1"])

    assert [letter.reason for letter in run.dead_letters] == ["poison"]
