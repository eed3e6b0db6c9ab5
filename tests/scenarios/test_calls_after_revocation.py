"""What a thread still does with a slice after its partition was given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios.oracle import violations
from scenarios.worlds import OTHER, Obedient, calls, make_world, produce

from streamworker import Ordering
from streamworker.config import LifecycleConfig

if TYPE_CHECKING:
    from streamworker.work import Slice


class Unordered(Obedient):
    ordering = Ordering.UNORDERED


def test_a_slice_that_outlives_its_ownership_starts_no_further_call() -> None:
    """Only the call in progress may end later: the new owner has begun with the others."""
    world = make_world(2, lifecycle=LifecycleConfig(revoke_timeout_s=0.0))
    hanging: list[bool] = []

    def duration_s(slice_: Slice) -> float:
        return 10.0 if hanging else 0.0001 * len(slice_.messages)

    produce(world, *[b"fine"] * 300, partition=1)
    first = world.start(Unordered, duration_s=duration_s)
    world.run(lambda: len(calls(world, OTHER)) > 20)
    hanging.append(True)
    world.run(lambda: len(first.worker.running) == 4 and all(len(one.messages) > 1 for one in first.worker.running))

    world.start(Unordered)
    world.run_to_end("in")
    world.run(lambda: not first.worker.running)

    assert not list(violations(world, "in", ordered=False))
