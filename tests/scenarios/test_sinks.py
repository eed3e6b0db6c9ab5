"""What handlers return is written before their records are done, and what the write says becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.worlds import IN, commits, headers_of, letters_from, make_world, obey, produce

from streamworker import (
    Batch,
    BatchFailed,
    BatchHandler,
    Breaker,
    DeadLetter,
    Ending,
    Handler,
    Ordering,
    PoisonError,
    Retry,
    RetryableError,
    Rule,
    SinkHandler,
)
from streamworker.config import FlowConfig
from streamworker.errors import ForeignRewind, OwnershipLost, RowFailed
from streamworker.exit_code import ExitCode
from streamworker.testing import FakeSink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Record, Records
    from streamworker.handler import Call
    from streamworker.interfaces import Row, SinkContext, Written
    from streamworker.testing.fake_sink import FakeWriter
    from streamworker.work import Place


def into(sink: FakeSink, **options: object) -> type[Handler[bytes]]:
    """A handler that obeys each record and returns its value for `sink`."""

    class Stores(Handler[bytes]):
        topics = ("in",)
        dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")
        retry = Retry(attempts=4, base_s=0.1, cap_s=2.0)
        concurrency = 4

        def handle(self, record: Record[bytes]) -> bytes | None:
            obey(record)
            return record.value

    Stores.sink = sink
    for name, value in options.items():
        setattr(Stores, name, value)
    return Stores


class Seeing(FakeSink):
    """Remembers each write: its place, and the offsets of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[Place, list[int]]] = []

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        self.writes.append((place, [row.offset for row in rows]))
        return super().write(place, rows)


def test_what_is_returned_is_written_in_order_and_then_the_record_is_done() -> None:
    world, sink = make_world(), FakeSink()
    produce(world, b"a", b"b", b"c")

    world.start(into(sink))
    world.run_to_end("in")

    assert sink.values == [b"a", b"b", b"c"]


def test_nothing_is_committed_while_the_sink_is_away_and_all_is_written_once_it_is_back() -> None:
    world, sink = make_world(), FakeSink()
    sink.go_away()
    produce(world, b"a", b"b", b"c")

    member = world.start(into(sink, breaker=Breaker("store")))
    world.run_for(60)
    before = commits(world)
    sink.come_back()
    world.run_to_end("in")

    assert before == []
    assert sink.values == [b"a", b"b", b"c"]
    assert letters_from(world) == []
    assert member.story.failures


def test_a_write_whose_answer_is_lost_is_made_again_and_has_one_effect() -> None:
    world, sink = make_world(), FakeSink()
    sink.lose_answers()
    produce(world, b"a", b"b")

    world.start(into(sink))
    world.run_to_end("in")

    assert sink.values == [b"a", b"b"]


def test_a_row_that_the_sink_refuses_is_dead_lettered_and_those_around_it_are_written() -> None:
    world, sink = make_world(), FakeSink()
    sink.refuse(1, PoisonError("too long for its column"))
    produce(world, b"a", b"b", b"c")

    world.start(into(sink))
    world.run_to_end("in")

    assert sink.values == [b"a", b"c"]
    assert letters_from(world) == [b"b"]
    assert headers_of(world, 0)["sw-reason"] == "poison"


def test_the_attempts_of_a_row_that_fails_for_now_are_its_own() -> None:
    world, sink = make_world(), FakeSink()
    sink.refuse(1, RetryableError("locked"), times=3)
    produce(world, b"a", b"b", b"c")

    member = world.start(into(sink))
    world.run_to_end("in")

    assert sink.values == [b"a", b"b", b"c"]
    assert [offset for _, offset, *_ in member.story.failures] == [1, 1, 1]


def test_a_handler_may_return_several_rows_or_none() -> None:
    class Splits(into(FakeSink())):  # type: ignore[misc]  # a class made for the test
        def handle(self, record: Record[bytes]) -> list[bytes] | None:
            return (record.value or b"").split() or None

    world, sink = make_world(), FakeSink()
    Splits.sink = sink
    produce(world, b"a b", b"", b"c")

    world.start(Splits)
    world.run_to_end("in")

    assert sink.values == [b"a", b"b", b"c"]


@pytest.mark.parametrize("size", [1, 2, 10])
def test_a_batch_returns_an_entry_for_each_record(size: int) -> None:
    class Stores(BatchHandler[bytes]):
        topics = ("in",)
        batch = Batch(max_records=size)
        sink = FakeSink()

        def handle(self, records: Records[bytes]) -> list[bytes | None]:
            return [None if value == b"nothing" else value for value in records.values()]

    world = make_world()
    produce(world, b"a", b"nothing", b"c")

    world.start(Stores)
    world.run_to_end("in")

    assert Stores.sink.values == [b"a", b"c"]


@pytest.mark.parametrize("returned", [[b"too few"], b"no list"])
def test_a_batch_handler_that_returns_something_else_stops_the_worker(returned: object) -> None:
    class Wrong(BatchHandler[bytes]):
        topics = ("in",)
        sink = FakeSink()

        def handle(self, records: Records[bytes]) -> object:
            return returned

    world = make_world()
    produce(world, b"a", b"b")

    member = world.start(Wrong)
    world.run(lambda: member.worker.stopping is not None)

    assert "return a list with an entry for each" in str(member.worker.stopping)
    assert world.stop(member) == ExitCode.FATAL
    assert Wrong.sink.values == []


def test_the_rows_before_a_record_that_a_batch_names_are_written() -> None:
    class Naming(BatchHandler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("dlq")
        sink = FakeSink()

        def handle(self, records: Records[bytes]) -> Sequence[bytes]:
            for index, record in enumerate(records):
                try:
                    obey(record)
                except PoisonError as error:
                    raise BatchFailed(index, error) from error
            return list(records.values())

    world = make_world()
    produce(world, b"a", b"b", b"poison", b"d")

    world.start(Naming)
    world.run_to_end("in")

    assert Naming.sink.values == [b"a", b"b", b"d"]
    assert letters_from(world) == [b"poison"]


def test_a_sink_handler_needs_no_code() -> None:
    class Copies(SinkHandler[bytes]):
        topics = ("in",)
        sink = FakeSink()

    world = make_world()
    produce(world, b"a", None, b"c")

    world.start(Copies)
    world.run_to_end("in")

    assert Copies.sink.values == [b"a", b"c"]


def test_what_an_async_handler_returns_is_written_too() -> None:
    class Stores(into(FakeSink())):  # type: ignore[misc]  # a class made for the test
        async def handle(self, record: Record[bytes]) -> bytes | None:
            obey(record)
            return record.value

    world, sink = make_world(), FakeSink()
    Stores.sink = sink
    sink.refuse(0, RetryableError("locked"))
    produce(world, b"a", b"poison", b"c")

    world.start(Stores)
    world.run_to_end("in")

    assert sink.values == [b"a", b"c"]
    assert letters_from(world) == [b"poison"]


def test_a_partition_whose_owner_another_has_followed_waits_and_writes_again_when_it_may() -> None:
    class Contested(FakeSink):
        lost = 1

        def write(self, place: Place, rows: Sequence[Row]) -> Written:
            if self.lost:
                self.lost -= 1
                raise OwnershipLost("another one writes")
            return super().write(place, rows)

    world, sink = make_world(), Contested()
    produce(world, b"a", b"b")

    member = world.start(into(sink, rules=(Rule.dead_letter(Exception),)))
    world.run_to_end("in")

    assert sink.values == [b"a", b"b"]
    assert [reason for _, reason, _ in member.story.stops] == ["ownership_lost"]
    assert letters_from(world) == []


def test_offsets_that_went_back_stop_the_partition_whatever_the_rules_say() -> None:
    class Rewound(FakeSink):
        def write(self, place: Place, rows: Sequence[Row]) -> Written:
            raise ForeignRewind("offset 0 comes again, and 900 was applied")

    world = make_world()
    produce(world, b"a")

    member = world.start(into(Rewound(), rules=(Rule.skip(Exception),)))
    world.run(lambda: bool(member.story.stops))

    assert [(reason, detail) for _, reason, detail in member.story.stops] == [
        ("foreign_rewind", "offset 0: ForeignRewind: offset 0 comes again, and 900 was applied")
    ]
    assert commits(world) == []


def test_a_write_knows_its_lane_and_the_records_that_it_passes_by() -> None:
    world, sink = make_world(), Seeing()
    for value, key in ((b"flaky:1", b"k"), (b"b", b"x"), (b"c", b"k"), (b"d", b"y")):
        produce(world, value, key=key)

    world.start(into(sink, ordering=Ordering.KEY, lanes=1))
    world.run_to_end("in")

    assert [(offsets, list(place.open_below)) for place, offsets in sink.writes] == [
        ([1, 3], [0, 2]),  # the second waits behind the first, which failed
        ([0], []),
        ([2], []),
    ]
    assert {(place.lanes, place.lane, place.partition) for place, _ in sink.writes} == {(1, 0, IN)}


def test_a_record_that_is_given_up_is_open_until_its_letter_is_acknowledged() -> None:
    """Otherwise a mark would count it as applied, and after a crash in between nobody would handle it."""
    world, sink = make_world(flow=FlowConfig(max_slice=1)), Seeing()
    world.broker.produce_latency_s = 10.0
    produce(world, b"poison", key=b"x")
    produce(world, b"b", b"c", key=b"y")
    member = world.start(into(sink, ordering=Ordering.KEY, lanes=1))
    world.run(lambda: len(sink.effects) == 2)
    before = [list(place.open_below) for place, _ in sink.writes]
    world.run(lambda: bool(letters_from(world)))
    produce(world, b"d", key=b"y")

    world.run_to_end("in")

    assert before == [[0], [0]]
    assert list(sink.writes[-1][0].open_below) == []
    assert member.story.count(Ending.DEAD_LETTERED) == 1


def test_what_is_rejected_in_the_middle_of_a_write_is_open() -> None:
    world, sink = make_world(flow=FlowConfig(sink_slice_s=1.0)), Seeing()
    produce(world, b"a", b"b", b"poison", b"d")

    world.start(into(sink))
    world.run_to_end("in")

    opened = {offset: list(place.open_below) for place, offsets in sink.writes for offset in offsets}
    assert opened[3] == [2]


def test_each_ownership_has_an_owner_of_its_own_and_says_from_where_it_began() -> None:
    world, sink = make_world(), Seeing()
    produce(world, b"a")
    first = world.start(into(sink))
    world.run_to_end("in")
    world.stop(first)
    produce(world, b"b")

    world.start(into(sink))
    world.run_to_end("in")

    (before, _), (after, _) = sink.writes
    assert before.owner != after.owner
    assert (before.done_below, after.done_below) == (0, 1)
    assert (before.foreign, after.foreign) == (True, False)  # nothing was committed, and then something of ours


def test_what_was_moved_back_is_asked_about_by_each_owner_until_somebody_says_what_is_meant() -> None:
    """The next owner found an offset of our own, took all that came again for repeats, and left it out unasked."""
    world, sink = make_world(), FakeSink(marks=True)
    produce(world, b"a", b"b", key=b"k")
    first = world.start(into(sink, ordering=Ordering.KEY))
    world.run_to_end("in")
    world.stop(first)
    world.broker.set_committed(IN, 0)

    reasons = []
    for end in (world.stop, world.kill):
        member = world.start(into(sink, ordering=Ordering.KEY))
        world.run(lambda member=member: bool(member.story.stops))
        world.run_for(2)
        reasons += [reason for _, reason, _ in member.story.stops]
        end(member)
    forgetful = FakeSink(marks=True)
    world.start(into(forgetful, ordering=Ordering.KEY))
    world.run_to_end("in")

    assert reasons == ["foreign_rewind", "foreign_rewind"]
    assert sink.values == forgetful.values == [b"a", b"b"]


def test_writers_are_closed_with_their_instances() -> None:
    world, sink = make_world(), FakeSink()
    produce(world, b"a")
    member = world.start(into(sink))
    world.run_to_end("in")

    world.stop(member)

    assert [writer.closed for writer in sink.writers] == [True]


def test_a_sink_that_fails_in_no_known_way_loses_nothing() -> None:
    class Broken(FakeSink):
        fails = 2

        def writer(self, context: SinkContext) -> FakeWriter:
            return super().writer(context)

        def write(self, place: Place, rows: Sequence[Row]) -> Written:
            if self.fails:
                self.fails -= 1
                raise RowFailed(len(rows) - 1, ValueError("out of luck"))
            return super().write(place, rows)

    world, sink = make_world(), Broken()
    produce(world, b"a")

    world.start(into(sink))
    world.run_to_end("in")

    assert sink.values == [b"a"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_middleware_that_keeps_what_is_to_be_written_stops_the_worker(*, is_async: bool) -> None:
    def keeps(call: Call) -> Call:
        def wrapped(argument: object) -> object:
            call(argument)
            return None

        async def awaited(argument: object) -> object:
            await call(argument)  # type: ignore[misc]  # of an async handle
            return None

        return awaited if is_async else wrapped

    class Awaiting(into(FakeSink())):  # type: ignore[misc]  # a class made for the test
        async def handle(self, record: Record[bytes]) -> bytes | None:
            return record.value

    world, sink = make_world(), FakeSink()
    produce(world, b"a")
    stores = Awaiting if is_async else into(sink)
    stores.sink, stores.middleware = sink, (keeps,)

    member = world.start(stores, recorded=False)
    world.run(lambda: member.worker.stopping is not None)

    assert "let it return what it wraps" in str(member.worker.stopping)
    assert commits(world) == []


def test_a_middleware_may_change_what_is_written_and_leave_it_out() -> None:
    def louder(call: Call) -> Call:
        def wrapped(argument: object) -> object:
            returned = call(argument)
            return returned.upper() if isinstance(returned, bytes) and returned != b"b" else []

        return wrapped

    world, sink = make_world(), FakeSink()
    produce(world, b"a", b"b", b"c")

    world.start(into(sink, middleware=(louder,)))
    world.run_to_end("in")

    assert sink.values == [b"A", b"C"]


class Collects(SinkHandler[bytes]):
    """Writes when ten records are there, or after an hour."""

    topics: ClassVar[Sequence[str]] = ("in",)
    batch: ClassVar[Batch] = Batch(max_records=10, max_wait_s=3600.0)


def test_what_a_batch_has_collected_is_written_when_its_partition_goes_to_another() -> None:
    world = make_world(partitions=2)
    Collects.sink = FakeSink()
    for partition in range(2):
        produce(world, b"a%d" % partition, b"b%d" % partition, partition=partition)
    world.start(Collects)
    world.run_for(60)
    before = list(Collects.sink.values)

    world.start(Collects)
    world.run(lambda: len(Collects.sink.values) == 2)

    assert before == []
    assert sorted(Collects.sink.values, key=str) in ([b"a0", b"b0"], [b"a1", b"b1"])


def test_what_a_batch_has_collected_is_dropped_when_its_partition_is_lost_and_the_next_owner_has_it() -> None:
    world = make_world()
    Collects.sink = FakeSink()
    produce(world, *(b"%d" % number for number in range(5)))
    first = world.start(Collects)
    world.run_for(60)
    world.kill(first)

    world.start(Collects)
    produce(world, *(b"%d" % number for number in range(5, 10)))
    world.run(lambda: bool(Collects.sink.values))

    assert Collects.sink.values == [b"%d" % number for number in range(10)]
