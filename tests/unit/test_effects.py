"""What the calls of a slice bring about is durable before the slice is done, in one order, and caches are told last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from streamworker import BatchHandler, DeadLetter, Handler, PoisonError
from streamworker.clock import SystemClock
from streamworker.declaration import declaration
from streamworker.errors import RowFailed
from streamworker.handler import Context
from streamworker.interfaces import Written
from streamworker.processing.effects import Effects, entries
from streamworker.processing.executor import SliceRunner
from streamworker.record import TopicPartition
from streamworker.tally import GONE
from streamworker.testing import FakeSink
from streamworker.testing.memory_broker import MemoryMessage
from streamworker.work import Ownership, Place, Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker import Record, Records
    from streamworker.interfaces import Row
    from streamworker.work import SliceOutcome

AT = TopicPartition("t", 0)


class Versioned(FakeSink):
    """Gives each row the version 100 + its offset; keeps the places of its writes, and what came before each."""

    def __init__(self, diary: list[str]) -> None:
        super().__init__()
        self.places: list[Place] = []
        self.fails: BaseException | None = None
        self._diary = diary

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        self._diary.append("write")
        self.places.append(place)
        if self.fails is not None:
            raise self.fails
        written = super().write(place, rows)
        return Written(written.repeated, written.superseded, {i: 100 + row.offset for i, row in enumerate(rows)})


@dataclass(eq=False)
class Told:
    """A cache that keeps what it is told."""

    diary: list[str]
    put: dict[object, tuple[object, int | None]] = field(default_factory=dict)
    dropped: list[object] = field(default_factory=list)

    def guards(self, keys: Sequence[object]) -> object:
        self.diary.append("guards")
        return tuple(keys)

    def written(self, changes: Mapping[object, tuple[object, int | None]], guards: object) -> None:
        assert isinstance(guards, tuple)
        assert set(changes) <= set(guards)
        self.diary.append("written")
        self.put.update(changes)

    def gone(self, keys: Sequence[object]) -> None:
        self.diary.append("gone")
        self.dropped += keys


class Rig:
    """A handler with a sink and a cache, and slices of values for it."""

    def __init__(self, handle: Callable[[Record[bytes]], object], *, batches: bool = False) -> None:
        self.diary: list[str] = []
        self.sink, self.cache = Versioned(self.diary), Told(self.diary)

        class One(Handler[bytes]):
            topics = ("t",)
            dead_letter = DeadLetter("dlq")
            sink = self.sink

            def handle(self, record: Record[bytes]) -> object:
                return handle(record)

        class Many(BatchHandler[bytes]):
            topics = ("t",)
            dead_letter = DeadLetter("dlq")
            sink = self.sink

            def handle(self, records: Records[bytes]) -> object:
                return [handle(record) for record in records]

        self.declared = declaration(Many if batches else One)
        context = Context(app={}, group="g", handler="h")
        self.in_hand = context.in_hand
        self._runner = SliceRunner(self.declared, clock=SystemClock(), max_record_bytes=1000, in_hand=self.in_hand)
        self._call = self.declared.make().handle
        self._effects = Effects(self.declared, context)

    def intend(self, key: object, value: object = GONE) -> None:
        """Mean to put `value` into the cache, or to drop what is there."""
        slice_ = self.in_hand.get()
        assert slice_ is not None
        assert slice_.tally is not None
        slice_.tally.intend(self.cache, key, value)

    def run(self, *values: bytes, owner: str = "me", open_below: Sequence[int] = ()) -> SliceOutcome[Slice]:
        """Handle a slice of these, from offset 10."""
        messages = [MemoryMessage(AT, 10 + index, key=b"k", value=value) for index, value in enumerate(values)]
        slice_ = Slice(0, Ownership(AT, 1), messages, 1)
        slice_.place = Place(
            group="g", partition=AT, lanes=1, lane=0, owner=owner, done_below=10, open_below=open_below
        )
        return self._runner.run(self._call, slice_, self._effects)  # type: ignore[arg-type]  # of either kind


def poisoned(record: Record[bytes]) -> object:
    if record.value == b"poison":
        raise PoisonError("bad")
    if record.value == b"broken":
        raise ValueError("worse")
    return record.value


def test_nothing_counts_before_the_write_and_what_is_rejected_on_the_way_is_open() -> None:
    seen: list[int] = []

    def handle(record: Record[bytes]) -> object:
        slice_ = rig.in_hand.get()
        assert slice_ is not None
        seen.append(slice_.done)
        return poisoned(record)

    rig = Rig(handle)

    outcome = rig.run(b"a", b"poison", b"c", b"poison", open_below=[3, 12])

    assert seen == [0, 0, 0, 0]
    assert outcome.slice.done == 4
    assert [index for index, _ in outcome.slice.rejected] == [1, 3]
    assert rig.sink.values == [b"a", b"c"]
    assert [list(place.open_below) for place in rig.sink.places] == [[3, 11]]  # nothing from the last row on


def test_a_call_that_fails_leaves_those_before_it_written() -> None:
    rig = Rig(poisoned)

    outcome = rig.run(b"a", b"b", b"broken", b"d")

    assert outcome.slice.done == 2
    assert outcome.failure is not None
    assert (outcome.failure.index, type(outcome.failure.error)) == (2, ValueError)
    assert rig.sink.values == [b"a", b"b"]


def test_a_row_that_fails_is_named_by_its_record_and_what_was_rejected_behind_it_comes_again() -> None:
    rig = Rig(poisoned)
    rig.sink.refuse(12, ValueError("too long"))

    outcome = rig.run(b"a", b"poison", b"c", b"poison", b"e")

    assert outcome.slice.done == 2
    assert outcome.failure is not None
    assert (outcome.failure.index, str(outcome.failure.error)) == (2, "too long")
    assert [index for index, _ in outcome.slice.rejected] == [1]


@pytest.mark.parametrize(("batches", "index", "done"), [(False, 1, 1), (True, None, 0)])
def test_a_sink_that_is_away_fails_the_first_of_a_slice_or_its_batch(
    *, batches: bool, index: int | None, done: int
) -> None:
    rig = Rig(lambda record: record.value if batches else poisoned(record), batches=batches)
    rig.sink.fails = ConnectionError("nobody there")

    outcome = rig.run(b"poison", b"b", b"c")

    assert outcome.slice.done == done
    assert outcome.failure is not None
    assert (outcome.failure.index, outcome.failure.error) == (index, rig.sink.fails)


def test_a_slice_whose_first_call_fails_writes_nothing() -> None:
    rig = Rig(poisoned)

    outcome = rig.run(b"broken")

    assert outcome.slice.done == 0
    assert rig.diary == []


def test_caches_are_guarded_before_the_write_and_told_after_it_once_for_each_key() -> None:
    def handle(record: Record[bytes]) -> object:
        rig.intend("k", record.value)
        rig.intend(record.offset)
        return record.value

    rig = Rig(handle)

    rig.run(b"a", b"b")

    assert rig.diary == ["guards", "write", "written", "gone"]
    assert rig.cache.put == {"k": (b"b", 111)}
    assert rig.cache.dropped == [10, 11]


def test_caches_drop_what_was_written_before_and_what_may_not_have_been_written() -> None:
    def handle(record: Record[bytes]) -> object:
        rig.intend("same", record.value)
        rig.intend(record.value, record.value)
        return record.value

    rig = Rig(handle)
    rig.run(b"a", b"b")
    rig.cache.put.clear()
    rig.sink.refuse(12, ValueError("too long"))

    rig.run(b"a", b"b", b"c")

    assert rig.cache.put == {}
    assert sorted(map(str, rig.cache.dropped)) == sorted(map(str, ["same", b"a", b"b", b"c"]))


def test_what_a_record_meant_to_do_that_failed_is_forgotten() -> None:
    def handle(record: Record[bytes]) -> object:
        rig.intend(record.value, record.value)
        return poisoned(record)

    rig = Rig(handle)

    rig.run(b"a", b"broken")

    assert rig.cache.put == {b"a": (b"a", 110)}
    assert rig.cache.dropped == []


def test_what_a_record_meant_to_do_that_was_rejected_is_forgotten_and_no_later_one_sees_it() -> None:
    seen: list[object] = []

    def handle(record: Record[bytes]) -> object:
        slice_ = rig.in_hand.get()
        assert slice_ is not None
        assert slice_.tally is not None
        seen.append(slice_.tally.intended(rig.cache, "k"))
        rig.intend("k", record.value)
        return poisoned(record)

    rig = Rig(handle)

    rig.run(b"poison", b"b")

    assert seen == [None, None]
    assert rig.cache.put == {"k": (b"b", 111)}


def test_a_write_of_unknown_fate_drops_what_it_would_have_changed() -> None:
    """The server may have committed it, and the handler may never be called with these records again."""

    def handle(record: Record[bytes]) -> object:
        rig.intend(record.value, record.value)
        return record.value

    rig = Rig(handle)
    rig.sink.fails = ConnectionError("the answer was lost")

    rig.run(b"a", b"b")

    assert rig.cache.put == {}
    assert rig.cache.dropped == [b"a", b"b"]


def test_a_batch_tells_what_it_put_without_a_version_and_drops_it_unless_all_of_it_was_written() -> None:
    def handle(record: Record[bytes]) -> object:
        rig.intend(record.value, record.value)
        return record.value

    rig = Rig(handle, batches=True)

    rig.run(b"a", b"b")
    whole = dict(rig.cache.put)
    rig.sink.refuse(11, ValueError("too long"))
    rig.cache.put.clear()
    rig.run(b"c", b"d")

    assert whole == {b"a": (b"a", None), b"b": (b"b", None)}
    assert rig.cache.put == {}
    assert rig.cache.dropped == [b"c", b"d"]


def test_rows_keep_where_their_record_came_from() -> None:
    rig = Rig(lambda record: [record.value, b"again"])

    rig.run(b"a", owner="w-1")

    (effect,) = rig.sink.effects
    assert effect.place.owner == "w-1"
    assert (effect.row.offset, tuple(effect.row.origin), effect.row.key) == (10, ("t", 0, 10), b"k")
    assert effect.row.values == (b"a", b"again")


def test_an_entry_is_asked_for_each_record() -> None:
    assert entries(None, [3, 5]) == {}
    assert entries(["a", None], [3, 5]) == {3: "a", 5: None}
    for wrong in (["a"], "ab", {"a": 1}):
        with pytest.raises(Exception, match="for a batch of 2"):
            entries(wrong, [3, 5])


def test_a_row_failed_by_an_index_without_more_says_enough() -> None:
    failed = RowFailed(1, ValueError("x"))

    assert (failed.index, str(failed)) == (1, "row 1 of the write failed: ValueError('x')")


@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize("how", ["given up", "ended"])
def test_what_a_slice_brings_when_nobody_waits_for_it_any_more_is_not_written(how: str, *, batches: bool) -> None:
    """It would come behind later records of its key, or take the partition from the owner that has followed."""

    def handle(record: Record[bytes]) -> object:
        slice_ = rig.in_hand.get()
        assert slice_ is not None
        rig.intend("k", record.value)
        if record.value == b"b" and how == "given up":
            slice_.given_up = True
        elif record.value == b"b":
            slice_.ownership.ended = True
        return record.value

    rig = Rig(handle, batches=batches)

    outcome = rig.run(b"a", b"b")

    assert outcome.slice.done == 0
    assert rig.sink.values == []
    assert rig.cache.put == {}
