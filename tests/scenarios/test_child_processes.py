"""Handlers in child processes as the loop sees them, in virtual time: what such a pool reports is raised here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios.oracle import violations
from scenarios.worlds import (
    IN,
    Obedient,
    ObedientBatches,
    calls,
    handled,
    headers_of,
    letters_from,
    make_world,
    produce,
)

from streamworker import Breaker, CallKilled, DeadLetter, Ordering, Record, Records

if TYPE_CHECKING:
    from streamworker.work import Slice


def die_of(value: bytes | None) -> None:
    if value == b"killer":
        raise CallKilled("the child process died", exit_code=-9)


class Dies(Obedient):
    """Dies of some records, as its child would."""

    execution = "process"
    ordering = Ordering.KEY
    breaker = Breaker("db", in_a_row=1)

    def handle(self, record: Record[bytes]) -> None:
        die_of(record.value)


class DiesInBatches(ObedientBatches):
    """The same in batches."""

    execution = "process"

    def handle(self, records: Records[bytes]) -> None:
        for record in records:
            die_of(record.value)


class DiesAndBlocks(Dies):
    """Its partition waits for a person then."""

    dead_letter = DeadLetter("dlq", on_exhausted="block")


def test_a_record_that_kills_each_time_is_dead_lettered_and_its_neighbours_are_handled_once() -> None:
    world = make_world()
    for number in range(20):
        produce(world, b"killer" if number == 7 else b"fine", key=b"%d" % (number % 5))
    member = world.start(Dies)
    world.run_to_end("in")

    headers = headers_of(world, 0)
    assert (headers["sw-reason"], headers["sw-attempts"], headers["sw-origin-offset"]) == ("killed_worker", "4", "7")
    assert headers["sw-exception"] == "streamworker.errors.CallKilled"
    assert sorted(handled(world)) == [number for number in range(20) if number != 7]
    assert calls(world).count(7) == 4
    assert {type(error) for _, _, error, _, _ in member.story.failures} == {CallKilled}
    assert not list(violations(world, "in", "dlq"))


def test_a_batch_that_kills_is_taken_apart_until_the_killer_is_alone() -> None:
    world = make_world()
    produce(world, *(b"killer" if number == 7 else b"fine" for number in range(20)))
    world.start(DiesInBatches)
    world.run_to_end("in")

    assert letters_from(world) == [b"killer"]
    assert headers_of(world, 0)["sw-reason"] == "killed_worker"
    assert sorted(set(handled(world))) == [number for number in range(20) if number != 7]


def test_a_child_is_handed_more_at_a_time_than_a_thread() -> None:
    at_once: list[int] = []
    world = make_world()
    produce(world, *[b"fine"] * 400)

    def duration_s(slice_: Slice) -> float:
        at_once.append(len(slice_.messages))
        return 0.001 * len(slice_.messages)

    world.start(Dies, duration_s=duration_s)
    world.run_to_end("in")

    assert max(at_once) == 50


def test_it_says_nothing_of_a_dependency() -> None:
    world = make_world()
    produce(world, b"killer", b"fine")
    member = world.start(Dies)
    world.run_to_end("in")

    assert member.story.breaker_changes == []


def test_where_exhausted_records_block_it_stops_its_partition() -> None:
    world = make_world()
    produce(world, b"killer")
    member = world.start(DiesAndBlocks)
    world.run(lambda: bool(member.story.stops))

    assert [(key, reason) for key, reason, _ in member.story.stops] == [(IN, "killed_worker")]
