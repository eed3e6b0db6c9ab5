"""Records that are too old for a call end without one, in their place, and their neighbours go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.worlds import IN, calls, commits, handled, letters_from, make_world, steady

from streamworker import Batch, BatchHandler, Breaker, DeadLetter, Ending, Handler, Ordering, Retry, RetryableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Record, Records
    from streamworker.testing.virtual_world import VirtualWorld

MAX_AGE_S = 60.0


class Hasty(Handler[bytes]):
    """Takes nothing that is older than a minute; `slow` records fail, each 25 s anew."""

    topics = ("in",)
    max_age_s: ClassVar[float | None] = MAX_AGE_S
    concurrency = 4
    retry = Retry(attempts=10**6)
    dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")

    def handle(self, record: Record[bytes]) -> None:
        if record.value == b"slow":
            raise RetryableError("not now", retry_after_s=25.0)


class HastyPerKey(Hasty):
    ordering = Ordering.KEY


class HastyUnordered(Hasty):
    ordering = Ordering.UNORDERED


class HastyBatches(BatchHandler[bytes]):
    topics = ("in",)
    max_age_s = MAX_AGE_S
    batch = Batch(max_records=100)
    retry = Retry(attempts=2)
    dead_letter = DeadLetter("dlq")
    sizes: ClassVar[list[int]] = []

    def handle(self, records: Records[bytes]) -> None:
        self.sizes.append(len(records))
        if b"slow" in records.raw():
            raise RetryableError("not now", retry_after_s=40.0)


def put(world: VirtualWorld, *ages_s: float, value: bytes = b"x", key: bytes | None = None) -> None:
    """Records of these ages."""
    for age_s in ages_s:
        world.broker.produce("in", 0, value, key=key, timestamp_ms=world.time.wall_ms() - int(age_s * 1000))


ALL: Sequence[type[Handler[bytes]] | type[BatchHandler[bytes]]] = (Hasty, HastyPerKey, HastyUnordered, HastyBatches)


@pytest.mark.parametrize("handler", ALL)
def test_records_that_are_too_old_end_without_a_call_and_their_neighbours_are_handled(
    handler: type[Handler[bytes]] | type[BatchHandler[bytes]],
) -> None:
    world = make_world()
    put(world, 0, 61, 0, 3600, 86400, 0, key=b"a")
    member = world.start(handler)

    world.run_to_end("in", timeout_s=5)

    assert sorted(calls(world)) == [0, 2, 5]
    assert member.story.count(Ending.EXPIRED) == 3
    assert sum(records for _, _, records, _ in member.story.expiries) == 3
    assert letters_from(world) == []


@pytest.mark.parametrize("handler", ALL)
def test_a_record_too_old_at_the_very_end_of_a_partition_moves_the_commit_past_it(
    handler: type[Handler[bytes]] | type[BatchHandler[bytes]],
) -> None:
    """Edge case 12."""
    world = make_world()
    put(world, 0, 3600)
    world.start(handler)

    world.run_to_end("in", timeout_s=5)

    assert commits(world)[-1] == 2
    assert calls(world) == [0]


def test_a_partition_of_nothing_but_old_records_is_passed_in_one_go() -> None:
    world = make_world()
    put(world, *[3600.0] * 5000)
    member = world.start(Hasty)

    world.run_to_end("in", timeout_s=5)

    assert calls(world) == []
    assert member.story.count(Ending.EXPIRED) == 5000
    assert member.worker.backpressure.records == 0


def test_a_record_without_a_timestamp_never_expires() -> None:
    world = make_world()
    world.broker.produce("in", 0, b"x", timestamp_ms=-1)
    world.start(Hasty)

    world.run_to_end("in", timeout_s=5)

    assert handled(world) == [0]


def test_a_record_from_the_future_is_handled() -> None:
    world = make_world()
    put(world, -3600)
    world.start(Hasty)

    world.run_to_end("in", timeout_s=5)

    assert handled(world) == [0]


@pytest.mark.parametrize("handler", [Hasty, HastyPerKey, HastyUnordered])
def test_a_record_that_grows_too_old_between_its_tries_ends_at_the_next_and_those_behind_it_go_on(
    handler: type[Handler[bytes]],
) -> None:
    world = make_world()
    put(world, 0, value=b"slow", key=b"a")
    world.start(handler, duration_s=steady(0.001))
    world.run_for(50)
    put(world, 0, 0, key=b"a")
    world.run_for(20)
    put(world, 0, key=b"b")

    world.run_to_end("in", timeout_s=30)

    assert calls(world).count(0) == 3
    assert sorted(handled(world)) == [1, 2, 3]
    assert world.members[0].story.count(Ending.EXPIRED) == 1
    assert world.members[0].worker.partitions[IN].lanes.records == 0


def test_what_expires_in_a_batch_that_waits_is_left_out_of_its_next_try() -> None:
    HastyBatches.sizes.clear()
    world = make_world()
    put(world, 30, 0)
    put(world, 0, value=b"slow")
    member = world.start(HastyBatches, duration_s=steady(0.001))

    world.run_for(45)

    assert HastyBatches.sizes[:2] == [3, 2]
    assert member.story.count(Ending.EXPIRED) == 1


def test_a_batch_whose_first_record_expires_is_taken_apart_as_any_other() -> None:
    world = make_world()
    put(world, 30, 0)
    put(world, 0, value=b"slow")
    world.start(HastyBatches, duration_s=steady(0.001))

    world.run_to_end("in", timeout_s=300)

    assert handled(world) == [1]
    assert letters_from(world) == [b"slow"]


def test_a_dependency_that_is_away_for_long_lets_what_waits_for_it_expire() -> None:
    class Dependent(Hasty):
        ordering = Ordering.KEY
        breaker = Breaker("db", in_a_row=1)

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"slow" and world.time.monotonic_s() < 1000 + 2 * MAX_AGE_S:
                raise ConnectionError("nobody there")

    world = make_world()
    put(world, 0, 0, value=b"slow", key=b"a")
    world.start(Dependent, duration_s=steady(0.001))
    world.run_for(2 * MAX_AGE_S + 10)
    put(world, 0, value=b"slow", key=b"a")

    world.run_to_end("in", timeout_s=300)

    assert handled(world) == [2]
    assert world.members[0].story.count(Ending.EXPIRED) == 2


def test_without_a_limit_no_record_is_too_old() -> None:
    class Patient(Hasty):
        max_age_s = None

    world = make_world()
    put(world, 10**6)
    world.start(Patient)

    world.run_to_end("in", timeout_s=5)

    assert handled(world) == [0]
