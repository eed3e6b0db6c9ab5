"""What each way to avoid repeats gives up, found by trying everything that can happen to one record.

A record is delivered up to three times. Each delivery is a worker that goes through the steps of a mechanism; between
any two of them it can crash, and the record is delivered again until it is committed. With `LOSSES`, what Redis keeps
can be gone between any two steps, by the end of a lease or by a flush. With `ZOMBIES`, a record is delivered again
while a worker that was taken for dead still goes on. The table of docs/idempotency.md is what is found here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import pytest

from streamworker.idempotency import Fence
from streamworker.idempotency.claims import Completion, Done
from streamworker.testing.memory_claims import InWork, Note, after_claim, after_complete

MAX_DELIVERIES = 3


class Hazard(enum.Flag):
    """What can happen beside crashes."""

    NONE = 0
    LOSSES = enum.auto()
    ZOMBIES = enum.auto()
    FLUSHES = enum.auto()  # the last number of the fence is gone as well


ALL = Hazard.LOSSES | Hazard.ZOMBIES


@dataclass(frozen=True, slots=True)
class Worker:
    """One delivery: who it is, the step that comes next, and what it has read."""

    name: str
    step: int = 0
    fence: int = 0
    saw: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """All that there is: what Redis, the sink and Kafka keep, and who is at work."""

    redis: Note | None = None
    last_fence: int = 0  # kept apart, without end
    effects: int = 0
    marked: bool = False  # the sink knows that the record was applied
    seen: Fence | None = None  # by the sink
    writers: tuple[str, ...] = ()  # to a sink with a fence, in order
    committed: bool = False
    deliveries: int = 0
    workers: tuple[Worker, ...] = ()


# A step gives the world and the worker after it, or None for the worker if it is through or gave up.
Step = Callable[[World, Worker], tuple[World, Worker | None]]


def went_on(world: World, worker: Worker, **read: object) -> tuple[World, Worker | None]:
    return world, replace(worker, step=worker.step + 1, **read)  # type: ignore[arg-type]


def commit(world: World, _: Worker) -> tuple[World, Worker | None]:
    return replace(world, committed=True), None


def effect(world: World, worker: Worker) -> tuple[World, Worker | None]:
    return went_on(replace(world, effects=world.effects + 1), worker)


def set_if_absent(world: World, worker: Worker) -> tuple[World, Worker | None]:
    if world.redis is not None:
        return commit(world, worker)
    return went_on(replace(world, redis=InWork(worker.name)), worker)


def skip_if_noted(world: World, worker: Worker) -> tuple[World, Worker | None]:
    return commit(world, worker) if world.redis is not None else went_on(world, worker)


def note(world: World, worker: Worker) -> tuple[World, Worker | None]:
    return went_on(replace(world, redis=Done(b"")), worker)


def claim(world: World, worker: Worker) -> tuple[World, Worker | None]:
    found = after_claim(world.redis, worker.name)
    if isinstance(found, Done):
        return commit(world, worker)
    if found.token != worker.name:
        return world, None  # it waits for the end of the lease, which is another delivery
    return went_on(replace(world, redis=found), worker)


def complete(world: World, worker: Worker) -> tuple[World, Worker | None]:
    found, completion = after_complete(world.redis, worker.name, b"")
    assert completion is not Completion.ALREADY_DONE or isinstance(found, Done)
    return went_on(replace(world, redis=found), worker)


def read_mark(world: World, worker: Worker) -> tuple[World, Worker | None]:
    return went_on(world, worker, saw=world.marked)


def effect_unless_seen(world: World, worker: Worker) -> tuple[World, Worker | None]:
    return went_on(world, worker) if worker.saw else effect(world, worker)


def write_mark(world: World, worker: Worker) -> tuple[World, Worker | None]:
    return went_on(replace(world, marked=True), worker)


def lock(world: World, worker: Worker) -> tuple[World, Worker | None]:
    found = after_claim(world.redis, worker.name)
    if found != InWork(worker.name):
        return world, None
    number = world.last_fence + 1
    return went_on(replace(world, redis=found, last_fence=number), worker, fence=number)


def unlock(world: World, worker: Worker) -> tuple[World, Worker | None]:
    own = world.redis == InWork(worker.name)
    return went_on(replace(world, redis=None) if own else world, worker)


def fenced_effect(world: World, worker: Worker) -> tuple[World, Worker | None]:
    fence = Fence("lock", worker.fence, worker.name)
    if not fence.passes(world.seen):
        return world, None
    return effect(replace(world, seen=fence, writers=(*world.writers, worker.name)), worker)


def effect_with_mark(world: World, worker: Worker) -> tuple[World, Worker | None]:
    """One transaction: the mark is compared, the effect made and the mark written."""
    return went_on(world, worker) if world.marked else effect(replace(world, marked=True), worker)


MECHANISMS: dict[str, tuple[Step, ...]] = {
    "none": (effect, commit),
    "set-nx-before": (set_if_absent, effect, commit),
    "mark-after": (skip_if_noted, effect, note, commit),
    "claims": (claim, effect, complete, commit),
    "mark-in-transactions-apart": (read_mark, effect_unless_seen, write_mark, commit),
    "lock-and-mark-apart": (lock, read_mark, effect_unless_seen, write_mark, unlock, commit),
    "lock-and-fence": (lock, fenced_effect, unlock, commit),
    "mark-in-the-transaction": (effect_with_mark, commit),
    "unique-key": (effect_with_mark, commit),
    "claims-and-unique-key": (claim, effect_with_mark, complete, commit),
    "fenced-writes": (lock, fenced_effect, fenced_effect, unlock, commit),
}
# Whether a record can be lost, and whether its effect can come twice.
TABLE = [
    ("none", Hazard.NONE, False, True),
    ("none", ALL, False, True),
    ("set-nx-before", Hazard.NONE, True, False),
    ("set-nx-before", ALL, True, True),
    ("mark-after", Hazard.NONE, False, True),
    ("mark-after", ALL, False, True),
    # Only the end of a lease lets the next delivery in, so without losses nothing comes twice, and nothing is done.
    ("claims", Hazard.NONE, False, False),
    ("claims", Hazard.ZOMBIES, False, False),
    ("claims", Hazard.LOSSES, False, True),
    ("claims", ALL, False, True),
    ("mark-in-transactions-apart", Hazard.NONE, False, True),
    ("mark-in-transactions-apart", ALL, False, True),
    ("lock-and-mark-apart", Hazard.LOSSES, False, True),
    ("lock-and-mark-apart", ALL, False, True),
    ("lock-and-fence", Hazard.LOSSES, False, True),
    ("lock-and-fence", ALL, False, True),
    ("mark-in-the-transaction", ALL, False, False),
    ("unique-key", ALL, False, False),
    ("claims-and-unique-key", ALL, False, False),
]


def nexts(world: World, steps: tuple[Step, ...], hazard: Hazard) -> Iterator[World]:
    """All that can happen next."""
    free = not world.workers or Hazard.ZOMBIES in hazard
    if not world.committed and free and world.deliveries < MAX_DELIVERIES:
        fresh = Worker(f"worker {world.deliveries}")
        yield replace(world, deliveries=world.deliveries + 1, workers=(*world.workers, fresh))
    if Hazard.LOSSES in hazard and world.redis is not None:
        yield replace(world, redis=None)
    if Hazard.FLUSHES in hazard and world.last_fence:
        yield replace(world, redis=None, last_fence=0)
    for index, worker in enumerate(world.workers):
        others = world.workers[:index] + world.workers[index + 1 :]
        yield replace(world, workers=others)  # it crashes
        after, went = steps[worker.step](world, worker)
        yield replace(after, workers=others if went is None else (*others, went))


def explored(mechanism: str, hazard: Hazard) -> set[World]:
    """All worlds that there can be."""
    steps = MECHANISMS[mechanism]
    found = {World()}
    waiting = list(found)
    while waiting:
        fresh = set(nexts(waiting.pop(), steps, hazard)) - found
        found |= fresh
        waiting += fresh
    return found


def is_lost(world: World) -> bool:
    return world.committed and not world.workers and not world.effects


@pytest.mark.parametrize(("mechanism", "hazard", "loses", "repeats"), TABLE)
def test_what_a_mechanism_loses_and_repeats(mechanism: str, hazard: Hazard, *, loses: bool, repeats: bool) -> None:
    worlds = explored(mechanism, hazard)

    assert any(is_lost(world) for world in worlds) is loses
    assert any(world.effects > 1 for world in worlds) is repeats


def test_a_record_that_is_done_is_not_handled_again_while_redis_keeps_that() -> None:
    """A worker that dies between the note and the commit costs nothing: the next one finds that it is done."""
    worlds = explored("claims", Hazard.ZOMBIES | Hazard.LOSSES)

    steps = MECHANISMS["claims"]
    done = [world for world in worlds if isinstance(world.redis, Done) and not world.workers and not world.committed]
    for world in done:
        fresh = Worker("another")
        after, went = steps[0](world, fresh)
        assert went is None
        assert after.committed
        assert after.effects == world.effects
    assert done


@pytest.mark.parametrize("hazard", [ALL, ALL | Hazard.FLUSHES])
def test_no_holder_of_a_lock_writes_to_a_fenced_sink_after_another_one_did(hazard: Hazard) -> None:
    """Also where a flush, or a replica that took over too early, lets a number be given twice."""
    worlds = explored("fenced-writes", hazard)

    runs = {tuple(name for name, _ in groupby(world.writers)) for world in worlds}
    assert [run for run in runs if len(set(run)) < len(run)] == []
    assert max(map(len, runs)) == MAX_DELIVERIES
