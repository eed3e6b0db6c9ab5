"""Partitions that come and go, with work in every state."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import TYPE_CHECKING

from scenarios.oracle import violations
from scenarios.worlds import (
    IN,
    OTHER,
    Obedient,
    ObedientBatches,
    calls,
    commits,
    handled,
    letters_from,
    make_world,
    moving_commits,
    produce,
    steady,
)

from streamworker import Batch, Ordering, Retry, TopicPartition
from streamworker.config import LifecycleConfig
from streamworker.errors import ClientError
from streamworker.events import Listener
from streamworker.work import Ownership, Slice

if TYPE_CHECKING:
    import pytest


def test_a_graceful_revocation_finishes_what_runs_commits_it_and_repeats_nothing() -> None:
    """Edge case 18. Whoever gets the partition begins exactly where the first one stopped."""
    world = make_world(2)
    for partition in (0, 1):
        produce(world, *[b"fine"] * 30, partition=partition)
    first = world.start(Obedient, duration_s=steady(0.4), eager=lambda: True)
    world.run_for(1)

    began_s = world.time.monotonic_s()
    second = world.start(Obedient, duration_s=steady(0.4))
    world.run(lambda: len(second.worker.partitions) == 1)
    took_s = world.time.monotonic_s() - began_s
    world.run_to_end("in")

    assert first.story.rebalances[1] == ("revoked", (OTHER,))
    assert took_s < 1
    assert calls(world, IN) == calls(world, OTHER) == list(range(30))


def test_work_that_outlasts_the_revocation_is_not_committed_and_its_result_is_dropped() -> None:
    """Edge case 19. The new owner handles it again."""
    world = make_world(2, lifecycle=LifecycleConfig(revoke_timeout_s=3))
    produce(world, b"slow", partition=1)
    first = world.start(Obedient, duration_s=steady(20), eager=lambda: True)
    world.run_for(1)

    world.start(Obedient, duration_s=steady(0.001))
    world.run_to_end("in")
    world.run_for(30)

    assert first.story.late_records == 1
    assert calls(world, OTHER) == [0, 0]
    assert [entry.member for entry in moving_commits(world, OTHER)] == ["worker-2"]


def test_an_old_result_cannot_advance_the_next_ownership_of_the_same_worker() -> None:
    """Edge case 20. The old call comes back while the repeated one still runs."""
    world = make_world()
    produce(world, b"fine", b"fine")
    durations = iter([5.0, 60.0, 0.001])
    member = world.start(Obedient, duration_s=lambda _slice: next(durations), eager=lambda: True)
    world.run_for(1)

    world.broker.expel(member.source)
    world.run_for(10)
    late, committed = member.story.late_records, world.broker.committed(IN)
    world.run_to_end("in")

    assert late == 1
    assert committed == 0
    assert handled(world) == [0, 0, 1]


def test_a_lost_partition_is_neither_committed_nor_waited_for() -> None:
    """Edge case 21."""
    world = make_world()
    produce(world, *[b"fine"] * 4)
    durations = iter([0.001, 30.0])
    member = world.start(Obedient, duration_s=lambda _slice: next(durations, 0.001))
    world.run(lambda: len(calls(world)) == 1)
    began_s = world.time.monotonic_s()

    world.broker.expel(member.source)
    world.run(lambda: ("lost", (IN,)) in member.story.rebalances)

    assert world.time.monotonic_s() - began_s < 0.2
    assert commits(world) == []


class Rude(Listener):
    """Raises at whatever happens to partitions."""

    def assigned(self, partitions: object) -> None:
        raise ValueError("assigned")

    def revoked(self, partitions: object, seconds: float) -> None:
        raise ValueError("revoked")

    def lost(self, partitions: object) -> None:
        raise ValueError("lost")


def test_what_observers_of_a_rebalance_raise_stays_with_them() -> None:
    """Edge case 22. It surfaces neither in the fetch nor in the close."""
    world = make_world()
    produce(world, *[b"fine"] * 10)
    member = world.start(Obedient, listeners=[Rude()])
    world.run_for(0.1)

    world.broker.expel(member.source)
    world.run_to_end("in")
    exit_code = world.stop(member)

    assert exit_code == 0
    assert not list(violations(world, "in", "dlq"))


def test_a_revocation_leaves_work_retries_and_stops_of_the_other_partitions_alone() -> None:
    """Edge case 23. A retry that is due in four seconds comes in four seconds, a stopped partition stays stopped."""
    world = make_world(4)

    class Blocking(Obedient):
        dead_letter = None
        retry = Retry(attempts=4, wait=lambda _state: 4.0)

    third = TopicPartition("in", 2)
    produce(world, b"flaky:1", b"fine", partition=0)
    produce(world, b"poison", b"fine", partition=2)
    first = world.start(Blocking)
    world.run(lambda: len(world.effects) == 2)
    failed_s = world.time.monotonic_s()

    world.start(Blocking)
    world.run(lambda: handled(world) == [0, 1])

    assert sorted(key for _, keys in first.story.rebalances[1:] for key in keys) == [OTHER, TopicPartition("in", 3)]
    assert [effect.attempt for effect in world.effects if effect.partition == IN] == [1, 2, 1]
    assert 4 <= world.time.monotonic_s() - failed_s < 4.5
    assert calls(world, third) == [0]
    assert first.worker.partitions[third].stop is not None


def test_records_that_a_fetch_had_in_hand_when_it_lost_and_regained_their_partition_are_handled_once() -> None:
    """Edge case 24. They are dropped before dispatch and delivered again from the new ownership's start."""
    world = make_world()
    member = world.start(Obedient)
    world.run_for(1)

    def strike() -> None:
        produce(world, *[b"fine"] * 10)
        world.broker.expel(member.source)

    world.time.call_in(0.05, strike)
    world.run(lambda: len(calls(world)) >= 10)
    world.run_to_end("in")

    assert [kind for kind, _ in member.story.rebalances] == ["assigned", "lost", "assigned"]
    assert calls(world) == list(range(10))


def test_records_of_a_partition_that_left_within_the_fetch_are_not_dispatched() -> None:
    """Edge case 24. Its new owner handles them."""
    world = make_world(2)
    first = world.start(Obedient)
    world.run_for(1)

    world.start(Obedient)
    produce(world, *[b"fine"] * 10, partition=1)
    first.worker.step()
    world.run_to_end("in")

    assert {effect.member for effect in world.effects if effect.partition == OTHER} == {"worker-2"}
    assert calls(world, OTHER) == list(range(10))


def living(kind: type[object]) -> int:
    return sum(isinstance(one, kind) for one in gc.get_objects())


def test_a_thousand_rebalances_leave_nothing_behind() -> None:
    """Edge case 25. Timers, held records and books of ended ownerships are gone."""
    gc.collect()
    ownerships, slices = living(Ownership), living(Slice)
    world = make_world()

    class Patient(Obedient):
        ordering = Ordering.KEY
        retry = Retry(attempts=1000, wait=lambda _state: 300.0)

    for number in range(5):
        produce(world, b"broken", key=b"%d" % number)
    member = world.start(Patient)

    for _ in range(1000):
        world.broker.expel(member.source)
        world.run(lambda: bool(member.worker.running), timeout_s=10)
        world.run(lambda: not member.worker.running, timeout_s=10)
    member.story.failures.clear()  # their tracebacks know the slices
    gc.collect()

    assert living(Ownership) <= ownerships + 2
    assert living(Slice) <= slices + 6
    assert member.worker.backpressure.records == 5


def test_attempts_of_a_revoked_partition_are_kept_for_their_record_and_not_inherited_by_another() -> None:
    """Edge case 26. The next owner goes on counting for the failed record, and from one for each record after it."""
    world = make_world(2)
    produce(world, b"flaky:3", b"flaky:1", partition=1)
    world.start(Obedient)
    world.run(lambda: len(calls(world, OTHER)) == 2)

    world.start(Obedient)
    world.run_to_end("in")

    second = [(one.offset, one.attempt) for one in world.effects if one.member == "worker-2"]
    assert second == [(0, 3), (0, 4), (1, 1), (1, 2)]


def test_a_worker_without_partitions_stays_idle_and_ready_to_take_over() -> None:
    """Edge case 28. Two workers, one partition."""
    world = make_world()
    first = world.start(Obedient)
    idle = world.start(Obedient)
    world.run_for(120)
    idle_exit = idle.worker.exit_code

    world.kill(first)
    produce(world, b"fine")
    world.run_to_end("in")

    assert idle_exit is None
    assert [effect.member for effect in world.effects] == ["worker-2"]


def test_a_batch_interrupted_by_a_revocation_commits_only_for_whom_it_may() -> None:
    """Edge case 52. The revoked partition's batch is repeated elsewhere, the kept one's is done and committed."""
    world = make_world(2, lifecycle=LifecycleConfig(revoke_timeout_s=2))

    class Small(ObedientBatches):
        batch = Batch(max_records=10, max_wait_s=0.0)

    for partition in (0, 1):
        produce(world, *[b"fine"] * 10, partition=partition)
    world.start(Small, duration_s=lambda slice_: 15.0 if slice_.ownership.partition == OTHER else 6.0)
    world.run_for(0.5)

    world.start(Small, duration_s=steady(0.01))
    world.run_to_end("in")

    assert calls(world, IN) == list(range(10))
    assert {entry.member for entry in moving_commits(world, OTHER)} == {"worker-2"}
    assert not list(violations(world, "in", "dlq", batches=True))


def test_no_dead_letter_is_written_for_a_partition_that_is_not_owned_any_more() -> None:
    """Edge case 64. The failing call comes back after its partition was lost; only the repeated one writes a letter."""
    world = make_world()
    produce(world, b"poison")
    durations = iter([10.0, 30.0])
    member = world.start(Obedient, duration_s=lambda _slice: next(durations), eager=lambda: True)
    world.run_for(1)

    world.broker.expel(member.source)
    world.run_for(15)
    late, letters = member.story.late_records, letters_from(world)
    world.run_to_end("in")

    assert late == 1
    assert letters == []
    assert letters_from(world) == [b"poison"]


def test_members_that_come_and_go_in_order_repeat_nothing() -> None:
    """Edge case 18. Scaling up and down while records flow."""
    world = make_world(4)
    for number in range(5):
        for partition in range(4):
            produce(world, *[b"fine"] * 20, partition=partition)
        world.start(Obedient)
        world.run_for(0.05)
        if number % 2:
            world.stop(world.members[0])
    world.run_to_end("in")

    for partition in range(4):
        at = TopicPartition("in", partition)
        assert calls(world, at) == list(range(100))
        assert all(earlier < later for earlier, later in pairwise(commits(world, at)))


def test_partitions_whose_offsets_cannot_be_read_wait_for_them() -> None:
    """Edge case 29. Nothing is handled from a guessed position."""
    world = make_world()
    world.broker.set_committed(IN, 3, "sw1 q=1")
    produce(world, *[b"fine"] * 6)
    world.broker.offsets_error = lambda: "STALE_MEMBER_EPOCH"
    member = world.start(Obedient)
    world.run_for(20)
    before = calls(world)

    world.broker.offsets_error = lambda: None
    world.run_to_end("in", timeout_s=10)

    assert (IN, "offsets_unknown") in member.story.pauses
    assert before == []
    assert calls(world) == [3, 4, 5]


def test_a_partition_lost_before_its_offsets_were_known_is_not_sought() -> None:
    """Edge case 36. Seeking is for assigned partitions only."""
    world = make_world(2)
    produce(world, *[b"fine"] * 6)
    world.broker.offsets_error = lambda: "STALE_MEMBER_EPOCH"
    member = world.start(Obedient)
    world.run_for(20)
    world.broker.expel(member.source)
    world.run_for(20)

    world.broker.offsets_error = lambda: None
    world.run_to_end("in")

    assert calls(world) == list(range(6))


def test_a_fetch_that_crossed_the_assignment_and_cannot_be_sought_leaves_no_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Edge case 36: the client refuses the seek, so the start is found out again instead of going on behind it."""
    world = make_world()
    member = world.start(Obedient)
    produce(world, *[b"fine"] * 5)
    world.run_to_end("in")
    refusals = iter([ClientError("not yet", code="_STATE")] * 2)
    seek = member.source.seek

    def refuse_at_first(partition: TopicPartition, offset: int) -> None:
        for refusal in refusals:
            raise refusal
        seek(partition, offset)

    monkeypatch.setattr(member.source, "seek", refuse_at_first)
    produce(world, *[b"fine"] * 5)
    world.broker.expel(member.source)

    world.run_to_end("in")

    assert {effect.offset for effect in world.effects} == set(range(10))
    assert next(refusals, None) is None
