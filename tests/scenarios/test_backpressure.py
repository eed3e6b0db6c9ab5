"""How much is in hand at once, and that nobody starves."""

from __future__ import annotations

import pytest
from scenarios.worlds import IN, OTHER, Obedient, calls, handled, make_world, produce, steady

from streamworker import Handler, Ordering, Record, Retry, TopicPartition
from streamworker.config import FlowConfig


@pytest.mark.parametrize("ordering", list(Ordering))
def test_records_in_hand_never_exceed_their_bound(ordering: Ordering) -> None:
    """Edge case 89. Looked at after every step, with failing and slow records among them."""
    world = make_world(3, flow=FlowConfig(max_inflight=50, pause_after_s=0.1))
    for partition in range(3):
        produce(world, *[b"fine", b"flaky:2"] * 150, partition=partition, key=b"key")
    kind = type("Ordered", (Obedient,), {"ordering": ordering})
    member = world.start(kind, duration_s=steady(0.005))
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, member.worker.backpressure.records)
        return all(world.caught_up(TopicPartition("in", one)) for one in range(3))

    world.run(look)

    assert 25 <= most <= 50


@pytest.mark.parametrize("size_bytes", [1_000, 20_000])
def test_bytes_in_hand_never_exceed_their_bound(size_bytes: int) -> None:
    """Edge case 89. Records of equal size, which the first fetch has to guess."""
    world = make_world(flow=FlowConfig(max_buffer_bytes=100_000))
    produce(world, *[b"x" * size_bytes] * 500)
    member = world.start(Obedient, duration_s=steady(0.01))
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, member.worker.backpressure.size_bytes)
        return world.caught_up(IN)

    world.run(look)

    assert 50_000 <= most <= 100_000


def test_a_record_larger_than_the_whole_bound_goes_alone() -> None:
    """Edge case 89."""
    world = make_world(flow=FlowConfig(max_buffer_bytes=1000))
    produce(world, b"fine", b"x" * 50_000, b"fine")

    world.start(Obedient)
    world.run_to_end("in", timeout_s=10)

    assert handled(world) == [0, 1, 2]


def test_a_hot_partition_does_not_starve_a_quiet_one() -> None:
    """Edge case 90. Its backlog of an hour does not delay the other's next record by seconds."""
    world = make_world(2, flow=FlowConfig(max_inflight=200))
    produce(world, *[b"fine"] * 30_000)
    world.start(Obedient, duration_s=steady(0.05))
    world.run_for(30)

    produce(world, b"fine", partition=1)
    world.run(lambda: handled(world, OTHER) == [0], timeout_s=1)


def test_a_slow_topic_does_not_exhaust_the_threads_of_another() -> None:
    """Edge case 90. Each handler has a pool of its own."""
    world = make_world(4)
    world.broker.add_partitions("quick", 1)

    class Quick(Handler[bytes]):
        topics = ("quick",)

        def handle(self, record: Record[bytes]) -> None:
            """Handle everything."""

    for partition in range(4):
        produce(world, *[b"fine"] * 500, partition=partition)
    quick = TopicPartition("quick", 0)
    world.start(Obedient, Quick, duration_s=lambda slice_: 60.0 if slice_.ownership.partition != quick else 0.001)
    world.run_for(10)

    for _ in range(20):
        world.broker.produce("quick", 0, b"fine")
    world.run(lambda: len(handled(world, quick)) == 20, timeout_s=1)


def test_one_failing_partition_does_not_take_the_others_buffers() -> None:
    """Edge case 90. Its backlog waits ten minutes for the first record's retry; that is no reason to hold the other."""
    world = make_world(2, flow=FlowConfig(max_inflight=100))

    class Patient(Obedient):
        retry = Retry(attempts=1000, wait=lambda _state: 600.0)

    produce(world, *[b"broken"] * 1000)
    produce(world, *[b"fine"] * 1000, partition=1)

    world.start(Patient)
    world.run(lambda: len(handled(world, OTHER)) == 1000, timeout_s=60)

    assert len(calls(world, IN)) == 1


def test_a_lane_of_slow_records_keeps_its_thread_busy() -> None:
    """Edge case 90. Ten thousand records of two milliseconds in one lane run at 95 of 100 of what is possible."""
    world = make_world()
    produce(world, *[b"fine"] * 10_000)
    began_s = world.time.monotonic_s()

    world.start(Obedient, duration_s=steady(0.002))
    world.run(lambda: len(world.effects) == 10_000)

    assert 10_000 / (world.time.monotonic_s() - began_s) >= 0.95 * 500


def test_a_stopped_partition_does_not_keep_the_others_buffers() -> None:
    """Edge case 90. It waits for a person, perhaps until tomorrow."""
    world = make_world(2, flow=FlowConfig(max_inflight=100))
    kind = type("Bare", (Obedient,), {"dead_letter": None})
    produce(world, b"poison", *[b"fine"] * 1000)
    produce(world, *[b"fine"] * 1000, partition=1)

    world.start(kind)
    world.run(lambda: world.caught_up(OTHER), timeout_s=60)

    assert calls(world, IN) == [0]


def test_many_distinct_keys_leave_nothing_behind() -> None:
    """Edge case 92. What is kept per key goes with the last record that needed it."""
    world = make_world()
    kind = type("ByKey", (Obedient,), {"ordering": Ordering.KEY, "lanes": 16, "retry": Retry(attempts=3, base_s=0.01)})
    for number in range(20_000):
        world.broker.produce("in", 0, b"flaky:1" if number % 50 == 0 else b"fine", key=b"%d" % number)

    member = world.start(kind)
    world.run_to_end("in")

    lanes = member.worker.partitions[IN].lanes
    assert lanes.records == 0
    assert sum(len(lane.held_keys) for lane in lanes.lanes) == 0
    assert member.worker.partitions[IN].failures == {}
    assert member.worker.backpressure.records == member.worker.backpressure.size_bytes == 0
