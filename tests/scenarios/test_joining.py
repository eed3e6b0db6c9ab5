"""What a worker says before it has joined its group for the first time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scenarios.worlds import Obedient, calls, make_world, produce

from streamworker.exit_code import ExitCode
from streamworker.interfaces import Fault, FaultKind, Membership
from streamworker.testing.memory_broker import MemoryBroker

if TYPE_CHECKING:
    from streamworker.testing.virtual_world import Member, VirtualWorld

SERVERS = "localhost:9092"  # the default


def outside(*, reached: bool) -> Membership:
    """Of a client that has not joined."""
    return Membership(
        joined=False, state="up/wait-join", coordinator_idle_s=0.0, heard_s=0.0, proven_s=None, reached=reached
    )


def started_outside(world: VirtualWorld, *, reached: bool, join_s: float = 44.0) -> Member:
    """A worker that the coordinator lets wait, as it does until the session of an earlier member has ended."""
    join = world.broker.join
    world.broker.join = lambda member: world.time.call_in(join_s, partial(join, member))  # type: ignore[method-assign]
    member = world.start(Obedient)
    member.source.membership = partial(outside, reached=reached)  # type: ignore[method-assign]
    return member


def joined(world: VirtualWorld, member: Member) -> None:
    world.broker.coordinator_up = True
    del member.source.membership  # the instance's: that of its class says what is so


def test_a_worker_that_waits_for_its_group_says_so_once_and_not_that_a_lease_expired() -> None:
    """A second run of the quickstart looked hung for 43 s, and then warned of a lease that had never been."""
    world = make_world()
    produce(world, b"fine")
    member = started_outside(world, reached=True)
    world.broker.coordinator_up = False  # commits are no proof

    world.run_for(4.8)
    assert member.story.waits == []
    world.run_for(39.0)
    assert [(what, round(seconds)) for what, seconds in member.story.waits] == [("group", 5)]
    world.run_for(0.8)  # it has partitions by now, and no proof of its membership
    assert member.worker.partitions
    assert calls(world) == []
    joined(world, member)
    world.run_to_end("in")

    assert calls(world) == [0]
    assert member.story.leases == []


def test_a_worker_that_is_not_proven_for_a_whole_lease_after_its_first_assignment_says_so() -> None:
    world = make_world()
    produce(world, b"fine")
    member = started_outside(world, reached=True)
    world.broker.coordinator_up = False  # commits are no proof

    world.run_for(44 + 11)

    assert [what for what, _ in member.story.leases] == ["expired"]
    joined(world, member)
    world.run_to_end("in")
    assert [what for what, _ in member.story.leases] == ["expired", "renewed"]


def test_while_no_broker_was_ever_reached_it_is_said_each_30_s() -> None:
    world = make_world()
    member = started_outside(world, reached=False, join_s=1_000)

    world.run_for(95)

    assert [(what, round(seconds)) for what, seconds in member.story.waits] == [
        ("group", 5),
        (SERVERS, 30),
        (SERVERS, 60),
        (SERVERS, 90),
    ]


def test_a_broker_that_was_reached_once_is_not_said_to_be_unreached() -> None:
    world = make_world()
    member = started_outside(world, reached=True, join_s=1_000)
    world.run_for(10)

    member.source.membership = partial(outside, reached=False)  # type: ignore[method-assign]
    world.run_for(60)

    assert [what for what, _ in member.story.waits] == ["group"]


TAKEN = Fault(FaultKind.UNRELEASED, None, None, "_FATAL: the instance id is in use")


def refused(world: VirtualWorld, member: Member, *, until_s: float) -> list[float]:
    """Each client of the member is told that its instance id is in use; when it made another one, in seconds."""
    began_s = world.time.monotonic_s()
    made_s: list[float] = []
    while world.time.monotonic_s() < began_s + until_s and member.worker.stopping is None:
        clients = len(member.sources)
        member.sources[-1].membership = partial(outside, reached=True)  # type: ignore[method-assign]
        member.sources[-1].report(TAKEN)
        world.run(lambda count=clients: len(member.sources) > count or member.worker.stopping is not None)
        made_s.append(round(world.time.monotonic_s() - began_s))
    return made_s


def test_a_member_whose_instance_id_is_still_in_use_tries_again_until_it_is_let_in() -> None:
    """Its predecessor was killed a moment ago, and the coordinator waits for the end of the session."""
    world = make_world()
    produce(world, b"fine")
    member = started_outside(world, reached=True, join_s=1_000)

    made_s = refused(world, member, until_s=14)
    MemoryBroker.join(world.broker, member.sources[-1])
    world.run_to_end("in")

    assert made_s == [5, 10, 15]
    assert calls(world) == [0]
    assert world.stop(member) == ExitCode.OK


def test_one_refusal_that_is_told_again_and_again_makes_one_client() -> None:
    world = make_world()
    member = started_outside(world, reached=True, join_s=1_000)
    world.run_for(1)

    for _ in range(4):
        member.source.report(TAKEN)
        world.run_for(1)
    world.run_for(3)

    assert len(member.sources) == 2


def test_an_instance_id_that_stays_in_use_for_longer_than_a_session_ends_the_worker() -> None:
    world = make_world()
    member = started_outside(world, reached=True, join_s=1_000)

    made_s = refused(world, member, until_s=100)

    assert world.config.kafka.session_timeout_s == 45
    assert 55 <= made_s[-1] <= 61
    assert world.stop(member) == ExitCode.FENCED


def test_an_instance_id_that_is_given_away_after_the_member_has_joined_ends_the_worker() -> None:
    world = make_world()
    member = world.start(Obedient)
    world.run_for(1)

    member.source.report(TAKEN)
    world.run(lambda: member.worker.stopping is not None, timeout_s=1)

    assert world.stop(member) == ExitCode.FENCED


def test_who_is_told_to_stop_while_its_instance_id_is_in_use_ends_in_order() -> None:
    world = make_world()
    member = started_outside(world, reached=True, join_s=1_000)
    member.source.report(TAKEN)
    world.run_for(2)

    assert world.stop(member) == ExitCode.OK
