"""What the simulated world is true to: a world that is kinder than Kafka would prove nothing."""

from __future__ import annotations

import pytest
from scenarios.worlds import IN, OTHER, Obedient, calls, commits, handled, make_world, produce, steady

from streamworker.config import CommitConfig, LifecycleConfig
from streamworker.interfaces import OffsetMark


def test_a_process_that_was_killed_calls_nothing_more() -> None:
    world = make_world()
    produce(world, b"fine")
    member = world.start(Obedient, duration_s=steady(5.0))
    world.run(lambda: bool(member.worker.running))

    world.kill(member)
    world.run_for(20)

    assert calls(world) == []


def test_a_call_that_outlives_a_drain_ends_with_the_process() -> None:
    world = make_world(lifecycle=LifecycleConfig(drain_timeout_s=20.0))
    produce(world, b"fine")
    member = world.start(Obedient, duration_s=steady(60.0))
    world.run(lambda: bool(member.worker.running))

    code = world.stop(member)
    world.run_for(100)

    assert code == 3
    assert calls(world) == []


def test_a_member_may_be_killed_while_it_waits() -> None:
    world = make_world(lifecycle=LifecycleConfig(drain_timeout_s=20.0))
    produce(world, b"fine", b"fine")
    member = world.start(Obedient, duration_s=steady(5.0))
    world.run(lambda: bool(member.worker.running))
    killed_s = world.time.monotonic_s() + 1.0
    world.time.call_at(killed_s, lambda: world.kill(member))

    code = world.stop(member)

    assert (code, world.time.monotonic_s(), world.members) == (-9, killed_s, [])
    assert commits(world) == []


def test_a_commit_from_before_a_member_joined_anew_is_refused() -> None:
    world = make_world()
    member = world.start(Obedient)
    world.run_for(1)
    world.broker.expel(member.source)

    member.source.commit({IN: OffsetMark(7)})
    world.run_for(1)

    assert [kind for kind, _ in member.story.rebalances] == ["assigned", "lost", "assigned"]
    assert commits(world) == []


def test_a_synchronous_commit_arrives_after_those_that_were_sent_before() -> None:
    world = make_world()
    member = world.start(Obedient)
    world.run_for(1)

    member.source.commit({IN: OffsetMark(3)})
    member.source.commit_now({IN: OffsetMark(5)})

    assert commits(world) == [3, 5]


def test_a_commit_whose_answer_is_lost_is_taken_all_the_same() -> None:
    world = make_world(commit=CommitConfig(interval_s=0.5, timeout_s=2.0))
    produce(world, b"fine")
    member = world.start(Obedient)
    world.run_to_end("in")
    member.story.commit_answers.clear()
    world.broker.commit_unanswered = lambda: True
    produce(world, b"fine")

    world.run_for(5)

    assert commits(world) == [1, 2]
    assert (member.story.commit_answers, member.story.unanswered_commits > 0) == ([], True)


def test_a_commit_that_is_sent_again_comes_late_and_never_after_a_rebalance() -> None:
    world = make_world(2)
    world.broker.commit_resent_after_s = lambda: 3.0
    member = world.start(Obedient)
    world.run_for(1)

    member.source.commit({IN: OffsetMark(1), OTHER: OffsetMark(1)})
    world.run_for(1)
    world.start(Obedient)
    world.run_for(4)

    sent = [(entry.partition, entry.again) for entry in world.broker.commits if not entry.mark.metadata]
    assert sent == [(IN, False), (OTHER, False), (IN, True)]


def test_a_member_that_was_expelled_and_closes_is_no_member_any_more() -> None:
    world = make_world(2)
    first, second = world.start(Obedient), world.start(Obedient)
    world.run_for(1)
    produce(world, b"fine", partition=0)
    produce(world, b"fine", partition=1)

    world.broker.expel(first.source)
    first.source.close()
    world.members.remove(first)
    world.run_to_end("in")

    assert {effect.member for effect in world.effects} == {second.name}
    assert (handled(world), handled(world, OTHER)) == ([0], [0])


def test_nothing_is_fetched_from_a_partition_without_a_leader() -> None:
    world = make_world()
    world.broker.leaderless = {IN}
    produce(world, b"fine")
    world.start(Obedient)

    world.run_for(10)
    before = calls(world)
    world.broker.leaderless = set()
    world.run_to_end("in")

    assert (before, calls(world)) == ([], [0])


def test_workers_that_turn_and_never_wait_are_an_error() -> None:
    world = make_world()
    member = world.start(Obedient)
    member.worker.step = lambda: None  # type: ignore[method-assign]

    with pytest.raises(AssertionError, match="no time passed"):
        world.run(lambda: False)
