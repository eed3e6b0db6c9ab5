"""A lock goes to one at a time, and a fence tells its holders apart."""

from __future__ import annotations

import pytest

from streamworker.errors import ConfigurationError, LockBusy, LockLost, LockUnavailable
from streamworker.idempotency import Fence, Lock
from streamworker.testing.memory_claims import MemoryLock, MemoryLocks
from streamworker.testing.virtual_time import VirtualTime

LEASE_S = 30.0


class World:
    """Two processes that share a lock."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.locks = MemoryLocks(self.time)
        self.here, self.there = (MemoryLock(self.locks, "migration", self.time, lease_s=LEASE_S) for _ in range(2))

    def let_pass(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)


def test_who_holds_a_lock_for_longer_than_its_lease_keeps_it() -> None:
    world = World()
    with world.here.held(timeout_s=0) as hold:
        world.let_pass(10 * LEASE_S)

        other = world.there.acquire(0)
        hold.check()

    assert other is None
    assert world.there.acquire(0) is not None


def test_who_waits_gets_it_soon_after_its_release() -> None:
    world = World()
    hold = world.here.acquire(0)
    assert hold is not None
    world.time.call_in(2.0, hold.release)

    got = world.there.acquire(60.0)

    assert got is not None
    assert got.fence.number > hold.fence.number
    assert world.time.monotonic_s() - 1002.0 <= 0.1


def test_who_waits_in_vain_is_told_so_in_time() -> None:
    world = World()
    world.here.acquire(0)

    with (
        pytest.raises(LockBusy, match=r"the lock migration was somebody else's for 1.5 s"),
        world.there.held(timeout_s=1.5),
    ):
        pass

    assert world.time.monotonic_s() == pytest.approx(1001.5)


def test_a_holder_that_was_stopped_finds_its_lock_lost_and_its_fence_too_old() -> None:
    world = World()
    first = world.here.acquire(0)
    assert first is not None
    world.here.close()  # nothing extends it any more, as in a process that is stopped
    world.let_pass(LEASE_S)
    second = world.there.acquire(0)
    assert second is not None

    released = first.release()

    assert first.lost
    with pytest.raises(LockLost, match="the lock migration is not held any more"):
        first.check()
    assert not released
    assert second.fence.passes(first.fence)
    assert not first.fence.passes(second.fence)
    assert not second.lost


def test_a_loss_is_told_to_the_holder_once() -> None:
    world = World()
    lost: list[Fence] = []
    hold = world.here.acquire(0, on_lost=lost.append)
    assert hold is not None

    world.locks.forget()
    world.let_pass(LEASE_S)

    assert lost == [hold.fence]
    assert hold.lost


def test_after_a_store_has_lost_its_data_no_two_holders_have_the_same_number_and_token() -> None:
    world = World()
    first = world.here.acquire(0)
    world.locks.forget()
    second = world.there.acquire(0)
    assert first is not None
    assert second is not None

    seen = {(hold.fence.number, hold.fence.token) for hold in (first, second)}

    assert first.fence.number == second.fence.number
    assert len(seen) == 2
    assert not first.fence.passes(second.fence)
    assert not second.fence.passes(first.fence)


def test_a_number_above_what_the_resource_has_seen_passes_again() -> None:
    world = World()
    seen = Fence("migration", 41, "before")
    world.locks.forget()

    hold = world.here.acquire(0, above=seen.number)

    assert hold is not None
    assert hold.fence.passes(seen)


def test_a_store_that_is_away_is_asked_until_the_time_is_over() -> None:
    world = World()
    world.locks.away = True

    with pytest.raises(LockUnavailable):
        world.here.acquire(2.0)

    assert world.time.monotonic_s() == pytest.approx(1002.0)


def test_one_that_is_given_up_while_nobody_can_be_told_ends_with_its_lease() -> None:
    world = World()
    hold = world.here.acquire(0)
    assert hold is not None
    world.locks.away = True

    released = hold.release()
    world.locks.away = False
    meanwhile = world.there.acquire(0)
    world.let_pass(LEASE_S)

    assert not released
    assert meanwhile is None
    assert world.there.acquire(0) is not None


class LosesAnswers(MemoryLocks):
    """What is asked of it happens, and nobody hears of it."""

    loses = True

    def take(self, name: str, token: str, *, lease_s: float, above: int) -> int:
        answer = super().take(name, token, lease_s=lease_s, above=above)
        if self.loses:
            raise LockUnavailable("the answer was lost")
        assert isinstance(answer, int)
        return answer


def test_an_acquisition_whose_answer_was_lost_and_that_was_given_up_is_gone_on_with_by_the_next_one() -> None:
    """Otherwise the process would wait for itself until the lease is over."""
    time = VirtualTime()
    locks = LosesAnswers(time)
    lock = MemoryLock(locks, "migration", time, lease_s=LEASE_S)
    with pytest.raises(LockUnavailable):
        lock.acquire(0)
    locks.loses = False

    hold = lock.acquire(0)

    assert hold is not None
    assert not hold.lost


def test_a_closed_lock_keeps_nobody_waiting() -> None:
    world = World()
    world.here.acquire(0)

    world.there.close()

    assert world.there.acquire(60.0) is None
    assert world.time.monotonic_s() == 1000.0


@pytest.mark.parametrize(
    ("fence", "passes"),
    [
        (Fence("a", 2, "x"), True),
        (Fence("a", 1, "x"), True),  # the same holder again
        (Fence("a", 1, "y"), False),  # a number that was given twice: whoever came first has it
        (Fence("a", 0, "x"), False),
    ],
)
def test_a_resource_lets_through_what_is_newer_or_the_same_holder(fence: Fence, *, passes: bool) -> None:
    assert fence.passes(Fence("a", 1, "x")) is passes
    assert fence.passes(None)


@pytest.mark.parametrize(("name", "lease_s", "message"), [("", 1.0, "Lock.name"), ("a", 0.0, "Lock.lease_s")])
def test_a_lock_that_cannot_work_is_refused(name: str, lease_s: float, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Lock(MemoryLocks(VirtualTime()), name, lease_s=lease_s)
