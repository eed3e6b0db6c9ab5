"""Where a partition begins."""

from __future__ import annotations

import pytest
from scenarios.worlds import IN, OTHER, Obedient, calls, commits, handled, make_world, produce

from streamworker.offsets import codec
from streamworker.offsets.progress import Progress
from streamworker.testing.memory_clients import MemoryLog
from streamworker.testing.memory_source import MemorySource

OURS = codec.encode(1, Progress(0)).text


def test_a_new_group_begins_at_the_beginning() -> None:
    """Edge case 29. The default repeats rather than skips."""
    world = make_world()
    produce(world, b"fine", b"fine")

    world.start(Obedient)
    world.run_to_end("in")

    assert calls(world) == [0, 1]


def test_latest_is_resolved_once_and_committed_before_the_first_record() -> None:
    """Edge case 29. A crash before the first commit must not jump over what came meanwhile."""
    world = make_world(start="latest")
    produce(world, *[b"old"] * 5)
    first = world.start(Obedient)
    world.run(lambda: bool(first.worker.partitions))
    world.run(lambda: commits(world) == [5], timeout_s=3)
    world.kill(first)
    produce(world, b"new", b"newer")

    world.start(Obedient)
    world.run_to_end("in")

    assert calls(world) == [5, 6]


def test_all_questions_of_an_assignment_have_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is answered at the last moment it was given: together they take no longer than one alone."""
    world = make_world(2, start="latest")
    produce(world, b"old")

    def late(kind: type, question: str) -> None:
        answer = getattr(kind, question)

        def answered(self: object, *of: object) -> object:
            world.time.wait(float(str(of[-1])) * 0.9, lambda: False)
            return answer(self, *of)

        monkeypatch.setattr(kind, question, answered)

    for kind, question in ((MemorySource, "committed"), (MemoryLog, "partitions"), (MemoryLog, "end_offsets")):
        late(kind, question)
    began_s = world.time.monotonic_s()
    member = world.start(Obedient)

    world.run(lambda: len(member.worker.partitions) == 2, timeout_s=60)

    assert 4.5 < world.time.monotonic_s() - began_s <= 6


def test_nothing_is_handled_before_the_chosen_start_is_committed() -> None:
    """Edge case 29. The coordinator is away, so the partition waits with its first record in hand."""
    world = make_world(start="latest")
    produce(world, b"old")
    world.broker.coordinator_up = False
    member = world.start(Obedient)
    world.run(lambda: bool(member.worker.partitions))
    produce(world, b"new")
    world.run_for(10)
    before = calls(world)

    world.broker.coordinator_up = True
    world.run_to_end("in", timeout_s=10)

    assert before == []
    assert calls(world) == [1]
    assert commits(world) == [1, 2]


def test_a_timestamp_begins_at_the_first_record_from_then_on() -> None:
    """Edge case 29."""
    world = make_world(start="timestamp:2026-01-01T01:00:00Z")
    produce(world, b"before", b"before")
    world.run_for(3600)
    produce(world, b"after", b"after")

    world.start(Obedient)
    world.run_to_end("in")

    assert calls(world) == [2, 3]


@pytest.mark.parametrize("start", ["latest", "timestamp:2030-01-01T00:00:00Z"])
def test_a_partition_without_an_offset_among_others_that_have_one_begins_at_its_beginning(start: str) -> None:
    """Edge case 29. It is new or its offset expired; skipping would lose records."""
    world = make_world(2, start=start)
    world.broker.set_committed(IN, 1, OURS)
    for partition in (0, 1):
        produce(world, b"fine", b"fine", partition=partition)

    world.start(Obedient)
    world.run_to_end("in")

    assert calls(world, IN) == [1]
    assert calls(world, OTHER) == [0, 1]


def test_a_partition_that_is_added_later_begins_at_its_beginning() -> None:
    """Edge case 29."""
    world = make_world(start="latest")
    member = world.start(Obedient)
    produce(world, b"fine")
    world.run(lambda: bool(commits(world)))

    world.broker.add_partitions("in", 2)
    produce(world, b"fine", b"fine", partition=1)
    world.run(lambda: len(member.worker.partitions) == 2 and world.caught_up(OTHER))

    assert calls(world, OTHER) == [0, 1]


@pytest.mark.parametrize("metadata", ["", "AgEAAA==", "sw9 q=1", "\udcff?"])
def test_an_offset_that_somebody_else_committed_is_taken_and_reported(metadata: str) -> None:
    """Edge case 9. An operator's reset or another framework; its metadata cannot break the assignment."""
    world = make_world()
    produce(world, *[b"fine"] * 4)
    world.broker.set_committed(IN, 2, metadata)

    member = world.start(Obedient)
    world.run_to_end("in")

    assert member.story.foreign == [(IN, 2)]
    assert calls(world) == [2, 3]


@pytest.mark.parametrize("committed", [2, 99], ids=["deleted by retention", "past the end"])
def test_an_offset_outside_of_the_log_stops_its_partition_and_only_that(committed: int) -> None:
    """Edge case 10. Jumping to either end would skip or repeat without a word."""
    world = make_world(2)
    produce(world, *[b"fine"] * 10)
    produce(world, *[b"fine"] * 10, partition=1)
    world.broker.delete_records(IN, before=5)
    world.broker.set_committed(IN, committed, OURS)

    member = world.start(Obedient)
    world.run(lambda: world.caught_up(OTHER))
    world.run_for(300)

    assert [(key, reason) for key, reason, _ in member.story.stops] == [(IN, "offset_out_of_range")]
    assert handled(world, IN) == []
    assert world.broker.committed(IN) == committed


def test_retention_that_overtakes_a_running_worker_stops_the_partition() -> None:
    """Edge case 10. Records were deleted that nobody had handled."""
    world = make_world()
    produce(world, b"fine")
    member = world.start(Obedient)
    world.run_to_end("in")
    world.kill(member)
    produce(world, *[b"fine"] * 10)
    world.broker.delete_records(IN, before=6)

    successor = world.start(Obedient)
    world.run(lambda: bool(successor.story.stops))
    world.run_for(60)

    assert handled(world) == [0]
    assert successor.worker.exit_code is None
