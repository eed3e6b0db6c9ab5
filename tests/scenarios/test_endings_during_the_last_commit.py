"""What comes back while the last commit of a revocation is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios.worlds import OTHER, Obedient, make_world, produce

from streamworker import Ending
from streamworker.config import LifecycleConfig

if TYPE_CHECKING:
    from streamworker.testing.virtual_world import Member, VirtualWorld
    from streamworker.work import Slice


class Single(Obedient):
    """One thread: its slices grow."""

    concurrency = 1


def revoke_during_the_slice_of(world: VirtualWorld, *values: bytes) -> Member:
    """A slice of `values` that outlasts the time to finish, and comes back between two tries to commit."""
    longest: list[Slice] = []

    def duration_s(slice_: Slice) -> float:
        if len(slice_.messages) < len(values) or longest:
            return 0.001
        longest.append(slice_)
        return 4.0

    produce(world, b"fine", partition=1)
    member = world.start(Single, duration_s=duration_s, eager=lambda: bool(longest))
    world.run_to_end("in")
    produce(world, *values, partition=1)
    world.run(lambda: bool(longest))
    world.broker.commit_error = lambda _key: "REBALANCE_IN_PROGRESS"
    world.start(Single)
    world.run(lambda: ("revoked", (OTHER,)) in member.story.rebalances)
    world.broker.commit_error = lambda _key: None
    return member


def test_a_record_that_was_settled_when_the_time_was_up_is_not_counted_again_when_its_slice_comes_back() -> None:
    world = make_world(2, lifecycle=LifecycleConfig(revoke_timeout_s=5))

    member = revoke_during_the_slice_of(world, b"fine", b"fine")

    assert member.story.count(Ending.HANDLED) == 3


def test_a_dead_letter_that_is_acknowledged_between_two_tries_to_commit_ends_the_revocation_in_order() -> None:
    world = make_world(2, lifecycle=LifecycleConfig(revoke_timeout_s=5))

    revoke_during_the_slice_of(world, b"fine", b"poison")

    world.run_to_end("in")
