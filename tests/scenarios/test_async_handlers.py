"""Workers whose handlers are `async def`: all that holds for plain ones holds for them."""

from __future__ import annotations

import asyncio

import pytest
from scenarios.oracle import violations
from scenarios.worlds import Obedient, ObedientBatches, handled, headers_of, letters_from, make_world, obey, produce

from streamworker import Breaker, Context, Handler, Ordering, Read, Reading, Record, Records, Retry, RetryableError
from streamworker.record import Ending
from streamworker.testing.handler_run import run_handler


class Awaiting(Obedient):
    """Does what each record says, after a while."""

    ordering = Ordering.KEY

    async def handle(self, record: Record[bytes]) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        if record.value == b"cancelled":
            raise asyncio.CancelledError
        obey(record)


class AwaitingBatches(ObedientBatches):
    """The same in batches."""

    async def handle(self, records: Records[bytes]) -> None:  # type: ignore[override]
        for record in records:
            await asyncio.sleep(0)
            obey(record)


@pytest.mark.parametrize("handler", [Awaiting, AwaitingBatches])
def test_records_are_handled_retried_and_dead_lettered(handler: type[Awaiting]) -> None:
    world = make_world()
    produce(world, b"1", b"poison", b"flaky:1", b"4")
    member = world.start(handler)
    world.run_to_end("in")

    assert sorted(set(handled(world))) == [0, 2, 3]
    assert letters_from(world) == [b"poison"]
    assert member.story.count(Ending.RETRIED) >= 1
    assert not list(violations(world, "in", "dlq", ordered=False, batches=True))
    assert world.stop(member) == 0


def test_a_cancelled_call_is_tried_again_and_its_record_is_not_done_by_it() -> None:
    """F-46."""
    world = make_world()
    produce(world, b"cancelled", b"behind", key=b"k")
    member = world.start(Awaiting)
    world.run_to_end("in")

    assert handled(world) == [1]
    assert headers_of(world, 0)["sw-exception"] == "streamworker.errors.CallCancelled"
    assert headers_of(world, 0)["sw-attempts"] == "4"
    assert member.worker.stopping is None


def test_an_awaited_read_does_without_what_is_away() -> None:
    seen: list[Reading[int]] = []

    class Priced(Handler[bytes]):
        topics = ("in",)
        dependencies = (Breaker("prices", in_a_row=1),)
        reads = (Read("price", ("cached", "default"), dependency="prices"),)
        retry = Retry(attempts=1)

        async def open(self, context: Context) -> None:
            self.price = context.read("price", self.find, default=7)

        async def find(self, key: bytes) -> int:
            await asyncio.sleep(0)
            if key == b"away":
                raise ConnectionError
            return len(key)

        async def handle(self, record: Record[bytes]) -> None:
            seen.extend([await self.price(key) for key in (b"known", b"away", b"known", b"unknown")])

    run = run_handler(Priced, [b"1"])

    assert run.handled == [0]
    assert [one.value for one in seen] == [5, 7, 5, 7]
    assert [one.degraded and one.degraded.value for one in seen] == [None, "default", "cached", "default"]


def test_what_a_lookup_raises_for_its_own_reasons_comes_through() -> None:
    class Odd(Handler[bytes]):
        topics = ("in",)
        dependencies = (Breaker("prices"),)
        reads = (Read("price", ("default",), dependency="prices"),)
        retry = Retry(attempts=2, base_s=0.1)

        def open(self, context: Context) -> None:
            self.price = context.read("price", self.find, default=7)

        async def find(self, key: bytes) -> int:
            raise RetryableError("not yet")

        async def handle(self, record: Record[bytes]) -> None:
            await self.price(b"k")

    run = run_handler(Odd, [b"1"])

    assert (run.handled, run.retried) == ([], [0])


def test_keys_stay_in_order_with_more_calls_at_once_than_partitions() -> None:
    world = make_world(2)

    class Many(Awaiting):
        concurrency = 16
        lanes = 16

    for number in range(400):
        world.broker.produce("in", number % 2, b"flaky:1" if number % 7 == 0 else b"x", key=b"%d" % (number % 40))
    world.start(Many)
    world.run_to_end("in")

    assert not list(violations(world, "in", "dlq"))
