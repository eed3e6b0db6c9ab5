"""Records that end the process are found, and their neighbours handled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenarios.oracle import violations
from scenarios.worlds import IN, OTHER, Obedient, ObedientBatches, calls, handled, headers_of, make_world, produce

from streamworker import Ordering, Record, Records, TopicPartition
from streamworker.config import CommitConfig
from streamworker.offsets import codec
from streamworker.offsets.progress import Progress, Suspect
from streamworker.offsets.suspects import GROUP_RECORDS
from streamworker.source.flow import PauseReason

if TYPE_CHECKING:
    from streamworker.testing.virtual_world import Member, VirtualWorld
    from streamworker.work import Slice

FOREVER_S = 1e6
KEYS = [TopicPartition("in", number) for number in range(4)]


def kills(slice_: Slice) -> float:
    """A slice with a record that kills is never done with; its process is killed meanwhile."""
    return FOREVER_S if any(message.value() == b"killer" for message in slice_.messages) else 0.001


def lives_of(world: VirtualWorld, kind: type[Obedient] | type[ObedientBatches], most: int = 9) -> int:
    """Run workers one after the other until one lives to the end of the log; returns how many died."""
    for deaths in range(most):
        member = world.start(kind, duration_s=kills)
        world.run(lambda member=member: _has_killer(member) or world.caught_up(IN))
        if not _has_killer(member):
            return deaths
        world.kill(member)
    raise AssertionError(f"{most} workers died")


def _has_killer(member: Member) -> bool:
    return any(message.value() == b"killer" for slice_ in member.worker.running for message in slice_.messages)


@pytest.mark.parametrize("ordering", list(Ordering))
@pytest.mark.parametrize("at", [0, 7, 150, 399])
def test_a_record_that_kills_the_process_is_dead_lettered_after_three_deaths(ordering: Ordering, at: int) -> None:
    """Edge case 42. F-08."""
    world = make_world(commit=CommitConfig(interval_s=0.1))
    for number in range(400):
        produce(world, b"killer" if number == at else b"fine", key=b"%d" % number)

    deaths = lives_of(world, type("Kind", (Obedient,), {"ordering": ordering}))

    assert deaths == 3
    assert headers_of(world, 0)["sw-reason"] == "killed_worker"
    assert headers_of(world, 0)["sw-origin-offset"] == str(at)
    assert sorted(set(handled(world))) == [number for number in range(400) if number != at]
    assert len(world.broker.records("dlq")) == 1
    assert not list(violations(world, "in", "dlq"))


def test_a_batch_that_kills_the_process_loses_only_its_killer() -> None:
    """Edge case 42."""
    world = make_world()
    produce(world, *[b"killer" if number == 120 else b"fine" for number in range(300)])

    deaths = lives_of(world, ObedientBatches)

    assert deaths == 3
    assert sorted(set(handled(world))) == [number for number in range(300) if number != 120]


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
@pytest.mark.parametrize("batches", [False, True])
def test_a_record_that_ends_the_process_in_order_is_found_as_well(error: type[BaseException], *, batches: bool) -> None:
    """Edge cases 42, 46. F-07. Out of memory in Python is an exception, which stops the worker and is no failure."""
    world = make_world()
    produce(world, *[b"killer" if number == 70 else b"fine" for number in range(150)])

    class One(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"killer":
                raise error

    class Many(ObedientBatches):
        def handle(self, records: Records[bytes]) -> None:
            if b"killer" in records.values():
                raise error

    exit_codes = []
    for _ in range(9):
        member = world.start(Many if batches else One)
        world.run(lambda member=member: member.worker.stopping is not None or world.caught_up(IN))
        exit_codes.append(world.stop(member))
        if exit_codes[-1] == 0:
            break

    assert exit_codes == [1, 1, 1, 0]
    assert headers_of(world, 0)["sw-id"] == "test/in/0/70"
    assert sorted(set(handled(world))) == [number for number in range(150) if number != 70]


def test_each_of_two_killers_is_found() -> None:
    world = make_world()
    produce(world, *[b"killer" if number in (30, 31) else b"fine" for number in range(100)])

    deaths = lives_of(world, Obedient)

    assert deaths <= 6
    assert [headers_of(world, number)["sw-origin-offset"] for number in (0, 1)] == ["30", "31"]
    assert sorted(set(handled(world))) == [number for number in range(100) if number not in (30, 31)]


def test_a_killer_costs_no_record_of_the_other_partitions_of_its_worker() -> None:
    """All partitions of the worker are suspected, and each is at its third death when the killer is found."""
    world = make_world(4)
    for partition in range(4):
        produce(world, *[b"fine"] * 100, *([b"killer"] if partition == 2 else [b"fine"]), partition=partition)
        produce(world, *[b"fine"] * 50, partition=partition)
    member = world.start(Obedient, duration_s=kills)
    for _ in range(9):
        world.run(lambda member=member: _has_killer(member) or all(world.caught_up(one) for one in KEYS))
        if not _has_killer(member):
            break
        world.kill(member)
        member = world.start(Obedient, duration_s=kills)

    assert [headers_of(world, n)["sw-id"] for n in range(len(world.broker.records("dlq")))] == ["test/in/2/100"]
    assert all(world.caught_up(one) for one in KEYS)
    assert not list(violations(world, "in", "dlq"))


def test_a_suspect_in_a_partition_that_stands_still_keeps_no_other_partition_waiting() -> None:
    world = make_world(2)
    left = codec.encode(1, Progress(0, running=True, owner="0", suspect=Suspect(0, 9, 1))).text
    for partition in (0, 1):
        produce(world, *[b"fine"] * 10, partition=partition)
        world.broker.set_committed(KEYS[partition], 0, left)
    member = world.start(Obedient)
    world.run(lambda: len(member.worker.partitions) == 2)
    member.worker.partitions.hold(member.worker.partitions[IN], PauseReason.OFFSETS_UNKNOWN)

    world.run(lambda: world.caught_up(OTHER), timeout_s=10)

    assert calls(world, IN) == []


def test_without_dead_letters_the_killer_stops_its_partition_and_nobody_dies_of_it_again() -> None:
    world = make_world(2)
    produce(world, b"fine", b"killer", b"fine")
    produce(world, b"fine", partition=1)

    class Bare(Obedient):
        dead_letter = None

    for _ in range(3):
        member = world.start(Bare, duration_s=kills)
        world.run(lambda member=member: _has_killer(member))
        world.kill(member)
    member = world.start(Bare, duration_s=kills)
    world.run(lambda: bool(member.story.stops))
    world.run_for(60)

    assert [(key, reason) for key, reason, _ in member.story.stops] == [(IN, "killed_worker")]
    assert (world.broker.committed(IN), set(calls(world, OTHER))) == (1, {0})
    assert not _has_killer(member)


def test_a_stop_in_order_between_two_deaths_does_not_start_the_count_anew() -> None:
    """Deploys and rebalances happen while a worker dies again and again."""
    world = make_world()
    produce(world, *[b"killer" if number == 5 else b"fine" for number in range(50)])
    deaths = 0
    while deaths < 9:
        member = world.start(Obedient, duration_s=kills)
        world.run_for(0.003)
        world.stop(member)
        member = world.start(Obedient, duration_s=kills)
        world.run(lambda member=member: _has_killer(member) or world.caught_up(IN))
        if not _has_killer(member):
            break
        world.kill(member)
        deaths += 1

    assert deaths == 3


def test_after_a_death_records_go_in_groups_each_of_which_was_committed_before() -> None:
    """Only as far as the log reached when the partition was taken over; then the partition goes on as ever."""
    world = make_world()
    produce(world, *[b"fine"] * 200)
    left = Progress(0, running=True, owner="0abc")
    world.broker.set_committed(IN, 0, codec.encode(1, left).text)

    member = world.start(Obedient)
    world.run(lambda: bool(member.story.acquittals))
    produce(world, *[b"fine"] * 200)
    world.run_to_end("in")

    named = {suspect for entry in world.broker.commits if (suspect := _suspect(entry.mark.metadata, entry.mark.offset))}
    assert max(one.last - one.first + 1 for one in named) == GROUP_RECORDS
    assert (min(one.first for one in named), max(one.last for one in named)) == (0, 199)
    assert {one.deaths for one in named} == {1}
    assert (member.story.suspicions, member.story.acquittals) == ([(IN, 1)], [IN])
    for effect in world.effects:
        before = [entry.mark for entry in world.broker.commits if entry.at_s <= effect.at_s]
        suspects = [_suspect(mark.metadata, mark.offset) for mark in before]
        assert effect.offset >= 200 or any(one and one.first <= effect.offset <= one.last for one in suspects)


def test_who_loses_a_partition_and_has_it_back_has_not_died() -> None:
    world = make_world()
    produce(world, *[b"fine"] * 10)
    member = world.start(Obedient)
    world.run(lambda: world.caught_up(IN))

    world.broker.expel(member.source)
    produce(world, *[b"fine"] * 10)
    world.run_to_end("in")

    assert member.story.suspicions == []


def _suspect(metadata: str, offset: int) -> Suspect | None:
    read = codec.decode(metadata, offset)
    return None if read is None or read.progress is None else read.progress.suspect
