"""Records that are claimed before their calls: done ones are not handled again, busy ones wait; Redis may be away."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.worlds import calls, commits, headers_of, letters_from, make_world, obey, produce

from streamworker import (
    Batch,
    BatchHandler,
    DeadLetter,
    Handler,
    Idempotency,
    Ordering,
    PoisonError,
    Retry,
    Rule,
)
from streamworker.config import FlowConfig
from streamworker.errors import ClaimsUnavailable
from streamworker.testing import FakeSink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Record, Records
    from streamworker.interfaces import Row, Written
    from streamworker.work import Place


def claiming(idempotency: Idempotency | None = None, **options: object) -> type[Handler[bytes]]:
    """A handler that obeys each record, once."""

    class Claims(Handler[bytes]):
        topics = ("in",)
        dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")
        retry = Retry(attempts=4, base_s=0.1, cap_s=2.0)
        concurrency = 4

        def handle(self, record: Record[bytes]) -> bytes | None:
            obey(record)
            return record.value

    Claims.idempotency = Idempotency.redis() if idempotency is None else idempotency
    for name, value in options.items():
        setattr(Claims, name, value)
    return Claims


def by_value(record: Record[bytes]) -> str:
    return (record.value or b"").decode()


def test_a_record_that_is_done_is_not_handled_again() -> None:
    """Edge case 83: the process dies after the effect and before its commit."""
    world = make_world()
    produce(world, b"a", b"b")
    first = world.start(claiming())
    world.run(lambda: len(calls(world)) == 2)
    world.run_for(0.05)
    assert commits(world) == []
    world.kill(first)

    world.start(claiming())
    world.run_to_end("in")

    assert calls(world) == [0, 1]


def test_what_died_before_it_was_done_is_handled_when_its_lease_is_over() -> None:
    """Edge case 83, the other half."""
    world = make_world()
    produce(world, b"a", b"b")
    first = world.start(claiming(), duration_s=lambda _: 1000.0, eager=lambda: False)
    world.run(lambda: bool(first.worker.running))
    world.claims.claim([world.claims.make("in:0:0")])  # as the thread of the dead worker had
    world.kill(first)
    began_s = world.time.monotonic_s()

    world.start(claiming())
    world.run_to_end("in")

    assert calls(world) == [0, 1]
    assert 30 <= world.time.monotonic_s() - began_s < 40


def test_a_claim_of_another_parks_the_key_and_spends_no_attempt() -> None:
    world = make_world(flow=FlowConfig(max_slice=1))
    world.claims.claim([world.claims.make("in:0:0")])
    produce(world, b"a", key=b"x")
    produce(world, b"b", key=b"y")
    produce(world, b"c", key=b"x")

    member = world.start(claiming(ordering=Ordering.KEY, lanes=1, rules=(Rule.dead_letter(Exception),)))
    world.run(lambda: len(calls(world)) == 1)
    early = calls(world)
    world.run_to_end("in")

    assert early == [1]
    assert calls(world) == [1, 0, 2]
    assert letters_from(world) == []
    assert [effect.attempt for effect in world.effects] == [1, 1, 1]
    assert member.story.failures


def test_one_id_twice_is_handled_once() -> None:
    world = make_world()
    produce(world, b"order-1", b"order-2", b"order-1", b"order-2")

    world.start(claiming(Idempotency.redis(id=by_value)))
    world.run_to_end("in")

    assert calls(world) == [0, 1]


@pytest.mark.parametrize("size", [1, 3, 10])
def test_batches_leave_out_what_is_done_and_end_at_what_is_claimed(size: int) -> None:
    class Many(BatchHandler[bytes]):
        topics = ("in",)
        batch = Batch(max_records=size)
        idempotency = Idempotency.redis(id=by_value)
        sink = FakeSink()

        def handle(self, records: Records[bytes]) -> object:
            return list(records.values())

    world = make_world()
    done = world.claims.make("Many/b")
    world.claims.claim([done, world.claims.make("Many/d")])
    world.claims.complete([(done, b"")])
    produce(world, b"a", b"b", b"c", b"d", b"a", b"e")

    world.start(Many)
    world.run_to_end("in")

    assert Many.sink.values == [b"a", b"c", b"d", b"e"]


def test_an_async_handler_claims_too() -> None:
    class Awaiting(claiming()):  # type: ignore[misc]  # a class made for the test
        async def handle(self, record: Record[bytes]) -> None:
            obey(record)

    world = make_world()
    done = world.claims.make("in:0:1")
    world.claims.claim([done])
    world.claims.complete([(done, b"")])
    produce(world, b"a", b"b", b"poison", b"d")

    world.start(Awaiting)
    world.run_to_end("in")

    assert calls(world) == [0, 2, 3]
    assert letters_from(world) == [b"poison"]


def test_what_fails_gives_its_claim_up_before_it_waits() -> None:
    world = make_world()
    produce(world, b"flaky:2", b"poison", b"c")

    world.start(claiming())
    world.run_to_end("in")

    assert calls(world) == [0, 0, 0, 1, 2]
    assert headers_of(world, 0)["sw-reason"] == "poison"
    fresh = world.claims.make("in:0:1")
    assert str(world.claims.claim([fresh])) == "[Granted()]"  # the poison record's was given up


def test_a_claim_is_done_only_after_the_sink_has_the_row() -> None:
    asked: list[str] = []

    class Asking(FakeSink):
        def write(self, place: Place, rows: Sequence[Row]) -> Written:
            asked.extend(str(world.claims.claim([world.claims.make(row.id or "")])[0]) for row in rows)
            return super().write(place, rows)

    world, sink = make_world(), Asking()
    produce(world, b"a")

    world.start(claiming(sink=sink))
    world.run_to_end("in")

    assert asked == ["Busy(retry_in_s=30.0)"]
    assert str(world.claims.claim([world.claims.make("in:0:0")])[0]) == "Done(result=b'')"


def test_rows_carry_the_id_that_they_were_claimed_by() -> None:
    world, sink = make_world(), FakeSink()
    produce(world, b"order-1")

    world.start(claiming(Idempotency.redis(id=by_value), sink=sink))
    world.run_to_end("in")

    assert [effect.row.id for effect in sink.effects] == ["Claims/order-1"]


def test_while_redis_is_away_a_handler_that_may_repeat_nothing_waits() -> None:
    world = make_world()
    world.claims.away = True
    produce(world, b"a", b"b")

    member = world.start(claiming(Idempotency.redis(on_unavailable="pause"), rules=(Rule.dead_letter(Exception),)))
    world.run_for(90)
    before = calls(world)
    world.claims.away = False
    world.run_to_end("in")

    assert before == []
    assert calls(world) == [0, 1]
    assert {reason for _, reason, _ in member.story.stops} == {"dependency_unavailable"}
    assert letters_from(world) == []


def test_while_redis_is_away_a_handler_that_may_repeat_goes_on() -> None:
    world = make_world()
    world.claims.away = True
    produce(world, b"a", b"b")

    world.start(claiming(Idempotency.redis(on_unavailable="process")))
    world.run_to_end("in")

    assert calls(world) == [0, 1]


def test_a_done_that_cannot_be_noted_fails_no_record() -> None:
    class GoesAway(FakeSink):
        def write(self, place: Place, rows: Sequence[Row]) -> Written:
            world.claims.away = True
            return super().write(place, rows)

    world, sink = make_world(), GoesAway()
    produce(world, b"a")

    member = world.start(claiming(sink=sink))
    world.run_to_end("in")

    assert sink.values == [b"a"]
    assert member.story.failures == []


def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_claim() -> None:
    world = make_world()
    claim, lost = world.claims.claim, [True]

    def claim_and_lose(claims: Sequence[object]) -> object:
        answers = claim(claims)  # type: ignore[arg-type]  # claims
        if lost:
            lost.pop()
            raise ClaimsUnavailable("the answer was lost")
        return answers

    world.claims.claim = claim_and_lose  # type: ignore[method-assign,assignment]  # loses an answer
    produce(world, b"a")
    began_s = world.time.monotonic_s()

    world.start(claiming())
    world.run_to_end("in")

    assert calls(world) == [0]
    assert world.time.monotonic_s() - began_s < 30  # nobody waits for the end of a lease of one's own


def test_an_id_that_is_none_is_poison() -> None:
    def no_id(record: Record[bytes]) -> str:
        if record.value == b"b":
            raise PoisonError("it has none")
        return by_value(record)

    world = make_world()
    produce(world, b"a", b"b", b"c")

    world.start(claiming(Idempotency.redis(id=no_id)))
    world.run_to_end("in")

    assert calls(world) == [0, 2]
    assert letters_from(world) == [b"b"]


def test_one_id_twice_in_a_batch_waits_for_no_lease() -> None:
    class Many(BatchHandler[bytes]):
        topics = ("in",)
        idempotency = Idempotency.redis(id=by_value)
        sink = FakeSink()

        def handle(self, records: Records[bytes]) -> object:
            return list(records.values())

    world = make_world()
    produce(world, b"a", b"b", b"a", b"c")
    began_s = world.time.monotonic_s()

    world.start(Many)
    world.run_to_end("in")

    assert Many.sink.values == [b"a", b"b", b"c"]
    assert world.time.monotonic_s() - began_s < 10
