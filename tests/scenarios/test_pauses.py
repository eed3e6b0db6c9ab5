"""Why a partition is not fetched, and that the client is told exactly that."""

from __future__ import annotations

from scenarios.worlds import IN, OTHER, Obedient, calls, handled, letters_from, make_world, produce, steady

from streamworker.config import FlowConfig


def test_a_partition_goes_on_only_when_its_last_reason_is_gone() -> None:
    """Edge case 30. Its buffers are full and its dead letters refused; the first to pass is not enough."""
    world = make_world(2, flow=FlowConfig(max_inflight=40, pause_after_s=0.1))
    produce(world, b"poison", *[b"fine"] * 200)
    world.broker.produce_error = lambda _topic: "_MSG_TIMED_OUT"
    member = world.start(Obedient, duration_s=steady(0.01))
    world.run(lambda: {reason for _, reason in member.story.pauses} >= {"stopped", "backpressure"}, timeout_s=20)
    disagreements = []

    def compare() -> bool:
        reasons = member.worker.ledger.reasons(IN)
        if bool(reasons) != (IN in member.source.paused):
            disagreements.append(dict(reasons))
        return world.caught_up(IN)

    world.time.call_in(10, lambda: setattr(world.broker, "produce_error", lambda _topic: None))
    world.run(compare)

    assert disagreements == []
    assert handled(world) == list(range(1, 201))


def test_a_pause_that_outlived_a_rebalance_in_the_client_is_taken_back() -> None:
    """Edge case 31. The client remembers its flag across revoke and assign; each assignment says anew what holds."""
    world = make_world()
    produce(world, b"poison", b"fine")
    world.broker.produce_error = lambda _topic: "_MSG_TIMED_OUT"
    member = world.start(Obedient)
    world.run(lambda: IN in member.source.paused)

    world.broker.produce_error = lambda _topic: None
    world.broker.expel(member.source)
    world.run_to_end("in")

    assert IN not in member.source.paused
    assert letters_from(world)[-1] == b"poison"


def test_records_delivered_before_a_pause_are_kept_and_none_is_handled_twice() -> None:
    """Edge case 33. The client goes on after the last record it delivered, so none may be dropped."""
    world = make_world(2, flow=FlowConfig(max_inflight=50, pause_after_s=0.0))
    for partition in (0, 1):
        produce(world, *[b"fine"] * 300, partition=partition)

    member = world.start(Obedient, duration_s=steady(0.01))
    world.run_to_end("in")

    assert member.source.pauses > 0
    assert calls(world, IN) == calls(world, OTHER) == list(range(300))


def test_the_group_is_served_while_everything_is_paused() -> None:
    """Edge case 34. A second member gets its share from a worker whose partitions all stand still."""
    world = make_world(2)
    for partition in (0, 1):
        produce(world, b"poison", b"fine", partition=partition)
    world.broker.produce_error = lambda _topic: "_MSG_TIMED_OUT"
    first = world.start(Obedient)
    world.run(lambda: first.source.paused == {IN, OTHER})

    second = world.start(Obedient)
    world.run(lambda: len(second.worker.partitions) == 1, timeout_s=20)

    assert len(first.worker.partitions) == 1


def test_steady_overload_pauses_at_most_once_a_second() -> None:
    """Edge case 35. Each pause throws the prefetch away; here the need for one would come up every few milliseconds."""
    world = make_world(2, flow=FlowConfig(max_inflight=20, pause_after_s=0.0))
    for partition in (0, 1):
        produce(world, *[b"fine"] * 10_000, partition=partition)

    member = world.start(Obedient, duration_s=steady(0.01))
    world.run_for(60)

    assert 0 < len(handled(world)) < 10_000
    assert 0 < member.source.pauses <= 60 * 2
