"""A dependency that only some records need: they wait for it, and the others go on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.oracle import violations
from scenarios.services import Service
from scenarios.worlds import IN, OTHER, calls, handled, headers_of, make_world, obey, produce

from streamworker import (
    BatchHandler,
    Breaker,
    CircuitOpen,
    Context,
    DeadLetter,
    Handler,
    Ordering,
    PoisonError,
    Retry,
)
from streamworker.config import FlowConfig
from streamworker.resilience.breaker import CircuitBreaker, Permit
from streamworker.resilience.guard import Guard
from streamworker.settlement import Settlement
from streamworker.waiting import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker import Dependency, Record, Records
    from streamworker.testing.virtual_world import Member, VirtualWorld

GEO = Breaker("geo", jitter=0.0)


class Geo(Service):
    """`geo bad` fails always, `geo wrong` is the record's own fault."""

    def find(self, value: bytes | None) -> None:
        self.call()
        if value == b"geo bad":
            raise ConnectionError("nobody there")
        if value == b"geo wrong":
            raise ValueError("no such place")


SERVICE = Geo()


@pytest.fixture(autouse=True)
def service() -> Service:
    SERVICE.renew()
    return SERVICE


class Enriching(Handler[bytes]):
    """Records whose value begins with `geo` need the service."""

    topics: ClassVar[Sequence[str]] = ("in",)
    ordering: ClassVar[Ordering | str] = Ordering.KEY
    concurrency = 4
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=3, base_s=0.1, cap_s=1.0)
    dependencies = (GEO,)

    def open(self, context: Context) -> None:
        self.geo: Dependency = context.dependency("geo")

    def handle(self, record: Record[bytes]) -> None:
        if (record.value or b"").startswith(b"geo"):
            self.geo.call(SERVICE.find, record.value)
        obey(record)


class EnrichingBatches(BatchHandler[bytes]):
    """The same for batches."""

    topics: ClassVar[Sequence[str]] = ("in",)
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=3, base_s=0.1, cap_s=1.0)
    dependencies = (GEO,)

    def open(self, context: Context) -> None:
        self.geo = context.dependency("geo")

    def handle(self, records: Records[bytes]) -> None:
        for record in records:
            if (record.value or b"").startswith(b"geo"):
                with self.geo:
                    SERVICE.find(record.value)
            obey(record)


class Translating(Enriching):
    """Raises errors of its own."""

    def handle(self, record: Record[bytes]) -> None:
        try:
            self.geo.call(SERVICE.find, record.value)
        except ConnectionError as error:
            if record.value == b"geo bad":
                raise PoisonError("cannot be found") from error
            raise RuntimeError("not found")  # noqa: B904 - that the first is only the context is the point


class Substituting(Enriching):
    """Does without."""

    def handle(self, record: Record[bytes]) -> None:
        try:
            self.geo.call(SERVICE.find, record.value)
        except (ConnectionError, CircuitOpen):
            return


class Storing(Enriching):
    """Has a breaker of its own for all that it does, which counts connection errors as well."""

    breaker = Breaker("db", in_a_row=1, jitter=0.0)


def states(member: Member) -> list[str]:
    return [after for _, _, after, _ in member.story.breaker_changes]


def open_the_breaker(world: VirtualWorld, member: Member, *, key: bytes = b"first") -> None:
    SERVICE.away = True
    produce(world, b"geo", key=key)
    world.run(lambda: "open" in states(member), timeout_s=10, what="an open breaker")


def held_records(member: Member) -> int:
    return sum(one.lanes.held_records for one in member.worker.partitions)


@pytest.mark.parametrize("handler", [Enriching, EnrichingBatches])
@pytest.mark.parametrize("ordering", list(Ordering))
def test_an_outage_under_load_costs_no_attempt_and_no_dead_letter(
    handler: type[Enriching | EnrichingBatches], ordering: Ordering
) -> None:
    """P15. Edge cases 77, 79, 82."""
    ordered = type("Ordered", (handler,), {"ordering": ordering})
    world = make_world(2)
    member = world.start(ordered)
    for second in range(60):
        for partition in (0, 1):
            for number in range(10):
                value = b"geo" if number < 2 else b"x"
                produce(world, value, partition=partition, key=b"key %d" % (second % 15 * 10 + number))
        SERVICE.away = 10 <= second < 40
        world.run_for(1)
    world.run_to_end("in")

    assert ordering is Ordering.UNORDERED or not list(violations(world, "in", "dlq"))
    assert len(world.broker.records("dlq")) == 0
    assert len(set(handled(world))) + len(set(handled(world, OTHER))) == 60 * 20
    # Those in flight when it went away, then one for each trial: after 5, 10 and 20 s.
    assert SERVICE.in_vain <= ordered.concurrency + 4
    assert {effect.attempt for effect in world.effects} == {1}
    assert states(member)[0] == "open"
    assert states(member)[-1] == "closed"


def test_the_other_keys_of_a_partition_go_on() -> None:
    """Edge case 78."""
    world = make_world()
    member = world.start(Enriching)
    open_the_breaker(world, member)
    produce(world, *[b"geo"] * 3, key=b"needs it")
    produce(world, *[b"x"] * 50, key=b"does not")
    produce(world, *[b"x"] * 5, key=b"needs it")
    world.run_for(2)

    assert handled(world) == list(range(4, 54))
    assert not member.story.pauses
    assert (world.broker.committed(IN) or 0) == 0
    SERVICE.away = False
    world.run_to_end("in")
    assert not list(violations(world, "in", "dlq"))


def test_the_other_partitions_go_on_with_order_by_partition() -> None:
    """Edge case 78."""
    world = make_world(2)
    member = world.start(type("Ordered", (Enriching,), {"ordering": Ordering.PARTITION}))
    open_the_breaker(world, member)
    produce(world, *[b"x"] * 20)
    produce(world, *[b"x"] * 20, partition=1)
    world.run_for(2)

    assert handled(world) == []
    assert handled(world, OTHER) == list(range(20))
    SERVICE.away = False
    world.run_to_end("in")
    assert handled(world) == list(range(21))


def test_all_that_waits_is_not_called_at_each_trial() -> None:
    """Edge case 79."""
    world = make_world()
    member = world.start(Enriching)
    open_the_breaker(world, member)
    for number in range(90):
        produce(world, b"geo", key=b"key %d" % number)
    world.run_for(1)
    before, called = SERVICE.in_vain, len(world.effects)
    world.run_for(60)

    # Open for 5, 10, 20 and 40 s.
    assert SERVICE.in_vain - before == 3
    assert len(world.effects) - called == 3
    assert held_records(member) == 91


def test_what_waited_longest_goes_first_and_the_rest_in_growing_steps() -> None:
    world = make_world()
    member = world.start(Enriching)
    open_the_breaker(world, member)
    for number in range(40):
        produce(world, b"geo", key=b"key %d" % number)
    world.run_for(3)
    SERVICE.away = False
    world.run(lambda: states(member)[-1] == "closed", timeout_s=10)
    done = [len(handled(world))]
    for _ in range(4):
        world.run_for(1)
        done.append(len(handled(world)))

    assert handled(world)[:18] == list(dict.fromkeys(calls(world)))[:18]  # in the order in which they were refused
    # Three trials, then 1, 2, 4, 8 of those that wait.
    assert done == [3, 4, 6, 10, 18]
    world.run_to_end("in")
    assert not list(violations(world, "in", "dlq"))


def test_a_partition_with_too_many_that_wait_is_paused_until_half_of_them_have_gone() -> None:
    """At an even share of what the worker may hold, and so before the others are short of it."""
    world = make_world(4, flow=FlowConfig(max_inflight=600))
    member = world.start(Enriching)
    open_the_breaker(world, member)
    for number in range(149):
        produce(world, b"geo", key=b"key %d" % number)
    world.run(lambda: member.worker.ledger.paused(IN), timeout_s=10)

    assert held_records(member) == 150
    assert set(member.story.pauses) == {(IN, "breaker")}
    SERVICE.away = False
    world.run(lambda: not member.worker.ledger.paused(IN), timeout_s=60)
    assert 0 < sum(one.lanes.waiting for one in member.worker.partitions) < 75
    world.run_to_end("in")


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.UNORDERED])
def test_a_record_that_fails_alone_is_dead_lettered_and_no_other(ordering: Ordering) -> None:
    """It looks like an outage, but the trials of the others succeed."""
    world = make_world()
    member = world.start(type("Ordered", (Enriching,), {"ordering": ordering}))
    produce(world, b"geo bad", key=b"bad")
    for number in range(300):
        produce(world, b"geo", key=b"key %d" % (number % 7))
        world.run_for(1)
    world.run_to_end("in")

    assert [letter.value() for letter in world.broker.records("dlq")] == [b"geo bad"]
    assert headers_of(world, 0)["sw-reason"] == "fails_alone"
    assert len(handled(world)) == 300
    assert states(member)[-1] == "closed"


def test_a_record_that_is_at_fault_does_not_open_the_breaker() -> None:
    """Edge case 80."""
    world = make_world()
    member = world.start(Enriching)
    for number in range(60):
        produce(world, b"geo wrong", b"geo", key=b"key %d" % number)
    world.run_to_end("in")

    assert len(world.broker.records("dlq")) == 60
    assert not states(member)


def test_an_error_that_was_raised_because_of_the_call_waits_as_well() -> None:
    world = make_world()
    member = world.start(Translating)
    SERVICE.away = True
    produce(world, *[b"geo"] * 5, key=b"k")
    world.run(lambda: "open" in states(member), timeout_s=10)
    world.run_for(20)
    SERVICE.away = False
    world.run_to_end("in")

    assert len(world.broker.records("dlq")) == 0
    assert handled(world) == list(range(5))


def test_a_handler_may_still_say_that_the_record_is_at_fault() -> None:
    world = make_world()
    world.start(Translating)
    produce(world, b"geo bad", key=b"k")
    world.run_to_end("in")

    assert headers_of(world, 0)["sw-reason"] == "poison"


def test_a_handler_may_do_without() -> None:
    world = make_world()
    member = world.start(Substituting)
    SERVICE.away = True
    produce(world, *[b"geo"] * 50, key=b"k")
    world.run_to_end("in", timeout_s=3)

    assert states(member) == ["open"]
    assert SERVICE.in_vain == 3


def test_what_a_single_call_fails_at_is_not_counted_by_the_breaker_of_the_handler() -> None:
    world = make_world()
    member = world.start(Storing)
    open_the_breaker(world, member)
    produce(world, *[b"x"] * 20, key=b"does not")
    world.run_for(2)

    assert {name for name, *_ in member.story.breaker_changes} == {"geo"}
    assert handled(world) == list(range(1, 21))


def test_the_handlers_own_breaker_may_be_named_for_a_single_call() -> None:
    """Its calls have leave already: one that is asked for again would be refused to the trial itself."""
    world = make_world()
    member = world.start(type("Own", (Enriching,), {"breaker": GEO}))
    SERVICE.away = True
    produce(world, *[b"geo"] * 5, key=b"k")
    world.run(lambda: "open" in states(member), timeout_s=10)
    world.run_for(8)
    SERVICE.away = False
    world.run_to_end("in")

    assert handled(world) == list(range(5))
    assert len(world.broker.records("dlq")) == 0


@pytest.mark.parametrize("ordering", list(Ordering))
def test_stopping_while_it_is_open_takes_no_time(ordering: Ordering) -> None:
    """Edge case 94. Though what is done beyond the record that waits could be committed if that were done."""
    world = make_world()
    member = world.start(type("Ordered", (Enriching,), {"ordering": ordering}))
    open_the_breaker(world, member)
    produce(world, *[b"geo", b"x"] * 10, key=b"other")
    world.run_for(1)
    began_s = world.time.monotonic_s()

    assert world.stop(member) == 0

    assert world.time.monotonic_s() - began_s < 1
    assert world.broker.committed(IN) in (None, 0)


def test_a_partition_that_goes_while_it_is_open_is_handled_by_its_next_owner() -> None:
    world = make_world(2)
    first = world.start(Enriching)
    open_the_breaker(world, first)
    for partition in (0, 1):
        produce(world, *[b"geo", b"x"] * 10, partition=partition, key=b"k%d" % partition)
    world.run_for(1)
    second = world.start(Enriching)
    world.run_for(10)
    SERVICE.away = False
    world.run_to_end("in")

    assert any(kind == "revoked" and keys for kind, keys in first.story.rebalances)
    assert second.story.rebalances
    assert not list(violations(world, "in", "dlq"))
    assert len(world.broker.records("dlq")) == 0


def plant_poison_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a guarded call raises is taken for the dependency's."""
    monkeypatch.setattr(Guard, "_is_to_blame", lambda _self, _error: True)


def plant_attempts_are_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The breaker opens, and the record pays for it all the same."""
    monkeypatch.setattr(Settlement, "_judge_call", lambda self, slice_, error: self._judge(slice_, error, attempts=3))


def plant_no_leave_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made whatever the breaker says."""
    monkeypatch.setattr(CircuitBreaker, "acquire", lambda self: Permit(self, self._epoch, trial=False))


def plant_all_go_at_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that waits is let out at once."""
    right = WaitingRoom._release
    monkeypatch.setattr(WaitingRoom, "_release", lambda self, count, now_s: right(self, 1000 if count else 0, now_s))


def plant_trials_do_not_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record whose trial failed keeps its turn, and nobody remembers."""
    right = WaitingRoom.enter
    monkeypatch.setattr(
        WaitingRoom,
        "enter",
        lambda self, scheduler, lane, held, **_: right(self, scheduler, lane, held, trial_failed=False),
    )


def plant_the_context_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the error itself is asked whom it is to be blamed on."""
    monkeypatch.setattr("streamworker.resilience.guard.links", lambda error: [error])


def plant_the_handlers_breaker_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came out of a guarded call is counted twice."""
    monkeypatch.setattr(Settlement, "_blame", lambda _self, _slice, _error: None)


_UNDER_LOAD = test_an_outage_under_load_costs_no_attempt_and_no_dead_letter


@pytest.mark.parametrize(
    ("plant", "test"),
    [
        (plant_poison_is_counted, test_a_record_that_is_at_fault_does_not_open_the_breaker),
        (plant_attempts_are_spent, partial(_UNDER_LOAD, Enriching, Ordering.KEY)),
        (plant_no_leave_is_asked, partial(_UNDER_LOAD, Enriching, Ordering.KEY)),
        (plant_all_go_at_each_trial, test_all_that_waits_is_not_called_at_each_trial),
        (
            plant_trials_do_not_go_round,
            partial(test_a_record_that_fails_alone_is_dead_lettered_and_no_other, Ordering.KEY),
        ),
        (plant_the_context_is_not_looked_at, test_an_error_that_was_raised_because_of_the_call_waits_as_well),
        (
            plant_the_handlers_breaker_counts_it,
            test_what_a_single_call_fails_at_is_not_counted_by_the_breaker_of_the_handler,
        ),
    ],
)
def test_a_planted_bug_turns_its_test_red(
    plant: Callable[[pytest.MonkeyPatch], None], test: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F-87."""
    plant(monkeypatch)

    with pytest.raises(AssertionError):
        test()
