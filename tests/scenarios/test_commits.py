"""What is committed, when, and what an answer means."""

from __future__ import annotations

from itertools import pairwise

import pytest
from scenarios.oracle import violations
from scenarios.worlds import IN, OTHER, Obedient, calls, commits, handled, make_world, produce, steady

from streamworker import Ordering, Retry
from streamworker.config import CommitConfig
from streamworker.offsets import codec
from streamworker.offsets.progress import Progress

OURS = codec.encode(1, Progress(0)).text


@pytest.mark.parametrize("seconds", [0.005, 0.015, 0.15, 0.6, 1.5])
@pytest.mark.parametrize("eager", [False, True], ids=["before the effect", "after the effect"])
def test_a_crash_at_any_moment_loses_nothing_and_repeats_only_what_was_not_committed(
    seconds: float, *, eager: bool
) -> None:
    """Edge case 1. The second worker begins at the last commit, wherever the first one died."""
    world = make_world()
    produce(world, *[b"fine"] * 100)
    first = world.start(Obedient, duration_s=steady(0.01), eager=lambda: eager)
    world.run_for(seconds)
    committed = world.broker.committed(IN) or 0

    world.kill(first)
    world.start(Obedient)
    world.run_to_end("in")

    assert not list(violations(world, "in", "dlq"))
    repeated = [offset for offset in set(calls(world)) if calls(world).count(offset) > 1]
    assert all(offset >= committed for offset in repeated)


def test_the_commit_stays_at_the_lowest_record_that_is_not_done() -> None:
    """Edge case 2. Record 0 takes ten seconds, its hundred successors none: nothing is committed before it."""
    world = make_world()
    produce(world, *[b"fine"] * 101)

    class Unordered(Obedient):
        ordering = Ordering.UNORDERED

    world.start(Unordered, duration_s=lambda slice_: 10.0 if slice_.messages[0].offset() == 0 else 0.001)
    world.run_for(5)
    before = commits(world)
    world.run_to_end("in")

    assert before == []
    assert len(handled(world)) == 101


def test_every_commit_names_its_offset_and_carries_our_metadata() -> None:
    """Edge case 3. There is no commit of whatever the client's position happens to be."""
    world = make_world(2)
    produce(world, *[b"fine"] * 50)
    produce(world, *[b"fine"] * 50, partition=1)

    member = world.start(Obedient)
    world.run_to_end("in")
    world.stop(member)

    assert world.broker.commits
    assert all(codec.decode(entry.mark.metadata) is not None for entry in world.broker.commits)


def test_gaps_in_the_offsets_do_not_hold_the_commit_back() -> None:
    """Edge case 5. Compacted records and transaction markers were never delivered, so nobody waits for them."""
    world = make_world()
    for gap in (3, 0, 50, 1):
        world.broker.produce("in", 0, b"fine", gap=gap)

    world.start(Obedient)
    world.run_to_end("in")

    assert handled(world) == [3, 4, 55, 57]
    assert commits(world)[-1] == 58


def test_a_log_that_begins_after_the_committed_offset_is_not_waited_for() -> None:
    """Edge case 10. What lay between the committed offset and the first record delivered is no part of the books."""
    world = make_world()
    world.broker.set_committed(IN, 5, OURS)
    world.broker.produce("in", 0, b"fine", gap=40)

    world.start(Obedient)
    world.run_to_end("in")

    assert handled(world) == [40]
    assert commits(world)[-1] == 41


def test_a_dead_letter_at_the_very_end_is_committed_past() -> None:
    """Edge case 12. Nothing comes after it that could push the commit."""
    world = make_world()
    produce(world, b"fine", b"poison")

    world.start(Obedient)
    world.run_to_end("in", timeout_s=5)

    assert world.broker.committed(IN) == 2


def test_a_commit_that_raises_may_have_gone_through_for_some_partitions() -> None:
    """Edge case 13. The broker took one partition and refused the other; both go on from what it has."""
    world = make_world(3)
    for partition in range(3):
        produce(world, *[b"fine"] * 20, partition=partition)
    world.broker.commit_error = lambda key: "UNKNOWN_TOPIC_OR_PART" if key == OTHER else None
    world.broker.commit_raises = lambda: "UNKNOWN_TOPIC_OR_PART"
    first = world.start(Obedient, duration_s=steady(0.01))
    world.run_for(0.1)

    exit_code = world.stop(first)
    taken = dict.fromkeys(entry.partition for entry in world.broker.commits)
    world.broker.commit_error = lambda _key: None
    world.broker.commit_raises = lambda: None
    world.start(Obedient)
    world.run_to_end("in")

    assert exit_code == 0
    assert OTHER not in taken
    assert len(taken) == 2
    assert not list(violations(world, "in", "dlq"))


@pytest.mark.parametrize("error", ["REQUEST_TIMED_OUT", "NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS"])
def test_a_commit_that_failed_is_sent_again_with_the_same_or_a_higher_offset(error: str) -> None:
    """Edge cases 14, 17. Refused offsets do not count as committed."""
    world = make_world()
    produce(world, *[b"fine"] * 10)
    world.broker.commit_error = lambda _key: error
    member = world.start(Obedient)
    world.run_for(3)
    refused = commits(world)

    world.broker.commit_error = lambda _key: None
    world.run_to_end("in", timeout_s=2)

    assert refused == []
    assert (1, error) in member.story.commit_answers
    assert commits(world) == [10]


def test_an_expelled_member_drops_its_state_instead_of_insisting() -> None:
    """Edge case 14. After UNKNOWN_MEMBER_ID the ownership is over; the next one begins at the group's offset."""
    world = make_world()
    produce(world, *[b"fine"] * 10)
    member = world.start(Obedient, duration_s=steady(0.5))
    world.run_for(1.8)
    committed = world.broker.committed(IN) or 0

    world.broker.expel(member.source)
    world.run_to_end("in")

    assert [kind for kind, _ in member.story.rebalances] == ["assigned", "lost", "assigned"]
    assert all(calls(world).count(offset) == 1 for offset in range(committed))
    assert not list(violations(world, "in", "dlq"))


def test_a_worker_without_progress_commits_nothing_and_leaves_in_peace() -> None:
    """Edge case 15."""
    world = make_world()
    member = world.start(Obedient)
    world.run_for(10)

    exit_code = world.stop(member)

    assert exit_code == 0
    assert world.broker.commits == []


def test_commits_of_an_ownership_never_go_backwards() -> None:
    """Edge case 15a. Retries, late answers and refusals in between."""
    world = make_world(commit=CommitConfig(interval_s=0.05, timeout_s=0.1))
    refusals = iter([None, "REQUEST_TIMED_OUT", None, None, "NOT_COORDINATOR"] * 1000)
    world.broker.commit_error = lambda _key: next(refusals)
    world.broker.commit_latency_s = 0.15
    produce(world, *[b"fine", b"flaky:2", b"poison"] * 60)

    world.start(Obedient)
    world.run_to_end("in")

    assert all(earlier <= later for earlier, later in pairwise(commits(world)))


def test_progress_is_committed_though_no_further_record_comes() -> None:
    """Edge case 16."""
    world = make_world()
    produce(world, b"fine", b"fine", b"fine")

    world.start(Obedient)
    world.run_for(1.5)

    assert commits(world)[-1] == 3


@pytest.mark.parametrize("waited_s", [0.0, 1.5], ids=["not sent yet", "sent and unanswered"])
def test_a_revocation_without_coordinator_forgets_nothing_of_the_partitions_that_stay(waited_s: float) -> None:
    """Edge case 16. Only the revoked one is sent off without an answer; the other's progress is still to be sent."""
    world = make_world(2)
    for partition in (0, 1):
        produce(world, b"fine", partition=partition)
    member = world.start(Obedient)
    world.run_to_end("in")
    produce(world, b"fine", b"fine", b"fine")
    world.broker.coordinator_up = False
    produce(world, b"fine", partition=1)
    world.run(lambda: len(world.effects) == 6)
    world.run_for(waited_s)

    world.start(Obedient)
    world.run(lambda: len(member.worker.partitions) == 1)
    world.broker.coordinator_up = True
    world.run_to_end("in", timeout_s=10)

    assert world.broker.committed(IN) == 4


def test_a_late_answer_is_not_waited_for_and_does_no_harm() -> None:
    """Edge case 17. Answers take longer than the timeout: counted, and commits go on."""
    world = make_world(commit=CommitConfig(interval_s=1, timeout_s=2))
    world.broker.commit_latency_s = 5
    produce(world, *[b"fine"] * 200)

    member = world.start(Obedient, duration_s=steady(0.1))
    world.run_for(30)

    assert member.story.unanswered_commits > 0
    assert len(commits(world)) > 3
    assert not list(violations(world, "in", "dlq"))


def test_a_commit_without_an_answer_is_sent_again() -> None:
    """Edge case 17. The request was lost with the coordinator; its successor carries the offset."""
    world = make_world()
    produce(world, b"fine")
    member = world.start(Obedient)
    world.run_to_end("in")
    world.broker.coordinator_up = False
    produce(world, *[b"fine"] * 10)
    world.run_for(4)
    unanswered = member.story.unanswered_commits

    world.broker.coordinator_up = True
    world.run_to_end("in", timeout_s=5)

    assert unanswered > 0
    assert commits(world) == [1, 11]


def test_an_answer_of_an_ended_ownership_says_nothing_of_the_present_one() -> None:
    """Edge case 20. It may have overwritten a newer offset, so the present one is committed once more."""
    world = make_world(commit=CommitConfig(interval_s=0.5))
    world.broker.commit_latency_s = 1.5
    produce(world, *[b"fine"] * 5)
    member = world.start(Obedient)
    world.run(lambda: commits(world) == [5])

    world.broker.expel(member.source)
    world.run_for(0.5)
    world.broker.commit_latency_s = 0.002
    world.run_for(5)

    assert [entry.mark.offset for entry in world.broker.commits].count(5) >= 2
    assert calls(world) == [0, 1, 2, 3, 4]


def test_no_more_than_the_bound_is_ever_repeatable_even_while_the_head_waits() -> None:
    """Edge case 2. Record 0 waits half a minute for its retry; the others stop at the bound and then go on."""
    world = make_world(commit=CommitConfig(interval_s=0.5, max_uncommitted=8))

    class ByKey(Obedient):
        ordering = Ordering.KEY
        retry = Retry(attempts=4, wait=lambda _state: 30.0)

    produce(world, b"flaky:1", key=b"slow")
    for number in range(60):
        produce(world, b"fine", key=f"key {number}".encode())

    world.start(ByKey)
    world.run_to_end("in", timeout_s=120)

    for effect in world.effects:
        known = [entry.mark.offset for entry in world.broker.commits if entry.at_s <= effect.at_s]
        assert effect.offset < max(known, default=0) + 8
    assert sorted(handled(world)) == list(range(61))


def test_a_commit_goes_out_early_when_much_is_done() -> None:
    """Edge case 16. A quarter of the bound does not wait for the interval."""
    world = make_world(commit=CommitConfig(interval_s=60, max_uncommitted=40))
    produce(world, *[b"fine"] * 100)

    world.start(Obedient)
    world.run(lambda: len(handled(world)) == 100, timeout_s=5)

    assert len(commits(world)) >= 2
