"""Leases are extended while they are held, and their holders know when they are not theirs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.errors import ClaimsUnavailable
from streamworker.idempotency.watchdog import LeaseExtender
from streamworker.testing.memory_claims import MemoryClaims, VirtualRounds
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.idempotency.claims import Claim
    from streamworker.idempotency.watchdog import Held

LEASE_S = 30.0


class World:
    """Claims in memory, who extends them, and what was asked when."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.claims = MemoryClaims(self.time, lease_s=LEASE_S)
        self.asked: list[tuple[float, int]] = []
        self.lost: list[str] = []
        self.during: Callable[[], object] = lambda: None
        self.extender: LeaseExtender[Claim] = LeaseExtender(
            self._extend,
            name="claims",
            lease_s=LEASE_S,
            clock=self.time,
            rounds=lambda step, _: VirtualRounds(self.time, step),
        )

    def hold(self, *ids: str) -> Sequence[Held[Claim]]:
        sent_s = self.time.monotonic_s()
        claims = [self.claims.make(one) for one in ids]
        self.claims.claim(claims)
        return self.extender.hold(claims, since_s=sent_s, on_lost=lambda claim: self.lost.append(claim.id))

    def let_pass(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)

    def at(self) -> list[float]:
        return [at_s for at_s, _ in self.asked]

    def _extend(self, claims: Sequence[Claim]) -> Sequence[bool]:
        self.asked.append((self.time.monotonic_s() - 1000.0, len(claims)))
        self.during()
        return self.claims.extend(claims)


def test_a_lease_in_hand_is_extended_each_third_of_it_and_lasts() -> None:
    world = World()
    [held] = world.hold("a")

    world.let_pass(100.0)

    assert world.asked == [(10.0 * number, 1) for number in range(1, 11)]
    assert not held.lost
    assert world.lost == []


def test_what_is_in_hand_for_less_is_not_asked_about_and_nothing_goes_on_afterwards() -> None:
    world = World()
    held = world.hold("a")
    world.let_pass(5.0)

    world.extender.drop(held)
    world.extender.drop(held)
    world.let_pass(1000.0)

    assert world.asked == []


def test_leases_that_began_one_after_the_other_go_in_one_request() -> None:
    world = World()
    world.hold("a")
    world.let_pass(2.0)
    world.hold("b", "c")

    world.let_pass(29.0)

    assert world.asked == [(10.0, 3), (20.0, 3), (30.0, 3)]


def test_one_that_is_somebody_elses_is_lost_at_once_and_the_others_go_on() -> None:
    world = World()
    first, second = world.hold("a", "b")
    world.claims.forget("a")

    world.let_pass(11.0)

    assert (first.lost, second.lost) == (True, False)
    assert (first.left_s, second.left_s) == (0.0, 29.0)
    assert world.lost == ["a"]


def test_while_nobody_answers_it_is_tried_more_often_and_lost_when_its_time_is_over() -> None:
    world = World()
    [held] = world.hold("a")
    world.claims.away = True

    world.let_pass(29.9)
    before = held.lost
    world.let_pass(0.2)

    assert world.at() == [10.0, 12.5, 15.0, 17.5, 20.0, 22.5, 25.0, 27.5]
    assert (before, held.lost) == (False, True)
    assert world.lost == ["a"]


def test_an_outage_that_is_shorter_than_the_lease_costs_nothing() -> None:
    world = World()
    [held] = world.hold("a")
    world.claims.away = True
    world.let_pass(24.0)
    world.claims.away = False

    world.let_pass(60.0)

    assert not held.lost
    assert world.lost == []


def test_a_holder_that_was_stopped_knows_before_anybody_tells_it_and_for_good() -> None:
    """The clock is read when the holder asks; the answer that is on its way comes too late."""
    time = VirtualTime()
    extender: LeaseExtender[str] = LeaseExtender(
        lambda leases: [True] * len(leases),
        name="claims",
        lease_s=LEASE_S,
        clock=time,
        rounds=lambda _, __: VirtualRounds(time, lambda: None),
    )
    [held] = extender.hold(["a"], since_s=time.monotonic_s())

    time.wait(LEASE_S, lambda: False)
    found = held.lost
    held.renew(time.monotonic_s())

    assert found
    assert held.lost
    assert held.left_s == 0.0


def test_a_lease_counts_from_before_it_was_asked_for() -> None:
    """The answer came 20 s later; by then a third of the lease was left at the server."""
    world = World()
    claim = world.claims.make("a")
    sent_s = world.time.monotonic_s()
    world.claims.claim([claim])
    world.let_pass(20.0)

    [held] = world.extender.hold([claim], since_s=sent_s)

    assert held.left_s == 10.0


def test_what_is_completed_while_it_is_extended_is_not_reported_as_lost() -> None:
    world = World()
    [held] = world.hold("a")

    def complete() -> None:
        world.extender.drop([held])
        world.claims.complete([(held.lease, b"")])

    world.during = complete
    world.let_pass(60.0)

    assert world.lost == []
    assert world.at() == [10.0]


def test_who_fails_when_told_of_a_loss_keeps_nothing_from_the_others() -> None:
    world = World()
    [good] = world.hold("good")
    bad = world.claims.make("bad")
    world.claims.claim([bad])

    def fail(_: Claim) -> None:
        raise ClaimsUnavailable("while being told")

    world.extender.hold([bad], since_s=world.time.monotonic_s(), on_lost=fail)
    world.claims.forget("bad")

    world.let_pass(100.0)

    assert not good.lost


def test_nothing_is_extended_after_the_end() -> None:
    world = World()
    [held] = world.hold("a")

    world.extender.close()
    world.let_pass(LEASE_S)

    assert world.asked == []
    assert held.lost
