"""One leader at a time, which steps down before another can be elected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.idempotency import Leader
from streamworker.testing.memory_claims import MemoryLock, MemoryLocks
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from streamworker.idempotency import Hold

LEASE_S = 15.0


class World:
    """Two workers that take part in an election, stepped in virtual time, and what became of their jobs."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.locks = MemoryLocks(self.time)
        self.story: list[tuple[float, str]] = []
        self.refuses: set[str] = set()
        self.stopped: set[str] = set()
        self.workers = {name: self._worker(name) for name in ("a", "b")}

    def _worker(self, name: str) -> Leader:
        def elected(_: Hold) -> None:
            if name in self.refuses:
                raise ValueError("no room for it")
            self._tell(f"{name} starts")

        lock = MemoryLock(self.locks, "reports", self.time, lease_s=LEASE_S)
        leader = Leader(lock, elected, lambda: self._tell(f"{name} ends"), draw=lambda: 1.0)

        def step() -> None:
            if name not in self.stopped:
                self.time.call_in(max(leader.step(), 0.001), step)

        self.time.call_in(0.0, step)
        return leader

    def _tell(self, what: str) -> None:
        self.story.append((round(self.time.monotonic_s() - 1000.0, 1), what))

    def let_pass(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)

    def leading(self) -> list[str]:
        return [name for name, one in self.workers.items() if one.leading]


def test_one_of_them_leads_and_goes_on_to() -> None:
    world = World()

    world.let_pass(1000.0)

    assert world.leading() == ["a"]
    assert world.story == [(0.0, "a starts")]


def test_another_follows_one_that_steps_down() -> None:
    world = World()
    world.let_pass(1.0)
    world.stopped.add("a")

    world.workers["a"].step_down()
    world.let_pass(LEASE_S)

    assert world.leading() == ["b"]
    assert [what for _, what in world.story] == ["a starts", "a ends", "b starts"]


def test_a_leader_that_gets_no_answer_ends_its_job_before_its_lease_is_over() -> None:
    world = World()
    world.let_pass(1.0)
    world.locks.away = True

    world.let_pass(100.0)
    nobody = world.leading()
    world.locks.away = False
    world.let_pass(LEASE_S)

    assert nobody == []
    assert world.story[:2] == [(0.0, "a starts"), (10.0, "a ends")]
    assert len(world.leading()) == 1


def test_a_leader_whose_lock_is_gone_ends_its_job_before_anybody_can_have_waited_for_the_lease() -> None:
    world = World()
    world.let_pass(1.0)
    world.locks.forget()

    world.let_pass(100.0)

    ends = next(at for at, what in world.story if what == "a ends")
    assert ends <= LEASE_S
    assert len(world.leading()) == 1


def test_a_job_that_does_not_start_is_left_to_another() -> None:
    world = World()
    world.refuses.add("a")

    world.let_pass(LEASE_S)

    assert world.leading() == ["b"]
