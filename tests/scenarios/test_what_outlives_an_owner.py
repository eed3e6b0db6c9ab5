"""What was done beyond the committed offset, and what was tried, is known to the next owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenarios.oracle import violations
from scenarios.worlds import IN, OTHER, Obedient, ObedientBatches, calls, handled, make_world, produce

from streamworker import Batch, Ordering, Retry
from streamworker.config import CommitConfig, FlowConfig
from streamworker.offsets import codec
from streamworker.offsets.progress import Progress
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from streamworker.testing.memory_broker import CommitEntry
    from streamworker.testing.virtual_world import Member


class Unordered(Obedient):
    ordering = Ordering.UNORDERED


class Patient(Obedient):
    """Retries after half a minute."""

    ordering = Ordering.KEY
    retry = Retry(attempts=4, wait=lambda _state: 30.0)


def test_what_is_done_beyond_the_commit_is_not_handled_again_after_a_crash() -> None:
    """Edge case 4. Of eight records the fourth hangs; the commit stays at it, and only it is repeated."""
    world = make_world(flow=FlowConfig(max_slice=1))
    produce(world, *[b"fine"] * 8)
    first = world.start(Unordered, duration_s=lambda slice_: 1e6 if slice_.messages[0].offset() == 4 else 0.001)
    world.run_for(3)
    committed = world.broker.committed(IN)

    world.kill(first)
    second = world.start(Unordered)
    world.run_to_end("in")

    assert committed == 4
    assert [one.offset for one in world.effects if one.member == "worker-2"] == [4]
    assert second.story.remembered_records == 3


def test_what_two_owners_have_done_is_known_to_the_third() -> None:
    """Edge case 4. The second owner adds one record to what the first had done."""
    world = make_world(flow=FlowConfig(max_slice=1))
    produce(world, *[b"fine"] * 8)
    first = world.start(Unordered, duration_s=lambda slice_: 1e6 if slice_.messages[0].offset() in (0, 4) else 0.001)
    world.run_for(3)
    world.kill(first)
    second = world.start(Unordered, duration_s=lambda slice_: 1e6 if slice_.messages[0].offset() == 4 else 0.001)
    world.run(lambda: world.broker.committed(IN) == 4)
    world.kill(second)

    world.start(Unordered)
    world.run_to_end("in")

    assert [one.offset for one in world.effects if one.member == "worker-3"] == [4]


def test_a_stop_in_order_repeats_nothing_though_a_record_waits_long_for_its_retry() -> None:
    """Edge case 4. P4."""
    world = make_world()
    produce(world, b"flaky:1", key=b"slow")
    for number in range(20):
        produce(world, b"fine", key=b"%d" % number)
    first = world.start(Patient)
    world.run(lambda: len(handled(world)) == 20)

    exit_code = world.stop(first)
    world.start(Patient)
    world.run_to_end("in", timeout_s=5)

    assert exit_code == 0
    assert sorted(calls(world)) == [0, *range(21)]


@pytest.mark.parametrize("ordering", list(Ordering))
def test_a_crash_leaves_the_attempts_that_were_not_spent(ordering: Ordering) -> None:
    """Edge case 42. Two of four calls before the crash, two after it, then the dead letter."""
    world = make_world(commit=CommitConfig(interval_s=0.2))
    produce(world, b"flaky:9", b"fine")
    kind = type("Kind", (Obedient,), {"ordering": ordering, "retry": Retry(attempts=4, wait=lambda _state: 1.0)})
    first = world.start(kind)
    world.run(lambda: calls(world).count(0) == 2)
    world.run_for(0.5)

    world.kill(first)
    world.start(kind)
    world.run_to_end("in")

    assert [one.attempt for one in world.effects if one.offset == 0] == [1, 2, 3, 4]
    assert len(world.broker.records("dlq")) == 1


def test_a_record_is_not_handed_over_with_others_on_which_fewer_calls_were_spent() -> None:
    """Edge case 42. A batch that was tried twice goes on as a batch of its own."""
    world = make_world()
    produce(world, *[b"fine"] * 6)
    spent = Progress(0, (), {1: 2, 2: 2, 4: 1}, running=True)
    world.broker.set_committed(IN, 0, codec.encode(1, spent).text)

    class Small(ObedientBatches):
        batch = Batch(max_records=10, max_wait_s=0.0)

    world.start(Small)
    world.run_to_end("in")

    assert [(one.offset, one.attempt) for one in world.effects] == [(0, 1), (1, 3), (2, 3), (3, 1), (4, 2), (5, 1)]
    assert len({one.call for one in world.effects}) == 5


def test_a_partition_whose_commit_is_nearly_full_begins_nothing_new_until_there_is_room() -> None:
    """Edge cases 7, 8. Every other record waits, so each is a range of its own; the other partition goes on."""
    world = make_world(2, commit=CommitConfig(interval_s=0.1))
    for number in range(1500):
        world.broker.produce("in", 0, b"flaky:1" if number % 2 else b"fine", key=b"%d" % number, gap=10**5)
    member = world.start(Patient)
    world.run_for(20)
    held, delivered = len(handled(world, IN)), member.worker.partitions[IN].tracker.open_records
    produce(world, *[b"fine"] * 50, partition=1)
    world.run(lambda: world.caught_up(OTHER), timeout_s=5)

    world.run_to_end("in", timeout_s=600)

    sizes = [len(entry.mark.metadata) for entry in world.broker.commits]
    assert held < 750 < delivered
    assert codec.PRESSURE_BYTES < max(sizes) <= codec.MAX_METADATA_BYTES
    assert {error for _, error in member.story.commit_answers} == {None}
    assert sorted(set(handled(world, IN))) == [message.offset() for message in world.broker.records("in")][:1500]
    assert not list(violations(world, "in", "dlq"))


@pytest.mark.parametrize(
    "metadata", ["sw2 q=1 @2 r d=rAQEDAg!", "sw2 q=1 @2", codec.encode(1, Progress(3, ((4, 9),))).text, "sw1 q=7"]
)
def test_what_is_damaged_or_copied_from_another_offset_hides_no_record(metadata: str) -> None:
    """Edge cases 9, 11. An offset that a tool has shifted or translated with what was beside it."""
    world = make_world()
    produce(world, *[b"fine"] * 10)
    world.broker.set_committed(IN, 2, metadata)

    world.start(Obedient)
    world.run_to_end("in")

    assert calls(world) == list(range(2, 10))


def test_a_topic_made_anew_stops_its_partition_however_long_it_is() -> None:
    """Edge case 11. Its records lie at the offsets of others; the stop outlives workers, and a reset mends it."""
    world = make_world()
    produce(world, *[b"old"] * 5)
    world.stop(_at_the_end(world))
    left = world.broker.commits[-1].mark
    world.broker.delete_topic("in")
    world.broker.add_partitions("in", 1)
    produce(world, *[b"new"] * 9)
    world.broker.set_committed(IN, left.offset, left.metadata)

    for _ in range(2):
        member = world.start(Obedient)
        world.run_for(30)
        stops = [reason for _, reason, _ in member.story.stops]
        world.stop(member)
        assert stops == ["topic_made_anew"]
    world.broker.set_committed(IN, 0)
    world.start(Obedient)
    world.run_to_end("in")

    assert calls(world) == [*range(5), *range(9)]


def test_nothing_begins_before_the_coordinator_knows_that_the_partition_is_in_work() -> None:
    """Edge case 42. A record that kills the process at once would leave no trace."""
    world = make_world()
    produce(world, b"fine")
    world.broker.commit_error = lambda _key: "COORDINATOR_LOAD_IN_PROGRESS"
    world.start(Obedient)
    world.run_for(5)
    before = calls(world)

    world.broker.commit_error = lambda _key: None
    world.run_to_end("in", timeout_s=2)

    assert (before, calls(world)) == ([], [0])
    first = _progress(world.broker.commits[0])
    assert first is not None
    assert (first.offset, first.running) == (0, True)


def test_a_topic_may_have_any_name() -> None:
    """What a commit carries of it is no part of its name."""
    name = "orders.v1_" + "x" * 100
    world = VirtualWorld({name: 1, "dlq": 1})
    world.broker.produce(name, 0, b"fine")

    world.start(type("Dotted", (Obedient,), {"topics": (name,)}))

    world.run_to_end(name, timeout_s=5)


def test_the_last_commit_says_that_the_partition_was_given_back() -> None:
    world = make_world()
    produce(world, b"fine")
    member = world.start(Obedient)
    world.run_to_end("in")

    world.stop(member)

    last = _progress(world.broker.commits[-1])
    assert last is not None
    assert (last.offset, last.running) == (1, False)


def _at_the_end(world: VirtualWorld) -> Member:
    member = world.start(Obedient)
    world.run_to_end("in")
    return member


def _progress(entry: CommitEntry) -> Progress | None:
    read = codec.decode(entry.mark.metadata, entry.mark.offset)
    return None if read is None else read.progress
