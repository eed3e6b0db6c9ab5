"""Budgets for retries and rates, in the whole worker."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.oracle import violations
from scenarios.worlds import Obedient, calls, make_world, obey, produce

from streamworker import BatchHandler, Breaker, DeadLetter, Handler, Ordering, Rate, Retry, RetryBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Record, Records
    from streamworker.testing.virtual_world import VirtualWorld


class Budgeted(Obedient):
    """Retries are a fifth of the first calls, and five a second."""

    ordering = Ordering.UNORDERED
    retry = Retry(attempts=4, base_s=0.01, cap_s=0.01)
    retry_budget = RetryBudget(ratio=0.2, min_per_s=5)


class BudgetedByKey(Budgeted):
    ordering = Ordering.KEY


class Slow(Handler[bytes]):
    """Ten records a second."""

    topics: ClassVar[Sequence[str]] = ("in",)
    dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")
    retry = Retry(attempts=3, base_s=0.01, cap_s=0.01)
    concurrency = 4
    rate: ClassVar[Rate | None] = Rate(10, burst=1)

    def handle(self, record: Record[bytes]) -> None:
        obey(record)


class SlowByKey(Slow):
    ordering: ClassVar[Ordering | str] = Ordering.KEY


class SlowEachKey(SlowByKey):
    rate = Rate(10, burst=1, per_key=True)


class SlowBehindABreaker(Slow):
    breaker = Breaker("db", jitter=0.0)


class SlowBatches(BatchHandler[bytes]):
    topics = ("in",)
    rate = Rate(100, burst=10)

    def handle(self, records: Records[bytes]) -> None:
        for record in records:
            obey(record)


def seconds_of(world: VirtualWorld) -> list[float]:
    return [effect.at_s for effect in world.effects]


@pytest.mark.parametrize("handler", [Budgeted, BudgetedByKey])
def test_retries_beyond_the_budget_wait_and_none_is_dead_lettered_for_it(handler: type[Budgeted]) -> None:
    world = make_world()
    for number in range(500):
        produce(world, b"flaky:1", key=str(number).encode())
    member = world.start(handler)
    began_s = world.time.monotonic_s()

    world.run_to_end("in", timeout_s=200.0)

    seconds = max(seconds_of(world)) - began_s
    retries = sum(effect.attempt > 1 for effect in world.effects)
    assert retries == 500
    # 50 are there at the start, 100 are a fifth of the first calls, the others come five a second.
    assert seconds == pytest.approx((500 - 50 - 100) / 5, rel=0.05)
    assert member.story.postponed_retries > 0
    assert world.broker.records("dlq") == []
    assert list(violations(world, "in", "dlq", ordered=handler.ordering is Ordering.KEY)) == []


def test_first_calls_are_not_held_up_by_retries_that_wait() -> None:
    world = make_world()
    for number in range(400):
        produce(world, b"flaky:1" if number % 2 else b"ok", key=str(number).encode())
    world.start(BudgetedByKey)
    began_s = world.time.monotonic_s()

    world.run_to_end("in", timeout_s=200.0)

    firsts = [effect.at_s for effect in world.effects if effect.attempt == 1]
    assert len(firsts) == 400
    assert max(firsts) - began_s < 2.0


def test_records_go_at_the_rate_and_in_order() -> None:
    world = make_world()
    produce(world, *[b"ok"] * 50)
    member = world.start(Slow)

    world.run_to_end("in")

    at_s = seconds_of(world)
    assert at_s[-1] - at_s[0] == pytest.approx(4.9, abs=0.1)
    assert calls(world) == list(range(50))
    assert member.story.throttled_s == pytest.approx(4.9, abs=0.3)
    assert list(violations(world, "in", "dlq")) == []


def test_tries_again_count_for_the_rate() -> None:
    world = make_world()
    produce(world, *[b"flaky:1"] * 20)
    world.start(Slow)

    world.run_to_end("in")

    at_s = seconds_of(world)
    assert len(at_s) == 40
    assert at_s[-1] - at_s[0] == pytest.approx(3.9, abs=0.1)


def test_batches_are_cut_to_what_the_rate_allows() -> None:
    world = make_world()
    produce(world, *[b"ok"] * 300)
    world.start(SlowBatches)

    world.run_to_end("in")

    at_s = seconds_of(world)
    assert max(Counter(effect.call for effect in world.effects).values()) <= 10
    assert at_s[-1] - at_s[0] == pytest.approx(2.9, abs=0.2)


def test_records_go_at_the_rate_behind_a_breaker_too() -> None:
    world = make_world()
    produce(world, *[b"ok"] * 20)
    world.start(SlowBehindABreaker)

    world.run_to_end("in")

    at_s = seconds_of(world)
    assert at_s[-1] - at_s[0] == pytest.approx(1.9, abs=0.1)


def test_each_key_goes_at_its_rate_and_in_order_and_none_waits_for_another() -> None:
    world = make_world()
    for _ in range(20):
        for key in (b"a", b"b", b"c"):
            produce(world, b"ok", key=key)
    member = world.start(SlowEachKey)

    world.run_to_end("in")

    for key in (b"a", b"b", b"c"):
        mine = [effect for effect in world.effects if effect.key == key]
        at_s = [effect.at_s for effect in mine]
        assert [effect.offset for effect in mine] == sorted(effect.offset for effect in mine)
        assert at_s[-1] - at_s[0] == pytest.approx(1.9, abs=0.1)
    assert member.story.throttled_s > 0
    assert list(violations(world, "in", "dlq")) == []


def test_a_key_at_its_rate_keeps_its_order_when_its_records_fail() -> None:
    world = make_world()
    for number in range(12):
        produce(world, b"flaky:2" if number % 3 else b"ok", key=b"a")
        produce(world, b"ok", key=b"b")
    world.start(SlowEachKey)

    world.run_to_end("in")

    mine = [effect for effect in world.effects if effect.key == b"a"]
    at_s = [effect.at_s for effect in mine]
    assert [effect.offset for effect in mine if effect.ok] == [2 * number for number in range(12)]
    assert min(later - sooner for sooner, later in pairwise(at_s)) > 0.09
    assert list(violations(world, "in", "dlq")) == []
