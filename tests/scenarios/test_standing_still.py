"""A partition that stands still: nothing goes past it, nothing hides its reason, and nobody else waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scenarios.worlds import IN, OTHER, Obedient, calls, handled, make_world, produce, steady

from streamworker import DeadLetter, Ordering, Retry, Rule
from streamworker.config import DeadLetterConfig, FlowConfig
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.interfaces import Fault, FaultKind
from streamworker.worker import Bounds

if TYPE_CHECKING:
    from streamworker.testing.virtual_world import VirtualWorld


class Impatient(Obedient):
    """Blocks where a record's only attempt fails."""

    ordering = Ordering.PARTITION
    retry = Retry(attempts=1)
    dead_letter = None


def refuse_letters(world: VirtualWorld, *, refused: bool) -> None:
    world.broker.produce_error = lambda _topic: "TOPIC_AUTHORIZATION_FAILED" if refused else None


def test_offsets_that_went_back_close_the_partition_to_all_that_follows() -> None:
    """Edge cases 10, 11: one fetch may bring several runs of a partition, the later of which look in order."""
    world = make_world()
    produce(world, *[b"fine"] * 6)
    member = world.start(Obedient)
    world.run_for(1)
    produce(world, *[b"new"] * 10)
    records = world.broker.records("in")

    member.worker._intake.admit(IN, records[4:10])
    member.worker._intake.admit(IN, records[10:])
    world.run_for(5)

    assert world.broker.committed(IN) == 6
    assert [reason for _, reason, _ in member.story.stops] == ["offset_went_back"]


def test_a_bound_below_one_record_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_records: expected at least 1, got 0"):
        Bounds(max_records=0)


def test_a_bounded_run_never_goes_past_what_it_left_out() -> None:
    """Records beyond the bound were dropped; places that come free later do not reach behind them."""
    world = make_world(2, flow=FlowConfig(max_inflight=40))

    class Waiting(Obedient):
        ordering = Ordering.PARTITION
        retry = Retry(attempts=100, base_s=3, cap_s=3)

    produce(world, b"flaky:4", *[b"fine"] * 200)
    member = world.start(Waiting, bounds=Bounds(max_records=30))
    for _ in range(10):
        member.worker.step()
    produce(world, *[b"fine"] * 100, partition=1)
    world.run(lambda: member.worker.stopping is not None)
    world.stop(member)

    for partition in (IN, OTHER):
        committed = world.broker.committed(partition) or 0
        assert set(range(committed)) <= set(handled(world, partition))


def test_what_waits_for_a_person_is_not_hidden_by_what_mends_itself() -> None:
    """Edge case 56: the log is gone while the dead-letter topic refuses; the topic's recovery mends only itself."""
    world = make_world()
    refuse_letters(world, refused=True)
    produce(world, b"poison", *[b"fine"] * 3)
    member = world.start(Obedient)
    world.run_for(2)

    member.source.report(Fault(FaultKind.OUT_OF_RANGE, IN, 4, "gone"))
    world.run_for(1)
    refuse_letters(world, refused=False)
    world.run_for(40)

    stop = member.worker.partitions[IN].stop
    assert stop is not None
    assert stop.reason == "offset_out_of_range"


def test_an_undecodable_record_that_a_rule_keeps_is_overtaken_by_nobody() -> None:
    """Edge case 54, where a rule for the decode error and `block` let the record stay."""

    class Picky:
        def decode(self, data: bytes, topic: str) -> bytes:
            if data == b"bad":
                raise ValueError("bad")
            return data

        def encode(self, value: bytes, topic: str) -> bytes:
            return value

    class Blocking(Obedient):
        value = Picky()
        ordering = Ordering.PARTITION
        dead_letter = DeadLetter("dlq", on_exhausted="block")
        rules = (Rule.retry(ValueError),)

    world = make_world()
    produce(world, *[b"fine"] * 20, b"bad", *[b"fine"] * 40)
    world.start(Blocking)

    world.run_for(5)

    assert calls(world) == list(range(20))
    assert world.broker.committed(IN) == 20


def test_a_partition_that_fills_the_buffers_with_bytes_gives_them_up() -> None:
    """Edge case 90: few records, all of the bytes."""
    world = make_world(2, flow=FlowConfig(max_buffer_bytes=1_000_000))
    produce(world, b"broken", *[b"x" * 50_000] * 40)
    world.start(Impatient)
    world.run_for(3)

    produce(world, *[b"fine"] * 2000, partition=1)

    world.run(lambda: len(handled(world, OTHER)) == 2000, timeout_s=20)


def test_letters_without_a_budget_are_told_at_the_end() -> None:
    """A drain that leaves dead letters unwritten is not a clean one."""
    world = make_world(dead_letters=DeadLetterConfig(budget=2, seconds_per_token=1000))
    produce(world, *[b"poison"] * 6)
    member = world.start(Obedient)
    world.run_for(3)

    assert world.stop(member) == ExitCode.PARTIAL


def test_a_client_that_dies_while_draining_is_not_made_anew() -> None:
    """Edge case 97: the group is being left; what runs is finished, and the exit code tells."""
    world = make_world()
    produce(world, *[b"fine"] * 3)
    member = world.start(Obedient, duration_s=steady(2))
    world.run_for(0.5)
    member.source.report(Fault(FaultKind.FATAL, None, None, "dead"))

    code = world.stop(member)

    assert code == ExitCode.FATAL
    assert world.broker.committed(IN) == len(handled(world))
