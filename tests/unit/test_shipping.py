"""How letters are sent and marked: what goes together, what is dropped, and what each error leads to."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import pytest
from fleet.shipped import Stood, chunk_of, stood

from streamworker.errors import ClientError, Misuse
from streamworker.record import Letter, TopicPartition
from streamworker.replay.audit import TOPIC as AUDIT
from streamworker.replay.audit import Kept, read
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import AGAIN, RESTORABLE, State, Target, encode, key_of, state_topic
from streamworker.testing.memory_shipments import MemoryShipmentCluster, Step, memory_shipping
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.replay.shipping import PartitionShipping

LETTERS = TopicPartition("dlq", 1)
STATES = TopicPartition(state_topic("dlq"), 1)
TARGET = TopicPartition("orders.replay.billing", 0)
A, B, C, D = (LetterId(1, offset) for offset in range(4))


class World:
    """A dead-letter topic with four letters in a partition; `waited` are the seconds that were waited between tries."""

    def __init__(self) -> None:
        self.clock = VirtualTime()
        self.cluster = MemoryShipmentCluster({"dlq": 2, STATES.topic: 2, TARGET.topic: 1, "other": 1, AUDIT: 1})
        for _ in range(4):
            self.cluster.write(Letter("dlq", 1, None, b"v", (), 0))
        self.waited: list[float] = []
        self._names = map("w{}".format, count())

    def operator(self) -> PartitionShipping:
        return memory_shipping(
            self.cluster, LETTERS, writer=next(self._names), clock=self.clock, wait=self._wait, audit_key=b"key"
        )

    def says(self, letter: LetterId) -> State | None:
        found = self.stands().states.get(letter)
        return None if found is None else found.state

    def stands(self) -> Stood:
        kept = [
            Kept(0, at, one.value, one.headers) for at, one in enumerate(self.cluster.read(TopicPartition(AUDIT, 0)))
        ]
        copies = [one.headers for one in self.cluster.read(TARGET)]
        return stood(copies, [(one.key, one.value) for one in self.cluster.read(STATES)], kept)

    def once(self, step: Step, act: Callable[[], None], nth: int = 1) -> None:
        """Do something when a step is reached for the nth time."""
        left = iter(range(nth - 1, -1, -1))

        def at(reached: Step) -> None:
            if reached is step and next(left, -1) == 0:
                act()

        self.cluster.at = at

    def _wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return False


@pytest.fixture
def world() -> World:
    return World()


def fails(code: str) -> Callable[[], None]:
    def act() -> None:
        raise ClientError(code, code=code)

    return act


def ships(operator: PartitionShipping, letters: Sequence[LetterId], op_id: str) -> None:
    operator.ship(chunk_of(letters, TARGET.topic, op_id=op_id))


def test_copies_marks_and_the_audit_are_there_together_and_the_mark_says_where_the_copy_is(world: World) -> None:
    shipped = world.operator().ship(chunk_of([A, B], TARGET.topic))

    found = world.stands()
    assert shipped.marked == {A, B}
    assert shipped.sent == {A: Target(*TARGET, 0), B: Target(*TARGET, 1)}
    assert (shipped.dropped, shipped.failed, shipped.uncertain, shipped.exactly_once) == ({}, {}, frozenset(), True)
    assert {letter: one.target for letter, one in found.states.items()} == shipped.sent
    [entry] = [read(one.value) for one in found.audit]
    assert entry is not None
    assert entry.detail == {"filter": "state:pending", "letters": "1:0-1", "count": 2, "sent": 2}
    assert found.anomalies() == {}


@pytest.mark.parametrize("step", [one for one in Step if one is not Step.COMMITTED])
def test_what_fails_before_it_is_committed_is_done_once_by_another_producer(world: World, step: Step) -> None:
    world.once(step, fails("_TIMED_OUT"))

    shipped = world.operator().ship(chunk_of([A, B], TARGET.topic))

    assert shipped.sent.keys() == {A, B}
    assert world.stands().copies.keys() == {b"1:0 first", b"1:1 first"}
    assert world.stands().anomalies() == {}
    assert len(world.waited) == 1


def test_what_was_committed_though_nobody_said_so_is_found_and_the_audit_begins_another_chain(world: World) -> None:
    operator = world.operator()
    world.once(Step.COMMITTED, fails("_TIMED_OUT"))

    first = operator.ship(chunk_of([A, B], TARGET.topic))
    operator.ship(chunk_of([C], TARGET.topic))

    assert first.sent == {A: Target(*TARGET, 0), B: Target(*TARGET, 1)}
    assert world.stands().anomalies() == {}
    assert [entry.sequence for one in world.stands().audit if (entry := read(one.value))] == [0, 0]


def test_a_chunk_whose_end_was_never_known_is_found_by_the_next_call(world: World) -> None:
    operator = world.operator()

    def at(step: Step) -> None:
        if step is Step.COMMITTED:
            world.cluster.at = lambda _: fails("_TIMED_OUT")()
            raise ClientError("gone", code="_TIMED_OUT")

    world.cluster.at = at
    with pytest.raises(ClientError):
        operator.ship(chunk_of([A], TARGET.topic))
    world.cluster.at = lambda _: None
    shipped = operator.ship(chunk_of([A], TARGET.topic))

    assert shipped.marked == {A}
    assert world.stands().anomalies() == {}


def test_who_is_fenced_reads_on_and_drops_what_the_other_has_done(world: World) -> None:
    slow, quick = world.operator(), world.operator()
    world.once(Step.SENT, lambda: ships(quick, [B], "quick"))

    shipped = slow.ship(chunk_of([A, B, C], TARGET.topic, op_id="slow"))

    assert shipped.sent.keys() == {A, C}
    assert shipped.dropped == {B: State.REPLAYED}
    assert world.stands().states[B].op_id == "quick"
    assert world.stands().anomalies() == {}


def test_two_that_fence_each_other_without_end_give_up(world: World) -> None:
    world.cluster.at = lambda step: fails("_FENCED")() if step is Step.BEGUN else None

    with pytest.raises(ClientError, match="_FENCED"):
        world.operator().ship(chunk_of([A], TARGET.topic))

    assert world.waited == sorted(world.waited)
    assert 5 < sum(world.waited) < 30


def test_a_copy_that_is_too_large_is_found_among_the_others_and_only_it_fails(world: World) -> None:
    """A broker refuses a batch for its size, and with it all copies that were in it."""
    world.cluster.refuses = lambda batch: [too_large_if(any(one.value == b"1:1" for one in batch))] * len(batch)

    shipped = world.operator().ship(chunk_of([A, B, C, D], TARGET.topic))

    assert shipped.sent.keys() == {A, C, D}
    assert shipped.failed == {B: f"{TARGET.topic}: MSG_SIZE_TOO_LARGE"}
    assert world.stands().pending([A, B, C, D]) == [B]
    assert world.stands().anomalies() == {}


def too_large_if(found: bool) -> str | None:
    return "MSG_SIZE_TOO_LARGE" if found else None


def test_where_one_target_is_not_allowed_only_its_copies_fail(world: World) -> None:
    """The client tells it of a transaction as a whole."""
    chunk = chunk_of([A, B, C, D], TARGET.topic)
    chunk = replace(chunk, copies={**chunk.copies, C: replace(chunk.copies[C], topic="other")})
    world.cluster.refuses = lambda batch: (
        ["TOPIC_AUTHORIZATION_FAILED" if any(one.topic == "other" for one in batch) else None] * len(batch)
    )

    shipped = world.operator().ship(chunk)

    assert shipped.sent.keys() == {A, B, D}
    assert shipped.failed == {C: "other: TOPIC_AUTHORIZATION_FAILED"}
    assert world.stands().anomalies() == {}


def test_a_topic_that_is_not_there_is_named_before_anything_is_sent(world: World) -> None:
    chunk = chunk_of([A, B], TARGET.topic)
    chunk = replace(chunk, copies={**chunk.copies, B: replace(chunk.copies[B], topic="nowhere")})

    shipped = world.operator().ship(chunk)

    assert shipped.sent.keys() == {A}
    assert shipped.failed == {B: "nowhere: UNKNOWN_TOPIC_OR_PART"}


def test_a_duplicate_is_marked_with_its_letter_and_not_without_it(world: World) -> None:
    chunk = chunk_of([A, B, C, D], TARGET.topic)
    said = dict(chunk.dispositions)
    for duplicate, of in ((C, A), (D, B)):
        said[duplicate] = msgspec.structs.replace(said[duplicate], state=State.DUPLICATE, of=str(of), replay_id=None)
    chunk = replace(chunk, copies={A: chunk.copies[A], B: chunk.copies[B]}, dispositions=said)
    world.cluster.refuses = lambda batch: [too_large_if(any(one.value == b"1:1" for one in batch))] * len(batch)

    shipped = world.operator().ship(chunk)

    assert shipped.marked == {A, C}
    assert shipped.failed.keys() == {B, D}
    assert world.stands().states.keys() == {A, C}


def test_the_audit_that_is_refused_leaves_nothing_and_is_not_tried_again(world: World) -> None:
    world.cluster.refuses = lambda batch: [
        "TOPIC_AUTHORIZATION_FAILED" if one.topic == AUDIT else None for one in batch
    ]

    with pytest.raises(ClientError, match=r"streamworker\.audit: TOPIC_AUTHORIZATION_FAILED"):
        world.operator().ship(chunk_of([A], TARGET.topic))

    assert world.waited == []
    assert world.stands().copies == {}


@pytest.mark.parametrize("missing", [STATES.topic, AUDIT])
def test_without_the_topics_beside_the_letters_nothing_is_sent_and_the_error_names_what_makes_them(
    world: World, missing: str
) -> None:
    world.cluster.lacks = {missing}

    with pytest.raises(ClientError, match=f"{missing}: UNKNOWN_TOPIC_OR_PART; `streamworker topics create`"):
        world.operator().ship(chunk_of([A], TARGET.topic))

    assert world.waited == []
    assert world.stands().copies == {}


def test_what_was_sent_is_sent_again_only_if_that_is_meant_and_the_same_replay_never(world: World) -> None:
    operator = world.operator()
    operator.ship(chunk_of([A], TARGET.topic))

    by_itself = operator.ship(chunk_of([A], TARGET.topic, op_id="2", replay="second"))
    again = operator.ship(chunk_of([A], TARGET.topic, op_id="3", replay="second", expected=AGAIN))
    the_same = operator.ship(chunk_of([A], TARGET.topic, op_id="4", replay="second", expected=AGAIN))

    assert by_itself.dropped == the_same.dropped == {A: State.REPLAYED}
    assert again.sent.keys() == {A}
    assert world.stands().copies == {b"1:0 first": 1, b"1:0 second": 1}


def test_what_is_discarded_is_sent_only_after_it_was_restored(world: World) -> None:
    operator = world.operator()
    operator.ship(chunk_of([A], TARGET.topic, state=State.DISCARDED))

    dropped = operator.ship(chunk_of([A], TARGET.topic))
    operator.ship(chunk_of([A], TARGET.topic, state=State.PENDING, expected=RESTORABLE))
    sent = operator.ship(chunk_of([A], TARGET.topic))

    assert dropped.dropped == {A: State.DISCARDED}
    assert sent.sent.keys() == {A}


def test_what_was_said_of_another_topic_or_another_payload_is_not_believed(world: World) -> None:
    old = chunk_of([A, B, C], TARGET.topic, topic_id="older").dispositions
    other = msgspec.structs.replace(chunk_of([B], TARGET.topic).dispositions[B], payload_sha256="other")
    for letter, said in ((A, old[A]), (B, other), (C, msgspec.structs.replace(old[C], topic_id=None))):
        world.cluster.write(Letter(*STATES, key_of(letter), encode(said), (), 0))

    shipped = world.operator().ship(chunk_of([A, B, C], TARGET.topic, op_id="now"))

    assert shipped.sent.keys() == {A, B}
    assert shipped.dropped == {C: State.REPLAYED}


def test_what_a_later_version_has_said_of_a_letter_is_not_taken_for_nothing(world: World) -> None:
    world.cluster.write(Letter(*STATES, key_of(A), b'{"v":2,"state":"sent"}', (), 0))

    shipped = world.operator().ship(chunk_of([A, B], TARGET.topic))

    assert shipped.sent.keys() == {B}
    assert "not written by this version" in shipped.failed[A]


def test_marks_of_letters_that_are_gone_go_with_the_next_chunk(world: World) -> None:
    world.operator().ship(chunk_of([A, B], TARGET.topic))
    world.cluster.first_letters[LETTERS] = 1

    world.operator().ship(chunk_of([C], TARGET.topic))

    assert world.stands().states.keys() == {B, C}


def test_an_idle_producer_is_let_go_after_a_minute_and_what_it_knew_is_read_again(world: World) -> None:
    operator = world.operator()
    operator.ship(chunk_of([A], TARGET.topic))
    opened: list[Step] = []
    world.cluster.at = lambda step: opened.append(step) if step is Step.OPENED else None

    world.clock.wait(59.0, until=lambda: False)
    operator.idle()
    operator.ship(chunk_of([B], TARGET.topic))
    busy = len(opened)
    world.clock.wait(60.0, until=lambda: False)
    operator.idle()
    shipped = operator.ship(chunk_of([A, C], TARGET.topic, op_id="later", at_ms=1))

    assert (busy, len(opened)) == (0, 1)
    assert shipped.dropped == {A: State.REPLAYED}


def test_letters_of_another_partition_are_refused(world: World) -> None:
    with pytest.raises(Misuse, match="0:7: only letters of partition 1"):
        world.operator().ship(chunk_of([LetterId(0, 7)], TARGET.topic))


class TestWithoutTransactions:
    """A letter is marked as meant to be sent before it is, and as sent after."""

    @pytest.fixture(autouse=True)
    def _forbidden(self, world: World) -> None:
        world.cluster.forbids = "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"

    def test_letters_are_sent_and_marked_and_it_is_said_that_this_is_not_exactly_once(self, world: World) -> None:
        shipped = world.operator().ship(chunk_of([A, B], TARGET.topic))

        assert shipped.sent == {A: Target(*TARGET, 0), B: Target(*TARGET, 1)}
        assert not shipped.exactly_once
        assert (world.says(A), world.says(B)) == (State.REPLAYED, State.REPLAYED)
        assert world.stands().anomalies() == {}

    @pytest.mark.parametrize(("sending", "sent"), [(2, False), (3, True)])
    def test_who_dies_between_the_marks_leaves_letters_that_nobody_sends_by_himself(
        self, world: World, sending: int, sent: bool
    ) -> None:
        world.once(Step.SENDING, dies, nth=sending)
        with pytest.raises(Died):
            world.operator().ship(chunk_of([A], TARGET.topic))

        shipped = world.operator().ship(chunk_of([A, B], TARGET.topic, op_id="rerun"))
        judged = world.operator().ship(
            chunk_of([A], TARGET.topic, op_id="judged", state=State.PENDING, expected=frozenset({State.UNCERTAIN}))
        )

        assert shipped.sent.keys() == {B}
        assert shipped.dropped == {A: State.UNCERTAIN}
        assert (b"1:0" in world.stands().sent) == sent
        assert judged.marked == {A}

    def test_an_error_after_the_first_mark_leaves_letters_uncertain(self, world: World) -> None:
        world.once(Step.SENDING, fails("_TIMED_OUT"), nth=2)

        shipped = world.operator().ship(chunk_of([A], TARGET.topic))

        assert shipped.uncertain == {A}
        assert (shipped.marked, shipped.dropped) == (frozenset(), {})

    def test_of_two_that_mean_to_send_a_letter_one_does(self, world: World) -> None:
        one, other = world.operator(), world.operator()
        one.ship(chunk_of([D], TARGET.topic))  # it has read all before
        world.once(Step.SENDING, lambda: ships(other, [A, B], "other"))

        shipped = one.ship(chunk_of([B, C], TARGET.topic, op_id="one"))

        assert shipped.sent.keys() == {C}
        assert shipped.dropped == {B: State.REPLAYED}
        assert world.stands().states[B].op_id == "other"
        assert world.stands().anomalies() == {}

    def test_of_one_that_sends_and_one_that_discards_one_does(self, world: World) -> None:
        world.once(Step.SENDING, lambda: ships(world.operator(), [A], "sends"))

        shipped = world.operator().ship(chunk_of([A, B], TARGET.topic, op_id="discards", state=State.DISCARDED))

        assert shipped.marked == {B}
        assert shipped.dropped == {A: State.REPLAYED}
        assert (world.says(A), world.says(B)) == (State.REPLAYED, State.DISCARDED)

    def test_a_letter_of_which_something_may_be_hidden_is_not_sent(self, world: World) -> None:
        """Records behind an open transaction cannot be read, whoever has begun it."""
        world.cluster.opened("somebody")
        world.cluster.write(Letter(*STATES, key_of(A), b"", (), 0), world.cluster.begun("somebody"))

        shipped = world.operator().ship(chunk_of([A], TARGET.topic))

        assert shipped.uncertain == {A}
        assert world.stands().sent == {}

    def test_a_duplicate_of_a_copy_that_is_refused_is_pending_again(self, world: World) -> None:
        chunk = chunk_of([A, B], TARGET.topic)
        duplicate = msgspec.structs.replace(chunk.dispositions[B], state=State.DUPLICATE, of=str(A), replay_id=None)
        chunk = replace(chunk, copies={A: chunk.copies[A]}, dispositions={**chunk.dispositions, B: duplicate})
        world.cluster.refuses = lambda batch: [too_large_if(one.value == b"1:0") for one in batch]

        shipped = world.operator().ship(chunk)

        assert shipped.failed.keys() == {A, B}
        assert world.stands().pending([A, B]) == [A, B]

    def test_a_copy_that_is_refused_is_pending_again(self, world: World) -> None:
        world.cluster.refuses = lambda batch: [too_large_if(one.value == b"1:0") for one in batch]

        shipped = world.operator().ship(chunk_of([A, B], TARGET.topic))

        assert shipped.failed.keys() == {A}
        assert shipped.sent.keys() == {B}
        assert (world.says(A), world.says(B)) == (State.PENDING, State.REPLAYED)
        assert [entry.detail["letters"] for one in world.stands().audit if (entry := read(one.value))] == ["1:1"]


class Died(BaseException):
    """The process is gone."""


def dies() -> None:
    raise Died
