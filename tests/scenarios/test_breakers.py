"""A dependency that is away: nothing is called for nothing, nothing is dead-lettered, all is done afterwards."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.oracle import violations
from scenarios.services import Service
from scenarios.worlds import IN, OTHER, Obedient, calls, handled, headers_of, make_world, obey, produce

from streamworker import (
    BatchHandler,
    Breaker,
    DeadLetter,
    Handler,
    Json,
    Ordering,
    Retry,
    RetryableError,
    Rule,
    TopicPartition,
)
from streamworker.resilience.breaker import CircuitBreaker, Permit
from streamworker.resilience.gate import Gate
from streamworker.settlement import Settlement
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker import Record, Records
    from streamworker.testing.virtual_world import Member

STEADY = Breaker("db", jitter=0.0)


DEPENDENCY = Service()


@pytest.fixture(autouse=True)
def dependency() -> Service:
    DEPENDENCY.renew()
    return DEPENDENCY


class Storing(Handler[bytes]):
    """Needs the dependency for each record, and obeys the record."""

    topics: ClassVar[Sequence[str]] = ("in",)
    ordering = Ordering.KEY
    concurrency = 4
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=3, base_s=0.1, cap_s=1.0)
    breaker = STEADY

    def handle(self, record: Record[bytes]) -> None:
        DEPENDENCY.call()
        obey(record)


class Unsteady(Storing):
    """Fails at its first attempt, for reasons of its own."""

    def handle(self, record: Record[bytes]) -> None:
        DEPENDENCY.call()
        if record.attempt == 1:
            raise RetryableError("not yet")


class StoringBatches(BatchHandler[bytes]):
    """The same for batches."""

    topics = ("in",)
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=3, base_s=0.1, cap_s=1.0)
    breaker = STEADY

    def handle(self, records: Records[bytes]) -> None:
        DEPENDENCY.call()
        for record in records:
            obey(record)


class Other(Obedient):
    """Needs nothing."""

    topics = ("other",)


def reasons(world: VirtualWorld) -> list[str]:
    return [headers_of(world, number)["sw-reason"] for number in range(len(world.broker.records("dlq")))]


def states(member: Member) -> list[str]:
    return [after for _, _, after, _ in member.story.breaker_changes]


@pytest.mark.parametrize("handler", [Storing, StoringBatches])
@pytest.mark.parametrize("ordering", list(Ordering))
def test_an_outage_under_load_costs_no_attempt_and_no_dead_letter(
    handler: type[Storing | StoringBatches], ordering: Ordering
) -> None:
    """P15. Edge cases 77, 82."""
    ordered = type("Ordered", (handler,), {"ordering": ordering})
    world = make_world(2)
    member = world.start(ordered)
    for second in range(60):
        for partition in (0, 1):
            for number in range(10):
                produce(world, b"x", partition=partition, key=b"key %d" % number)
        DEPENDENCY.away = 10 <= second < 40
        world.run_for(1)
    world.run_to_end("in")

    assert ordering is Ordering.UNORDERED or not list(violations(world, "in", "dlq"))
    assert len(world.broker.records("dlq")) == 0
    assert len(handled(world)) + len(handled(world, OTHER)) == 60 * 20
    # Those in flight when it went away, then one for each trial: after 5, 10 and 20 s.
    assert DEPENDENCY.in_vain <= ordered.concurrency + 4
    assert {effect.attempt for effect in world.effects} == {1}
    assert states(member)[0] == "open"
    assert states(member)[-1] == "closed"


@pytest.mark.parametrize("ordering", list(Ordering))
def test_a_dependency_that_comes_and_goes_each_second_neither_storms_nor_dead_letters(ordering: Ordering) -> None:
    """F-63. P15. Away for the second half of each second, for two minutes."""
    world = make_world(2)
    member = world.start(type("Ordered", (Storing,), {"ordering": ordering}))
    opened_s: list[float] = []
    for half in range(240):
        DEPENDENCY.away = half % 2 == 1
        for partition in (0, 1):
            for number in range(5):
                produce(world, b"x", partition=partition, key=b"key %d" % number)
        before = states(member).count("open")
        world.run_for(0.5)
        opened_s += [world.time.monotonic_s()] * (states(member).count("open") - before)
    DEPENDENCY.away = False
    world.run_to_end("in")

    assert opened_s
    assert min(later - earlier for earlier, later in pairwise(opened_s)) >= STEADY.open_s - 0.5
    assert states(member)[-1] == "closed"
    assert ordering is Ordering.UNORDERED or not list(violations(world, "in", "dlq"))
    assert len(world.broker.records("dlq")) == 0
    assert sorted(handled(world)) == sorted(handled(world, OTHER)) == list(range(1200))


def test_an_outage_with_a_record_in_ten_seconds_dead_letters_nothing() -> None:
    """P15. Failures are too far apart for a share: what would be exhausted opens it."""
    world = make_world()
    member = world.start(Storing)
    DEPENDENCY.away = True
    for number in range(12):
        produce(world, b"x", key=b"key %d" % number)
        world.run_for(10)
    DEPENDENCY.away = False
    world.run_to_end("in")

    assert len(world.broker.records("dlq")) == 0
    assert sorted(handled(world)) == list(range(12))
    assert "open" in states(member)
    world.run(lambda: states(member)[-1] == "closed", timeout_s=70)


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.UNORDERED])
def test_a_record_that_fails_alone_is_dead_lettered_and_no_other(ordering: Ordering) -> None:
    """It looks like an outage, but the trials of the others succeed."""
    world = make_world()
    member = world.start(type("Ordered", (Storing,), {"ordering": ordering}))
    produce(world, b"broken", key=b"bad")
    for number in range(600):
        produce(world, b"x", key=b"key %d" % (number % 7))
        world.run_for(1)
    world.run_to_end("in")

    assert [letter.value() for letter in world.broker.records("dlq")] == [b"broken"]
    assert reasons(world) == ["fails_alone"]
    assert len(handled(world)) == 600
    assert states(member)[-1] == "closed"


def test_a_bad_record_does_not_open_the_breaker() -> None:
    """Edge case 80."""
    world = make_world()
    member = world.start(Storing)
    for number in range(100):
        produce(world, b"poison", b"x", key=b"key %d" % number)
    world.run_to_end("in")

    assert len(world.broker.records("dlq")) == 100
    assert not states(member)


def test_a_rule_goes_before_the_breaker() -> None:
    """Who says that connection errors are poison gets dead letters; the breaker opens all the same."""
    world = make_world()
    member = world.start(type("Ruled", (Storing,), {"rules": (Rule.dead_letter(ConnectionError),)}))
    produce(world, *[b"broken"] * 3, key=b"k")
    world.run_to_end("in")

    assert reasons(world) == ["rule"] * 3
    assert states(member)[0] == "open"


def test_only_the_partitions_of_handlers_that_need_it_are_paused() -> None:
    """Edge case 78."""
    world = VirtualWorld({"in": 1, "other": 1, "dlq": 1})
    member = world.start(Storing, Other)
    DEPENDENCY.away = True
    produce(world, b"x", b"x", b"x", key=b"k")
    world.run(lambda: "open" in states(member), timeout_s=10)
    for _ in range(50):
        world.broker.produce("other", 0, b"x")
    world.run(lambda: world.caught_up(TopicPartition("other", 0)), timeout_s=3)

    paused = {partition for partition, reason in member.story.pauses if reason == "breaker"}
    assert paused == {IN}
    assert handled(world) == []


def test_handlers_that_need_the_same_dependency_wait_together() -> None:
    world = VirtualWorld({"in": 1, "other": 1, "dlq": 1})
    member = world.start(Storing, type("Second", (Storing,), {"topics": ("other",)}))
    DEPENDENCY.away = True
    produce(world, b"x", b"x", b"x", key=b"k")
    world.run(lambda: "open" in states(member), timeout_s=10)
    world.broker.produce("other", 0, b"x")
    before = DEPENDENCY.in_vain
    world.run_for(3)

    assert DEPENDENCY.in_vain == before
    assert {partition.topic for partition, reason in member.story.pauses if reason == "breaker"} == {"in", "other"}
    DEPENDENCY.away = False
    world.run_to_end("in", "other")
    assert len(world.broker.records("dlq")) == 0


def test_a_batch_without_a_call_says_nothing_of_the_dependency() -> None:
    """All its records are undecodable, so nothing was tried."""
    world = VirtualWorld({"in": 2, "dlq": 1})
    once = Breaker("db", jitter=0.0, successes=1)
    member = world.start(type("Numbers", (StoringBatches,), {"value": Json(int), "breaker": once}))
    DEPENDENCY.away = True
    produce(world, b"1")
    world.run(lambda: "open" in states(member), timeout_s=10)
    produce(world, *[b"?"] * 5, partition=1)
    world.run_for(60)

    assert world.caught_up(OTHER)
    assert "closed" not in states(member)


def test_stopping_while_it_is_open_takes_no_time() -> None:
    """Edge case 94. Though what is done beyond the record that waits could be committed if that were done."""
    world = make_world()
    member = world.start(Storing)
    produce(world, b"broken", key=b"bad")
    produce(world, *[b"x"] * 10, key=b"good")
    world.run(lambda: "open" in states(member), timeout_s=10)
    began_s = world.time.monotonic_s()

    assert world.stop(member) == 0

    assert world.time.monotonic_s() - began_s < 1
    assert world.broker.committed(IN) in (None, 0)


def test_what_comes_while_it_is_open_is_paused_and_goes_on_when_it_closes() -> None:
    """The flag of the client outlives a rebalance, and so does the reason."""
    world = make_world(4)
    first, second = world.start(Storing), world.start(Storing)
    DEPENDENCY.away = True
    for partition in range(4):
        produce(world, *[b"x"] * 20, partition=partition, key=b"k%d" % partition)
    world.run(lambda: "open" in states(first) and "open" in states(second), timeout_s=10)
    world.stop(second)
    world.run_for(10)

    assert {partition.partition for partition, reason in first.story.pauses if reason == "breaker"} == {0, 1, 2, 3}
    DEPENDENCY.away = False
    world.run_to_end("in")
    assert not list(violations(world, "in", "dlq"))
    assert len(world.broker.records("dlq")) == 0


def test_partitions_come_back_one_by_one() -> None:
    """A dependency that is back is not met by all that has piled up."""
    world = make_world(8)
    member = world.start(Storing)
    DEPENDENCY.away = True
    for partition in range(8):
        produce(world, *[b"x"] * 3, partition=partition, key=b"k%d" % partition)
    world.run(lambda: "open" in states(member), timeout_s=10)
    world.run_for(2)
    DEPENDENCY.away = False
    world.run(lambda: states(member)[-1] == "closed", timeout_s=70)
    fetched: list[int] = []
    for _ in range(4):
        fetched.append(sum(not member.worker.ledger.paused(one.key) for one in member.worker.partitions))
        world.run_for(1)

    assert fetched == [1, 2, 4, 8]


def test_a_partition_that_is_not_let_in_yet_stays_paused_when_its_waiting_records_go() -> None:
    """It has two reasons, and one has passed: it is neither resumed nor paused once more."""

    class Both(Storing):
        dependencies = (Breaker("geo"),)

    world = make_world(8)
    member = world.start(Both)
    DEPENDENCY.away = True
    for partition in range(8):
        produce(world, *[b"x"] * 3, partition=partition, key=b"k%d" % partition)
    world.run(lambda: "open" in states(member), timeout_s=10)
    last = list(member.worker.partitions)[-1]
    last.lanes.waiting = 10_000
    world.run_for(2)
    DEPENDENCY.away = False
    world.run(lambda: states(member)[-1] == "closed", timeout_s=70)
    before = member.story.pauses.copy()

    last.lanes.waiting = 0
    world.run_for(1)

    assert member.worker.ledger.paused(last.key)
    assert last.key not in {key for key, _ in member.story.pauses[len(before) :]}


def test_the_same_record_is_called_as_in_a_first_call_after_the_outage() -> None:
    world = make_world()
    world.start(Unsteady)
    DEPENDENCY.away = True
    produce(world, b"x", key=b"k")
    world.run_for(30)
    DEPENDENCY.away = False
    world.run_to_end("in")

    assert calls(world) == [0] * len(world.effects)
    assert [effect.attempt for effect in world.effects][-2:] == [1, 2]
    assert len(world.broker.records("dlq")) == 0


def plant_poison_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every failure is taken for the dependency's."""
    monkeypatch.setattr(CircuitBreaker, "counts", lambda _self, _error: True)


def plant_attempts_are_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The breaker opens, and the record pays for it all the same."""
    monkeypatch.setattr(Settlement, "_judge_call", lambda self, slice_, error: self._judge(slice_, error, attempts=3))


def plant_no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made whatever the breaker says."""
    monkeypatch.setattr(Gate, "begin", lambda self: Permit(self.breaker, self.breaker._epoch, trial=False))


def plant_trials_do_not_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record whose trial failed is the first to be tried again."""
    monkeypatch.setattr(Gate, "retry_at_s", lambda self, _permit, _delay_s: self._monotonic_s())


def plant_drains_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain waits for records that nobody may call for."""
    monkeypatch.setattr(Gate, "shut", property(lambda _self: False))


_FAILS_ALONE = test_a_record_that_fails_alone_is_dead_lettered_and_no_other
_UNDER_LOAD = test_an_outage_under_load_costs_no_attempt_and_no_dead_letter


@pytest.mark.parametrize(
    ("plant", "test"),
    [
        (plant_poison_is_counted, test_a_bad_record_does_not_open_the_breaker),
        (plant_attempts_are_spent, test_an_outage_with_a_record_in_ten_seconds_dead_letters_nothing),
        (plant_no_gate, partial(_UNDER_LOAD, Storing, Ordering.KEY)),
        (plant_drains_wait, test_stopping_while_it_is_open_takes_no_time),
        (plant_trials_do_not_go_round, partial(_FAILS_ALONE, Ordering.KEY)),
    ],
)
def test_a_planted_bug_turns_its_test_red(
    plant: Callable[[pytest.MonkeyPatch], None], test: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-87."""
    plant(monkeypatch)

    with pytest.raises(AssertionError):
        test()


def test_one_failure_after_an_outage_does_not_open_the_breaker_again() -> None:
    """What a record failed with during the outage says nothing once the breaker has closed."""
    calls_by_key: dict[bytes | None, int] = {}
    dead_connections: list[bytes | None] = []

    class Reconnecting(Storing):
        """One call after the breaker has closed, of a record that failed before, finds a connection that had died."""

        breaker = Breaker("db", jitter=0.0, open_s=1.0, max_open_s=1.0)

        def handle(self, record: Record[bytes]) -> None:
            calls = calls_by_key[record.key] = calls_by_key.get(record.key, 0) + 1
            DEPENDENCY.call()
            if states(member)[-1:] == ["closed"] and calls > 3 and not dead_connections:
                dead_connections.append(record.key)
                raise ConnectionError("a dead connection")

    world = make_world()
    member = world.start(Reconnecting)
    DEPENDENCY.away = True
    for number in range(20):
        produce(world, b"x", key=b"key %d" % number)
    world.run_for(200)
    DEPENDENCY.away = False
    world.run_to_end("in")

    assert len(dead_connections) == 1
    assert [before for _, before, _, _ in member.story.breaker_changes].count("closed") == 1
