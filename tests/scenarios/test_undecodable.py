"""Bytes that are not what the serde expects, and a serde that cannot do its work just now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenarios.worlds import IN, OTHER, Obedient, calls, commits, handled, headers_of, letters_from, make_world, produce

from streamworker import DecodeError, DependencyUnavailable, Ordering, Rule
from streamworker.interfaces import Fault, FaultKind

if TYPE_CHECKING:
    from streamworker.observability.status import StopStatus
    from streamworker.testing.virtual_world import Member


class Careful:
    """Refuses `garbage`, breaks at `crash`, and needs a registry that may be away for `registered`."""

    def __init__(self) -> None:
        self.registry_up = True

    def decode(self, data: bytes, topic: str) -> bytes:
        if data == b"garbage":
            raise DecodeError("expected int")
        if data == b"crash":
            raise ZeroDivisionError("a defect of the serde")
        if data == b"registered" and not self.registry_up:
            raise DependencyUnavailable("schema registry: connection refused")
        return data

    def encode(self, value: bytes, topic: str) -> bytes:
        return value


@pytest.mark.parametrize("ordering", list(Ordering))
@pytest.mark.parametrize("data", [b"garbage", b"crash"])
def test_an_undecodable_value_is_dead_lettered_without_a_call_and_its_neighbours_go_on(
    data: bytes, ordering: Ordering
) -> None:
    """Edge case 54."""
    world = make_world()
    kind = type("Decoding", (Obedient,), {"value": Careful(), "ordering": ordering})
    produce(world, b"fine", data, b"fine", data)

    world.start(kind)
    world.run_to_end("in")

    assert sorted(calls(world)) == [0, 2]
    assert letters_from(world) == [data, data]
    assert headers_of(world, 0)["sw-reason"] == "undecodable_value"


def test_an_undecodable_key_is_told_from_an_undecodable_value() -> None:
    """Edge case 54."""
    world = make_world()
    kind = type("Decoding", (Obedient,), {"key": Careful(), "value": Careful()})
    produce(world, b"fine", key=b"garbage")

    world.start(kind)
    world.run_to_end("in")

    assert headers_of(world, 0)["sw-reason"] == "undecodable_key"


def test_a_rule_cannot_make_undecodable_bytes_be_tried_again() -> None:
    """Edge case 45. They stay the same however often they are read."""
    world = make_world()
    kind = type("Decoding", (Obedient,), {"value": Careful(), "rules": (Rule.retry(DecodeError),)})
    produce(world, b"garbage", b"fine")

    world.start(kind)
    world.run_to_end("in", timeout_s=5)

    assert letters_from(world) == [b"garbage"]


def test_undecodable_bytes_without_dead_letters_stop_their_partition() -> None:
    """Edge case 40. The records before are done, the one at fault is not skipped."""
    world = make_world(2)
    kind = type("Bare", (Obedient,), {"value": Careful(), "dead_letter": None})
    produce(world, b"fine", b"garbage", b"fine")
    produce(world, b"fine", partition=1)

    member = world.start(kind)
    world.run(lambda: bool(member.story.stops))
    world.run_for(60)

    assert member.story.stops[0][:2] == (IN, "no_dead_letter")
    assert commits(world, IN) == [1]
    assert world.caught_up(OTHER)


def test_an_outage_of_what_decoding_needs_spends_no_attempt_and_dead_letters_nothing() -> None:
    """Edge case 39. The partition waits and goes on by itself; its other records are as good as before."""
    world = make_world(2)
    serde = Careful()
    serde.registry_up = False
    kind = type("Decoding", (Obedient,), {"value": serde})
    produce(world, b"fine", b"registered", b"fine")
    produce(world, *[b"fine"] * 5, partition=1)
    member = world.start(kind)
    world.run_for(600)
    before = calls(world, IN)

    serde.registry_up = True
    world.run_to_end("in", timeout_s=60)

    assert before == [0]
    assert handled(world, OTHER) == list(range(5))
    assert [effect.attempt for effect in world.effects if effect.partition == IN] == [1, 1, 1]
    assert letters_from(world) == []
    assert {reason for _, reason, _ in member.story.stops} == {"dependency_unavailable"}


def test_a_value_beyond_the_limit_is_refused_before_it_is_decoded() -> None:
    """Edge case 89. It would take memory many times its size."""
    world = make_world()
    produce(world, b"x" * (world.config.kafka.max_record_bytes + 1), b"fine")

    world.start(Obedient)
    world.run_to_end("in")

    assert calls(world) == [1]
    assert headers_of(world, 0)["sw-reason"] == "undecodable_value"


def test_tombstones_and_empty_values_are_no_garbage() -> None:
    """Edge case 57. Null never reaches the serde."""
    world = make_world()
    kind = type("Decoding", (Obedient,), {"value": Careful()})
    produce(world, None, b"", b"fine")

    world.start(kind)
    world.run_to_end("in")

    assert handled(world) == [0, 1, 2]


def test_a_batch_of_the_broker_that_stays_unreadable_stops_its_partition() -> None:
    """Edge case 98. Once may be the network, three times in a row is the log."""
    world = make_world()
    member = world.start(Obedient)
    world.run_for(1)
    fault = Fault(FaultKind.UNREADABLE, IN, 0, "_BAD_MSG: checksum")

    member.source.report(fault)
    member.source.report(fault)
    world.run_for(1)
    twice = list(member.story.stops)
    member.source.report(fault)
    world.run_for(1)

    assert twice == []
    assert [reason for _, reason, _ in member.story.stops] == ["unreadable_batch"]


@pytest.mark.parametrize("told", [2, None, -1001])
def test_an_unreadable_batch_stops_its_partition_with_its_offset_until_an_operator_goes_past_it(
    told: int | None,
) -> None:
    """F-51. P10. A new worker stops at it again; only an offset that is set behind it passes it. The others go on."""
    world = make_world(2)
    produce(world, b"fine", b"fine")
    fault = Fault(FaultKind.UNREADABLE, IN, told, "_BAD_COMPRESSION: zstd")

    def stopped(member: Member) -> StopStatus:
        world.run_for(1)
        world.broker.leaderless = {IN}  # nothing more can be read of it
        for _ in range(3):
            member.source.report(fault)
            world.run_for(0.5)
        produce(world, b"fine", partition=1)
        world.run_for(60)
        stop = member.worker.partitions[IN].stop
        assert world.stop(member) == 0
        assert stop is not None
        return stop

    stops = [stopped(world.start(Obedient)) for _ in range(2)]
    produce(world, *[b"fine"] * 4)
    world.broker.leaderless = set()
    world.broker.set_committed(IN, 4)
    world.start(Obedient)
    world.run_to_end("in")

    assert {(stop.reason, stop.detail, stop.mends_itself) for stop in stops} == {
        ("unreadable_batch", "offset 2: _BAD_COMPRESSION: zstd", False)
    }
    assert calls(world) == [0, 1, 4, 5]
    assert handled(world, OTHER) == [0, 1]
