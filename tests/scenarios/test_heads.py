"""The lowest open record of a partition is told when it holds commits back for too long, and given up if asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.worlds import IN, calls, handled, headers_of, letters_from, make_world, produce, steady

from streamworker import BatchHandler, Breaker, DeadLetter, Handler, Retry, RetryableError
from streamworker.config import FlowConfig, LifecycleConfig, OldHead

if TYPE_CHECKING:
    from streamworker import Record, Records
    from streamworker.observability.status import HeadStatus
    from streamworker.testing.virtual_world import Member, VirtualWorld

AGE_S = 60.0
LOOK_S = 1.0
DIVERTING = LifecycleConfig(max_head_age_s=AGE_S, old_head=OldHead.DIVERT)
ALERTING = LifecycleConfig(max_head_age_s=AGE_S)


class Stubborn(Handler[bytes]):
    """Some records fail for ever, each 8 s anew; others of their key wait, all else goes on."""

    topics = ("in",)
    ordering = "key"
    concurrency = 4
    retry = Retry(attempts=10**6)
    dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> None:
        if record.value == b"stubborn":
            raise RetryableError("not now", retry_after_s=8.0)
        if record.value == b"away":
            raise ConnectionError("nobody there")


class InOrder(Stubborn):
    ordering = "partition"


class WithoutLetters(Stubborn):
    dead_letter = None


class Blocking(Stubborn):
    dead_letter = DeadLetter("dlq", "block")


def fill(world: VirtualWorld) -> None:
    """Offset 2 is the head; the last has its key."""
    produce(world, b"fine", b"fine", key=b"a")
    produce(world, b"stubborn", key=b"b")
    produce(world, *[b"fine"] * 5, key=b"a")
    produce(world, b"fine", key=b"b")


def head_of(member: Member) -> HeadStatus | None:
    return member.worker.heads.of(member.worker.partitions[IN])


def test_a_head_that_is_open_for_too_long_is_reported_once_and_left_alone() -> None:
    world = make_world(lifecycle=ALERTING)
    fill(world)
    member = world.start(Stubborn, duration_s=steady(0.001))

    world.run_for(AGE_S - 1)
    assert member.story.old_heads == []
    world.run_for(4 * AGE_S)

    ((partition, offset, age_s, attempts, behind),) = member.story.old_heads
    assert (partition, offset, behind) == (IN, 2, 5)
    assert AGE_S < age_s <= AGE_S + 2 * LOOK_S
    assert attempts == 8
    assert letters_from(world) == []
    assert handled(world) == [0, 1, 3, 4, 5, 6, 7]
    status = head_of(member)
    assert status is not None
    assert (status.offset, status.records_behind) == (2, 5)
    assert status.age_s > 4 * AGE_S


@pytest.mark.parametrize("handler", [Stubborn, InOrder])
def test_a_head_that_is_too_old_goes_to_the_dead_letters_if_that_is_asked_for(handler: type[Handler[bytes]]) -> None:
    world = make_world(lifecycle=DIVERTING)
    fill(world)
    member = world.start(handler, duration_s=steady(0.001))

    world.run_to_end("in", timeout_s=AGE_S + 10)

    assert letters_from(world) == [b"stubborn"]
    assert headers_of(world, 0)["sw-reason"] == "head_of_line"
    assert headers_of(world, 0)["sw-attempts"] == "8"
    assert sorted(handled(world)) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert len(member.story.old_heads) == 1
    assert head_of(member) is None


@pytest.mark.parametrize("handler", [WithoutLetters, Blocking])
def test_a_handler_that_gives_nothing_up_keeps_its_old_head(handler: type[Handler[bytes]]) -> None:
    world = make_world(lifecycle=DIVERTING)
    fill(world)
    member = world.start(handler, duration_s=steady(0.001))

    world.run_for(2 * AGE_S)

    assert len(member.story.old_heads) == 1
    assert letters_from(world) == []
    assert calls(world).count(2) > 10


def test_a_head_in_a_handlers_hands_is_never_diverted() -> None:
    world = make_world(lifecycle=DIVERTING)
    produce(world, b"fine")
    member = world.start(Stubborn, duration_s=steady(3 * AGE_S))

    world.run_to_end("in")

    assert [(offset, attempts) for _, offset, _, attempts, _ in member.story.old_heads] == [(0, 0)]
    assert letters_from(world) == []
    assert handled(world) == [0]


def test_a_head_is_not_to_blame_while_what_its_handler_needs_is_away() -> None:
    """It has been open for long when the dependency is back, and is tried and not given up."""
    away = [True]

    class Dependent(Stubborn):
        breaker = Breaker.consecutive("db", failures=1)

        def handle(self, record: Record[bytes]) -> None:
            if away[0]:
                raise ConnectionError("nobody there")

    world = make_world(lifecycle=DIVERTING)
    fill(world)
    member = world.start(Dependent, duration_s=steady(0.001))
    world.run_for(10 * AGE_S)
    away[0] = False
    world.run_to_end("in", timeout_s=60)

    assert member.story.old_heads == []
    assert letters_from(world) == []
    assert sorted(handled(world)) == list(range(9))


def test_a_head_is_not_to_blame_while_its_partition_is_stopped() -> None:
    world = make_world(lifecycle=DIVERTING)
    fill(world)
    member = world.start(Stubborn, duration_s=steady(0.001))
    world.run_for(AGE_S / 2)
    partition = member.worker.partitions[IN]
    member.worker.partitions.stop(partition, "test", "a reason of its own", mends_itself=True)
    world.run_for(10 * AGE_S)
    member.worker.partitions.mend(partition)
    world.run_for(AGE_S - LOOK_S)

    assert member.story.old_heads == []
    assert letters_from(world) == []


def test_of_a_batch_that_fails_only_the_head_is_diverted() -> None:
    class Batches(BatchHandler[bytes]):
        topics = ("in",)
        retry = Retry(attempts=10**6)
        dead_letter = DeadLetter("dlq")

        def handle(self, records: Records[bytes]) -> None:
            if any(record.value == b"stubborn" for record in records):
                raise RetryableError("not now", retry_after_s=8.0)

    world = make_world(lifecycle=DIVERTING)
    produce(world, b"stubborn", b"fine", b"fine")
    world.start(Batches, duration_s=steady(0.001))

    world.run_to_end("in", timeout_s=AGE_S + 20)

    assert letters_from(world) == [b"stubborn"]
    assert handled(world) == [1, 2]
    assert [effect.attempt for effect in world.effects if effect.ok] == [9, 9]


def test_without_a_limit_nothing_is_reported() -> None:
    world = make_world(lifecycle=LifecycleConfig(max_head_age_s=None, old_head=OldHead.DIVERT))
    fill(world)
    member = world.start(Stubborn, duration_s=steady(0.001))

    world.run_for(10 * AGE_S)

    assert member.story.old_heads == []
    assert letters_from(world) == []


def test_the_age_of_a_head_is_that_of_the_present_ownership() -> None:
    world = make_world(lifecycle=DIVERTING)
    fill(world)
    member = world.start(Stubborn, duration_s=steady(0.001))
    world.run_for(AGE_S - 5)

    world.broker.expel(member.source)
    world.run_for(AGE_S - 5)

    assert member.story.old_heads == []


def test_a_partition_whose_head_moves_on_has_no_old_one() -> None:
    world = make_world(lifecycle=DIVERTING)
    produce(world, *[b"fine"] * 400)
    member = world.start(InOrder, duration_s=steady(0.5))

    world.run_to_end("in", timeout_s=4 * AGE_S)

    assert member.story.old_heads == []


def test_a_head_is_to_blame_for_the_buffers_that_it_fills() -> None:
    world = make_world(lifecycle=DIVERTING, flow=FlowConfig(max_inflight=40, pause_after_s=0.1))
    produce(world, b"stubborn", *[b"fine"] * 200)
    member = world.start(InOrder, duration_s=steady(0.001))
    world.run(lambda: (IN, "backpressure") in member.story.pauses)

    world.run_to_end("in", timeout_s=AGE_S + 20)

    assert letters_from(world) == [b"stubborn"]
