"""Dead letters that are handled in the process of a command, outside of their group."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.processing import Desk
from scenarios.worlds import Obedient, ObedientBatches, make_world, obey, produce, steady

from streamworker import (
    Breaker,
    DeadLetter,
    FatalError,
    Handler,
    Idempotency,
    Json,
    KafkaSink,
    OnExhausted,
    Ordering,
    Retry,
    RetryTopic,
)
from streamworker.config import DeadLetterConfig, FlowConfig
from streamworker.errors import ClientError, ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import State
from streamworker.testing import FakeSink
from streamworker.testing.memory_shipments import Step
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import BatchHandler, Record


class Refusing(Handler[bytes]):
    """The release that fails everything."""

    topics: ClassVar[Sequence[str]] = ("in", "other")
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=1)

    def handle(self, record: Record[bytes]) -> None:
        raise ConnectionError("nobody there")


def desk_of(*values: bytes, key: bytes | None = None, partitions: int = 1, world: VirtualWorld | None = None) -> Desk:
    """A desk where each of these values is a dead letter, in their order."""
    world = world or make_world(partitions)
    for number, value in enumerate(values):
        produce(world, value, partition=number % partitions, key=key)
    member = world.start(Refusing)
    world.run_to_end("in")
    assert world.stop(member) == ExitCode.OK
    world.effects.clear()
    return Desk(world)


def seen_by(seen: list[tuple[object, ...]]) -> type[Handler[bytes]]:
    """Notes what each record says of itself, and obeys."""

    class Seeing(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            origin = tuple(record.origin)
            seen.append((record.topic, record.offset, origin, record.timestamp_ms, record.headers, record.value))
            obey(record)

    return Seeing


@pytest.mark.parametrize("handler", [Obedient, ObedientBatches])
def test_letters_are_handled_and_said_to_be(handler: type[Handler[bytes]] | type[BatchHandler[bytes]]) -> None:
    desk = desk_of(b"a", b"b", b"c")

    process = desk.process(handler)

    assert process.run() == ExitCode.OK
    assert process.account.handled == 3
    assert desk.states() == [State.REPLAYED] * 3
    assert desk.advanced[-1] == 3
    said = desk.said()[LetterId(0, 0)]
    assert (said.reason_code, said.actor, said.target, said.replay_count) == ("in-process", "me@here", None, 1)


def test_a_handler_sees_the_record_as_it_was_first() -> None:
    seen: list[tuple[object, ...]] = []
    world = make_world()
    produce(world, b"before")
    world.broker.produce("in", 0, b"a", headers=[("trace", b"7")], timestamp_ms=5)
    member = world.start(Refusing)
    world.run_to_end("in")
    world.stop(member)
    desk = Desk(world)

    desk.process(seen_by(seen), [LetterId(0, 1)]).run()

    assert seen == [("dlq", 1, ("in", 0, 1), 5, (("trace", b"7"),), b"a")]


def test_what_fails_again_stays_pending_is_told_with_its_error_and_is_no_new_letter() -> None:
    desk = desk_of(b"a", b"poison", b"broken", b"d")

    process = desk.process(Obedient)
    code = process.run()

    assert code == ExitCode.PARTIAL
    assert process.account.failures == {
        LetterId(0, 1): "poison: streamworker.errors.PoisonError: a bad record",
        LetterId(0, 2): "exhausted: ConnectionError: nobody there",
    }
    assert desk.states() == [State.REPLAYED, State.PENDING, State.PENDING, State.REPLAYED]
    assert len(desk.letters()) == 4


def test_a_letter_has_all_attempts_of_its_handler_again() -> None:
    desk = desk_of(b"flaky:3")

    process = desk.process(Obedient)

    assert process.run() == ExitCode.OK
    assert process.account.failures == {}


def test_a_breaker_holds_letters_back_until_the_dependency_is_there() -> None:
    away = [True]

    class Guarded(Obedient):
        breaker = Breaker("shop", open_s=5.0)

        def handle(self, record: Record[bytes]) -> None:
            if away[0]:
                raise ConnectionError("nobody there")

    desk = desk_of(*[b"a"] * 20)
    process = desk.process(Guarded)
    desk.world.time.call_in(60, away.clear)
    desk.world.time.call_in(60, lambda: away.append(False))

    assert process.run() == ExitCode.OK
    assert process.account.handled == 20
    assert any(told.startswith("breaker shop: open") for told in desk.told)


def test_any_number_of_letters_may_fail_at_once() -> None:
    desk = desk_of(*[b"poison"] * 30)
    desk.world.config = make_world(dead_letters=DeadLetterConfig(budget=2)).config
    began_s = desk.world.time.monotonic_s()

    process = desk.process(Obedient)

    assert process.run() == ExitCode.PARTIAL
    assert len(process.account.failures) == 30
    assert desk.world.time.monotonic_s() - began_s < 2


def test_retry_topics_are_left_out() -> None:
    class Deferring(Obedient):
        retry = Retry(attempts=2, base_s=0.1, topics=(RetryTopic(delay_s=60),))

    desk = desk_of(b"broken")

    process = desk.process(Deferring)

    assert process.run() == ExitCode.PARTIAL
    assert process.account.failures == {LetterId(0, 0): "exhausted: ConnectionError: nobody there"}


def test_a_letter_is_never_too_old() -> None:
    seen: list[int] = []

    class Fresh(Obedient):
        max_age_s = 1.0

        def handle(self, record: Record[bytes]) -> None:
            seen.append(record.offset)

    desk = desk_of(b"a")
    desk.world.time.wait(3600, lambda: False)
    process = desk.process(Fresh)

    assert process.run() == ExitCode.OK
    assert seen == [0]


def test_a_worker_that_is_full_gives_back_what_it_cannot_hold_and_handles_all() -> None:
    world = make_world(2, letters=2, flow=FlowConfig(max_inflight=10, pause_after_s=0.0))
    desk = desk_of(*[b"flaky:2"] * 60, partitions=2, world=world)

    process = desk.process(Obedient, duration_s=steady(0.5))

    assert process.run() == ExitCode.OK
    assert process.account.handled == 60


def test_only_what_was_chosen_is_handled_in_the_order_of_its_key() -> None:
    seen: list[tuple[object, ...]] = []
    desk = desk_of(*[str(number).encode() for number in range(10)], key=b"k")

    desk.process(seen_by(seen), [LetterId(0, 2), LetterId(0, 5), LetterId(0, 9)]).run()

    assert [one[-1] for one in seen] == [b"2", b"5", b"9"]
    assert [state is State.REPLAYED for state in desk.states()] == [number in (2, 5, 9) for number in range(10)]


def test_a_signal_ends_it_after_the_records_in_hand_and_the_rest_stays_pending() -> None:
    desk = desk_of(*[b"a"] * 50, partitions=2)
    process = desk.process(Obedient, duration_s=steady(1.0))
    desk.world.time.call_in(3.5, lambda: process.stop("SIGTERM"))

    assert process.run() == ExitCode.PARTIAL
    handled = process.account.handled
    assert 0 < handled < 50
    assert desk.states().count(State.REPLAYED) == handled
    assert len(desk.pending()) == 50 - handled


def test_states_come_after_effects() -> None:
    handled: list[object] = []
    desk = desk_of(*[b"a"] * 5)
    too_early: list[int] = []

    class Counting(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            handled.append(record.offset)

    desk.cluster.at = lambda step: too_early.append(len(desk.said()) - len(handled)) if step is Step.COMMITTED else None
    desk.process(Counting).run()

    assert too_early
    assert max(too_early) <= 0


def test_states_that_cannot_be_written_at_once_are_written_later() -> None:
    desk = desk_of(b"a", b"b")
    troubles = [ClientError("no coordinator", code="_WAIT_COORD")] * 30

    def at(step: Step) -> None:
        if step is Step.COMMITTING and troubles:
            raise troubles.pop()

    desk.cluster.at = at
    process = desk.process(Obedient)

    assert process.run() == ExitCode.OK
    assert desk.states() == [State.REPLAYED] * 2


def test_states_of_unknown_fate_are_said_once_they_are_found() -> None:
    desk = desk_of(b"a", b"b")
    lost = [ClientError("no answer", code="_TIMED_OUT")]

    def at(step: Step) -> None:
        if step is Step.COMMITTED and lost:
            raise lost.pop()

    desk.cluster.at = at
    process = desk.process(Obedient)

    assert process.run() == ExitCode.OK
    assert (process.account.handled, process.account.repeats) == (2, {})


def test_what_somebody_else_has_done_meanwhile_is_told() -> None:
    desk = desk_of(b"a", b"b")
    first = desk.process(Obedient, duration_s=steady(5.0))
    second = desk.process(Obedient, [LetterId(0, 1)])

    desk.world.time.call_in(1.0, lambda: None)
    assert second.run() == ExitCode.OK
    code = first.run()

    assert code == ExitCode.PARTIAL
    assert first.account.repeats == {LetterId(0, 1): "it was replayed meanwhile"}


def test_copies_that_a_crash_wrote_of_a_record_go_with_it() -> None:
    desk = desk_of(b"a", b"a", b"b")

    process = desk.process(Obedient, [LetterId(0, 0), LetterId(0, 2)], duplicates={LetterId(0, 1): LetterId(0, 0)})

    assert process.run() == ExitCode.OK
    assert desk.states() == [State.REPLAYED, State.DUPLICATE, State.REPLAYED]
    assert desk.said()[LetterId(0, 1)].of == "0:0"


def test_a_copy_stays_pending_with_the_letter_that_it_is_one_of() -> None:
    desk = desk_of(b"poison", b"poison")

    desk.process(Obedient, [LetterId(0, 0)], duplicates={LetterId(0, 1): LetterId(0, 0)}).run()

    assert desk.states() == [State.PENDING, State.PENDING]


def test_letters_that_are_gone_or_another_group_s_are_left_alone() -> None:
    desk = desk_of(b"a", b"b")
    other = desk.world.broker.records("dlq")[1]
    other.set_headers([("sw-version", b"1"), ("sw-group", b"shop"), ("sw-origin-topic", b"in")])

    process = desk.process(Obedient, [LetterId(0, 0), LetterId(0, 1), LetterId(0, 7)])

    assert process.run() == ExitCode.PARTIAL
    assert process.account.failures == {
        LetterId(0, 1): "it is of group 'shop', and this is 'test'",
        LetterId(0, 7): "it is not there any more",
    }


def test_letters_of_several_topics_are_decoded_as_records_of_their_own_topic() -> None:
    topics: list[tuple[str, bytes]] = []

    class OfTopic:
        def decode(self, data: bytes, topic: str) -> bytes:
            topics.append((topic, data))
            return data

        def encode(self, value: bytes, topic: str) -> bytes:
            raise NotImplementedError

    class OfBoth(Handler[bytes]):
        topics = ("in", "other")
        value = OfTopic()

        def handle(self, record: Record[bytes]) -> None: ...

    world = VirtualWorld({"in": 1, "other": 1, "dlq": 1})
    for topic in ("in", "other", "in", "other"):
        world.broker.produce(topic, 0, topic.encode())
    member = world.start(Refusing)
    world.run_to_end("in", "other")
    world.stop(member)
    desk = Desk(world)

    process = desk.process(OfBoth)

    assert process.run() == ExitCode.OK
    assert sorted(topics) == [("in", b"in")] * 2 + [("other", b"other")] * 2


def test_letters_of_a_topic_that_the_handler_does_not_read_are_left_alone() -> None:
    class OfAnother(Obedient):
        topics = ("another",)

    desk = desk_of(b"a")

    process = desk.process(OfAnother)

    assert process.run() == ExitCode.PARTIAL
    assert process.account.failures == {LetterId(0, 0): "it was first in 'in', which OfAnother does not read"}


def test_a_record_that_is_claimed_as_done_is_not_handled_again() -> None:
    seen: list[object] = []

    class Claiming(Handler[int]):
        topics = ("in",)
        value = Json(int)
        dead_letter = DeadLetter("dlq")
        idempotency = Idempotency("redis")

        def handle(self, record: Record[int]) -> None:
            seen.append(record.value)

    desk = desk_of(b"1", b"2")

    assert desk.process(Claiming).run() == ExitCode.OK
    again = desk.process(Claiming, [LetterId(0, 0), LetterId(0, 1)])
    again.run()

    assert sorted(map(str, seen)) == ["1", "2"]


@pytest.mark.parametrize("ordering", [Ordering.KEY, Ordering.PARTITION])
def test_a_sink_with_marks_takes_each_letter_once_whatever_is_chosen_in_which_order(ordering: Ordering) -> None:
    sink_ = FakeSink(marks=True)
    chosen_order = ordering

    class Storing(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("dlq")
        sink = sink_
        ordering = chosen_order

        def handle(self, record: Record[bytes]) -> object:
            return record.value

    desk = desk_of(*[str(number).encode() for number in range(40)])
    places = [one.id for one in desk.letters()]

    for chosen in (places[30:], places[3:4], places[0:40:7], places, places):
        desk.process(Storing, chosen).run()

    assert sorted(sink_.values, key=lambda value: int(str(value, "ascii"))) == [  # type: ignore[call-overload]
        str(number).encode() for number in range(40)
    ]


class _Killed(BaseException):
    """The end of the process, wherever it is."""


@pytest.mark.parametrize("step", [Step.OPENED, Step.BEGUN, Step.COMMITTING, Step.COMMITTED])
def test_a_sink_with_marks_takes_each_letter_once_if_the_process_is_killed_before_their_states_are_there(
    step: Step,
) -> None:
    sink_ = FakeSink(marks=True)
    calls: list[int] = []

    class Storing(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("dlq")
        sink = sink_

        def handle(self, record: Record[bytes]) -> object:
            calls.append(record.offset)
            return record.value

    desk = desk_of(*[str(number).encode() for number in range(9)])

    def kill(reached: Step) -> None:
        if reached is step:
            raise _Killed

    desk.cluster.at = kill
    with pytest.raises(_Killed):
        desk.process(Storing, desk.pending()[3:6]).run()
    stored = list(sink_.values)
    desk.cluster.at = lambda _step: None
    code = desk.process(Storing).run()

    assert len(stored) == 3
    assert code == ExitCode.OK
    assert sorted(map(str, sink_.values)) == sorted(str(str(number).encode()) for number in range(9))
    assert len(calls) == (9 if step is Step.COMMITTED else 12)
    assert desk.states() == [State.REPLAYED] * 9


def test_a_sink_with_marks_that_took_letters_of_an_earlier_topic_of_the_name_takes_those_of_the_new_one() -> None:
    sink_ = FakeSink(marks=True)

    class Storing(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("dlq")
        sink = sink_

        def handle(self, record: Record[bytes]) -> object:
            return record.value

    desk = desk_of(b"a")
    desk.process(Storing, [LetterId(0, 0)], topic_id="old").run()

    desk.process(Storing, [LetterId(0, 0)], topic_id="new").run()

    assert sink_.values == [b"a", b"a"]


def test_a_row_that_a_sink_refuses_fails_its_letter_alone() -> None:
    sink_ = FakeSink(marks=True)
    sink_.refuse(2, ValueError("too long"), times=9)

    class Storing(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("dlq")
        retry = Retry(attempts=2, base_s=0)
        sink = sink_

        def handle(self, record: Record[bytes]) -> object:
            return record.value

    desk = desk_of(b"a", b"b", b"c", b"d")

    process = desk.process(Storing)

    assert process.run() == ExitCode.PARTIAL
    assert sorted(map(str, sink_.values)) == ["b'a'", "b'b'", "b'd'"]
    assert process.account.failures == {LetterId(0, 2): "exhausted: ValueError: too long"}


def test_a_fatal_error_ends_it_and_its_letter_stays_pending() -> None:
    class Fatal(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            raise FatalError("no such table")

    desk = desk_of(b"a")

    process = desk.process(Fatal)

    assert process.run() == ExitCode.FATAL
    assert desk.states() == [State.PENDING]
    assert any("no such table" in told for told in desk.told)


def test_a_handler_that_delivers_by_transactions_is_refused() -> None:
    class Transactional(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("dlq")
        sink = KafkaSink("out")
        delivery = "transactional"

        def handle(self, record: Record[bytes]) -> object:
            return record.value

    desk = desk_of(b"a")

    with pytest.raises(ConfigurationError, match=r"Transactional\.delivery: .* `streamworker dlq replay`"):
        desk.process(Transactional)


def test_a_handler_whose_letters_take_their_key_along_is_refused() -> None:
    class TakingKeys(Obedient):
        dead_letter = DeadLetter("dlq", on_exhausted=OnExhausted.DLQ_KEY)

    desk = desk_of(b"a")

    with pytest.raises(ConfigurationError, match=r"TakingKeys\.dead_letter: .* `streamworker dlq replay`"):
        desk.process(TakingKeys)
