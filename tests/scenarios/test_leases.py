"""A worker that cannot prove its membership starts nothing: others may have its partitions already."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from scenarios.worlds import IN, Obedient, ObedientBatches, calls, handled, letters_from, make_world, produce, steady

if TYPE_CHECKING:
    from streamworker.testing.virtual_world import Member, VirtualWorld

LEASE_S = 10.0  # of a session of 45 s
NOTICED_S = 0.2  # by the loop, which looks once a step


def cut_off(world: VirtualWorld) -> float:
    """Take the coordinator away, not the leaders; returns when."""
    world.broker.coordinator_up = False
    return world.time.monotonic_s()


def keep_producing(world: VirtualWorld, seconds: int, *, value: bytes = b"fine", each_s: float = 0.1) -> None:
    for number in range(int(seconds / each_s)):
        world.time.call_in(number * each_s, partial(produce, world, value))


def has_expired(member: Member) -> bool:
    return "expired" in dict(member.story.leases)


def test_no_call_starts_and_nothing_is_fetched_while_membership_is_not_proven() -> None:
    """F-20."""
    world = make_world()
    keep_producing(world, 40)
    member = world.start(Obedient, duration_s=steady(0.001), eager=lambda: True)
    world.run_for(5)

    down_s = cut_off(world)
    world.run_for(20)
    called = len(calls(world))

    assert member.source.paused == {IN}
    assert {reason.value for reason in member.worker.ledger.reasons(IN)} == {"lease"}
    last_s = max(effect.at_s for effect in world.effects)
    assert down_s + LEASE_S - 1 < last_s < down_s + LEASE_S + 0.005
    assert [what for what, _ in member.story.leases] == ["expired"]

    world.broker.coordinator_up = True
    back_s = world.time.monotonic_s()
    world.run(lambda: len(calls(world)) > called, timeout_s=1)
    world.run_to_end("in")

    assert min(effect.at_s for effect in world.effects if effect.at_s > last_s) < back_s + NOTICED_S
    assert calls(world) == list(range(400))
    (_, silent_s), (what, seconds) = member.story.leases
    assert LEASE_S <= silent_s < LEASE_S + NOTICED_S
    assert what == "renewed"
    assert 20 - LEASE_S - NOTICED_S <= seconds <= 20 - LEASE_S + NOTICED_S


def test_a_call_in_progress_ends_and_is_settled_though_the_lease_has_run_out() -> None:
    world = make_world()
    produce(world, b"fine", b"fine")
    member = world.start(Obedient, duration_s=steady(LEASE_S + 5), eager=lambda: True)
    world.run(lambda: len(calls(world)) == 1)

    cut_off(world)
    world.run(lambda: member.worker.partitions[IN].tracker.committable == 1, timeout_s=20)
    world.run_for(10)

    assert has_expired(member)
    assert calls(world) == [0]


def test_an_ownership_that_ends_meanwhile_is_dropped_with_what_it_held() -> None:
    world = make_world()
    produce(world, *[b"fine"] * 3)
    first = world.start(Obedient, duration_s=steady(LEASE_S + 20), eager=lambda: True)
    world.run(lambda: len(calls(world)) == 1)
    cut_off(world)
    world.run(lambda: has_expired(first))

    world.broker.expel(first.source)
    world.broker.coordinator_up = True
    world.run_to_end("in", timeout_s=200)

    assert first.story.late_records == 1
    assert [what for what, _ in first.story.leases] == ["expired", "renewed"]
    assert handled(world) == [0, 0, 1, 2]


def test_a_slice_that_is_refused_spends_no_attempt_and_forgets_none() -> None:
    """Its second call waits for a thread until the lease has run out; then it has the two that it had left."""
    world = make_world()
    produce(world, b"broken", b"fine")
    slow = iter([0.001, LEASE_S + 5])
    member = world.start(Obedient, duration_s=lambda _slice: next(slow, 0.001))
    world.run(lambda: bool(member.story.failures))
    cut_off(world)
    world.run_for(LEASE_S + 10)

    assert [effect.attempt for effect in world.effects if effect.offset == 0] == [1]
    world.broker.coordinator_up = True
    world.run_to_end("in")

    assert [effect.attempt for effect in world.effects if effect.offset == 0] == [1, 2, 3, 4]
    assert letters_from(world) == [b"broken"]
    assert handled(world) == [1]


def test_a_batch_that_is_refused_goes_again_as_a_whole() -> None:
    world = make_world()
    produce(world, *[b"fine"] * 5)
    slow = iter([LEASE_S + 5])
    member = world.start(ObedientBatches, duration_s=lambda _slice: next(slow, 0.001))
    world.run(lambda: bool(member.worker.running))
    cut_off(world)
    world.run_for(LEASE_S + 10)

    assert calls(world) == []
    world.broker.coordinator_up = True
    world.run_to_end("in")

    assert [(effect.offset, effect.attempt) for effect in world.effects] == [(number, 1) for number in range(5)]


def test_commits_prove_membership_while_statistics_are_silent() -> None:
    world = make_world()
    keep_producing(world, 60)
    member = world.start(Obedient, duration_s=steady(0.001))
    world.run_for(1)
    member.source.membership = lambda: None  # type: ignore[method-assign]

    world.run_to_end("in", timeout_s=70)

    assert member.story.leases == []


def test_without_statistics_and_commits_the_lease_ends() -> None:
    """Of an idle worker: when records come again it waits for the first proof."""
    world = make_world()
    member = world.start(Obedient, duration_s=steady(0.001))
    member.source.membership = lambda: None  # type: ignore[method-assign]
    world.run_for(LEASE_S + 1)
    produce(world, b"fine")
    world.run_for(5)

    assert calls(world) == []
    assert has_expired(member)
    del member.source.membership
    world.run_to_end("in", timeout_s=2)

    assert handled(world) == [0]


def test_a_commit_that_is_refused_proves_nothing() -> None:
    world = make_world()
    keep_producing(world, 30)
    member = world.start(Obedient, duration_s=steady(0.001))
    member.source.membership = lambda: None  # type: ignore[method-assign]
    world.broker.commit_error = lambda _key: "REBALANCE_IN_PROGRESS"

    world.run(lambda: has_expired(member), timeout_s=LEASE_S + 1)


def test_a_worker_that_stood_still_does_not_take_an_old_answer_for_a_new_one() -> None:
    """F-05. What had been answered before the stop is read after it, and the client says that it was heard just now."""
    world = make_world()
    produce(world, *[b"fine"] * 5)
    member = world.start(Obedient)
    world.run_to_end("in")
    produce(world, *[b"fine"] * 5)

    world.time.wait(LEASE_S + 5, lambda: False)
    woken_s = world.time.monotonic_s()
    world.run_to_end("in")

    assert [what for what, _ in member.story.leases] == ["expired", "renewed"]
    assert min(effect.at_s for effect in world.effects if effect.offset == 5) > woken_s + 0.2
    assert calls(world) == list(range(10))


def test_a_drain_without_a_coordinator_does_not_wait_for_what_may_not_start() -> None:
    world = make_world()
    produce(world, *[b"fine"] * 50, key=b"k")
    member = world.start(Obedient, duration_s=steady(0.5), eager=lambda: True)
    world.run(lambda: len(calls(world)) == 2)
    cut_off(world)
    world.run(lambda: has_expired(member))
    called = len(calls(world))

    began_s = world.time.monotonic_s()
    code = world.stop(member)

    assert code == 0
    assert world.time.monotonic_s() - began_s < 5
    assert len(calls(world)) == called


def test_a_worker_that_has_just_joined_needs_no_statistics_yet() -> None:
    """No session can be older than the moment at which it subscribed."""
    world = make_world()
    produce(world, b"fine")
    member = world.start(Obedient, duration_s=steady(0.001))
    member.source.membership = lambda: None  # type: ignore[method-assign]

    world.run_to_end("in", timeout_s=2)

    assert member.story.leases == []


def test_slices_of_quick_records_that_are_in_progress_are_told_when_the_lease_runs_out() -> None:
    world = make_world()
    produce(world, *[b"fine"] * 50)
    member = world.start(Obedient, duration_s=lambda one: LEASE_S + 5 if one.messages[0].value() == b"slow" else 0.0)
    world.run_to_end("in")
    produce(world, *[b"slow"] * 5)
    world.run(lambda: bool(member.worker.running))
    (slice_,) = member.worker.running
    before = slice_.watched

    cut_off(world)
    world.run(lambda: has_expired(member))

    assert (before, slice_.watched) == (False, True)


def test_a_worker_that_owns_nothing_has_no_lease_to_lose() -> None:
    world = make_world()
    world.start(Obedient)
    second = world.start(Obedient)
    second.source.membership = lambda: None  # type: ignore[method-assign]

    world.run_for(2 * LEASE_S)

    assert len(second.worker.partitions) == 0
    assert second.story.leases == []
