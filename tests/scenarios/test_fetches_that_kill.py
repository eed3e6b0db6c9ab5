"""Batches that end the process before anything of them is delivered: their partition stops for long, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenarios.worlds import IN, Obedient, commits, handled, make_world, produce

from streamworker import TopicPartition
from streamworker.config import CommitConfig
from streamworker.offsets import codec

if TYPE_CHECKING:
    from collections.abc import Collection

    from streamworker.testing.memory_source import MemorySource
    from streamworker.testing.virtual_world import Member, VirtualWorld

KEYS = [TopicPartition("in", number) for number in range(4)]
WAITS_S = 0.5


def with_bombs(world: VirtualWorld, bombs: Collection[TopicPartition]) -> None:
    """From now on a fetch that brings something of these kills its process."""

    def unpack(source: MemorySource, key: TopicPartition) -> None:
        if key in bombs:
            world.kill(next(one for one in world.members if one.sources[-1] is source))

    world.broker.on_read = unpack


def lives_of(world: VirtualWorld, most: int = 12) -> tuple[int, Member]:
    """Run workers one after the other until one lives on; how many died, and the one that lives."""
    for deaths in range(most):
        member = world.start(Obedient)
        world.run_for(WAITS_S)
        if member in world.members:
            return deaths, member
    raise AssertionError(f"{most} workers died")


def stops(member: Member) -> list[tuple[TopicPartition, str]]:
    return [(key, reason) for key, reason, _ in member.story.stops]


def started(partitions: int = 4) -> VirtualWorld:
    """A world in which a worker is at work in all partitions and has committed."""
    world = make_world(partitions, commit=CommitConfig(interval_s=0.1))
    for number in range(partitions):
        produce(world, b"before", partition=number)
    world.start(Obedient)
    world.run_to_end("in")
    return world


@pytest.mark.parametrize("bombs", [1, 2])
def test_a_batch_that_kills_before_delivery_stops_its_partition_after_three_deaths(bombs: int) -> None:
    """F-50. One death in ordinary work, one together with others, one alone for each that kills."""
    world = started()
    with_bombs(world, KEYS[:bombs])
    for number in range(4):
        produce(world, *[b"fine"] * 5, partition=number)
    world.run_for(WAITS_S)

    deaths, member = lives_of(world)

    assert world.ever[0] not in world.members
    assert 1 + deaths == 2 + bombs
    assert sorted(stops(member)) == [(key, "kills_before_delivery") for key in KEYS[:bombs]]
    assert [world.caught_up(key) for key in KEYS] == [key not in KEYS[:bombs] for key in KEYS]
    assert all(handled(world, key) == list(range(6)) for key in KEYS[bombs:])


def test_it_is_stopped_for_whoever_comes_next_until_the_offset_is_set() -> None:
    world = started(1)
    with_bombs(world, [IN])
    produce(world, b"bomb", b"behind")
    world.run_for(WAITS_S)
    _, member = lives_of(world)
    world.stop(member)
    deaths, member = lives_of(world)
    assert deaths == 0
    assert stops(member) == [(IN, "kills_before_delivery")]
    world.stop(member)

    with_bombs(world, [])
    world.broker.set_committed(IN, 2)
    world.start(Obedient)
    world.run_to_end("in", timeout_s=1)

    assert handled(world) == [0, 2]


def test_it_kills_less_and_less_often_and_goes_on_by_itself_when_it_kills_no_more() -> None:
    world = started(1)
    with_bombs(world, [IN])
    produce(world, b"bomb")
    world.run_for(WAITS_S)
    lived_s: list[float] = []
    for _ in range(7):
        member, began_s = world.start(Obedient), world.time.monotonic_s()
        world.run(lambda member=member: member not in world.members)
        lived_s.append(world.time.monotonic_s() - began_s)
    with_bombs(world, [])
    member = world.start(Obedient)
    world.run_to_end("in")

    assert [round(seconds) for seconds in lived_s] == [0, 0, 1, 2, 4, 8, 16]
    assert member.story.mends == [(IN, "kills_before_delivery")]
    assert handled(world) == [0, 1]


def test_a_fetch_that_raises_counts_as_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """F-50. Unpacked, and no memory is left for the record: the client's call raises, and the process ends by it."""
    world = started(1)
    produce(world, b"bomb")

    def unpack(_source: MemorySource, _key: TopicPartition) -> None:
        raise MemoryError

    world.broker.on_read = unpack
    seen: list[int] = []
    for number in range(3):
        member = world.start(Obedient) if number else world.members[0]
        monkeypatch.setattr(member.worker, "begin", lambda: None)
        with pytest.raises(MemoryError):
            member.worker.run()
        world.members.remove(member)
        mark = world.broker.group_offset(IN)
        read = codec.decode(mark.metadata, mark.offset) if mark is not None else None
        assert read is not None
        assert read.progress is not None
        assert read.progress.running
        seen.append(read.progress.unread)
    world.broker.on_read = lambda _source, _key: None
    member = world.start(Obedient)
    world.run_for(1)

    assert seen == [0, 1, 2]
    assert stops(member) == [(IN, "kills_before_delivery")]


def test_workers_that_die_of_something_else_stop_nothing() -> None:
    """Each of them has read something, or there is nothing to read."""
    world = started(2)
    for number in range(8):
        world.kill(world.members[0])
        produce(world, b"%d" % number)
        world.start(Obedient)
        world.run(lambda number=number: len(handled(world)) > 1 + number)

    assert not [stop for member in world.ever for stop in member.story.stops]
    assert world.broker.committed(KEYS[1]) == 1


def test_nothing_is_fetched_before_it_is_known_how_many_deaths_that_makes() -> None:
    world = started(1)
    world.kill(world.members[0])
    produce(world, b"fine")
    seen: list[int] = []

    def look(_source: MemorySource, key: TopicPartition) -> None:
        mark = world.broker.group_offset(key)
        assert mark is not None
        read = codec.decode(mark.metadata, mark.offset)
        assert read is not None
        assert read.progress is not None
        seen.append(read.progress.unread)

    world.broker.on_read = look
    member = world.start(Obedient)
    world.run_to_end("in")
    world.run_for(1)
    mark = world.broker.group_offset(IN)

    assert seen == [1]
    assert "u=" not in (mark.metadata if mark else "")
    assert (IN, "suspected") in member.story.pauses
    assert commits(world)[-1] == 2


def test_a_stop_in_order_between_two_deaths_forgets_none() -> None:
    world = started(1)
    with_bombs(world, [IN])
    produce(world, b"bomb")
    world.run_for(WAITS_S)
    world.broker.leaderless = {IN}  # this one lives, and reads nothing
    member = world.start(Obedient)
    world.run_for(1)
    world.stop(member)
    world.broker.leaderless = set()

    deaths, member = lives_of(world)

    assert deaths == 2
    assert stops(member) == [(IN, "kills_before_delivery")]


def test_a_partition_that_cannot_be_read_keeps_the_others_waiting_for_a_while_only() -> None:
    world = started(2)
    for _ in range(2):
        for key in KEYS[:2]:
            produce(world, b"fine", partition=key.partition)
        world.broker.on_read = lambda source, _key: world.kill(
            next(one for one in world.members if one.sources[-1] is source)
        )
        world.run_for(1)
        world.start(Obedient)
    world.broker.on_read = lambda _source, _key: None
    world.broker.leaderless = {KEYS[0]}
    world.run(lambda: world.caught_up(KEYS[1]), timeout_s=4)
    unread = world.broker.committed(KEYS[0])
    world.broker.leaderless = set()
    world.run_to_end("in")

    assert unread == 1
    assert handled(world, KEYS[0]) == handled(world, KEYS[1]) == [0, 1, 2]
