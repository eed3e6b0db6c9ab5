"""What every database sink promises, over SQLite and PostgreSQL."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import pytest
from fleet.marked_partition import Partition
from servers.stores import AT, COLUMNS, Process, order, place, postgres_store, row, sqlite_store
from sizes import SOAK

from streamworker import Delete, PostgresSink, SqliteSink
from streamworker.errors import ConfigurationError, FatalError, ForeignRewind, OwnershipLost, RowFailed
from streamworker.interfaces import Written
from streamworker.record import Origin
from streamworker.sinks.fences import held_fence
from streamworker.sinks.marks import lane_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from servers.stores import Store

    from streamworker.interfaces import Row, Writer
    from streamworker.sinks.sql import SqlSink
    from streamworker.work import Place

IN_ORDER = {SqliteSink: "SELECT id FROM orders ORDER BY rowid", PostgresSink: "SELECT id FROM orders ORDER BY ctid"}
PAST = Origin("orders", 3, 2)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        yield sqlite_store(tmp_path)
        return
    with postgres_store(request.getfixturevalue("postgres"), "sink_contract") as one:
        yield one


@pytest.fixture
def writers(store: Store) -> Iterator[Writers]:
    made = Writers(store)
    yield made
    made.close()


class Writers:
    """Writers of any number of processes; all are closed at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: list[Writer] = []

    def of(self, sink: SqlSink, process: Process | None = None) -> Writer:
        writer = sink.writer(process or Process(self._store.url))
        self._made.append(writer)
        return writer

    def close(self) -> None:
        for writer in self._made:
            writer.close()


def orders(store: Store) -> list[tuple[object, ...]]:
    return store.ask("SELECT id, qty, note FROM orders ORDER BY id")


def marks(store: Store) -> list[tuple[object, ...]]:
    return store.ask("SELECT lanes, lane, next_offset, holes FROM sw_applied WHERE lanes > 0 ORDER BY lanes, lane")


def gone(key: int) -> Delete:
    """What a handler returns to have a row removed."""
    return Delete({"id": key})


def test_rows_are_written_with_the_mark_of_their_lane(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink())

    written = writer.write(place(), [row(4, order(1, 10)), row(5), row(9, order(2, 20), order(3, 30))])

    assert written == Written()
    assert orders(store) == [(1, 10, ""), (2, 20, ""), (3, 30, "")]
    assert marks(store) == [(1, 0, 10, "")]


def test_nothing_to_write_is_written(store: Store, writers: Writers) -> None:
    assert writers.of(store.sink()).write(place(), []) == Written()


@pytest.mark.parametrize("mode", ["upsert", "insert"])
def test_what_comes_again_has_no_second_effect(store: Store, writers: Writers, mode: str) -> None:
    sink = store.sink(mode=mode)
    writers.of(sink).write(place(), [row(0, order(1, 1)), row(1, order(2, 1))])
    store.ask("UPDATE orders SET note = 'by another'")

    again = writers.of(sink).write(place("second"), [row(0, order(1, 1)), row(1, order(2, 1)), row(2, order(3, 1))])

    assert again == Written(repeated=(0, 1))
    assert orders(store) == [(1, 1, "by another"), (2, 1, "by another"), (3, 1, "")]


def test_a_row_is_changed_by_the_columns_that_are_given(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink())
    writer.write(place(), [row(0, order(1, 1, "kept")), row(1, order(2, 2, "kept"))])

    writer.write(place(), [row(2, {"id": 1, "qty": 9}), row(3, {"qty": 8, "id": 2}), row(4, {"id": 2})])

    assert orders(store) == [(1, 9, "kept"), (2, 2, "kept")]


def test_of_several_changes_of_a_row_the_last_stays(store: Store, writers: Writers) -> None:
    changes = [
        row(0, order(1, 1)),
        row(1, gone(1)),
        row(2, order(1, 2)),
        row(3, order(2, 5)),
        row(4, gone(2)),
    ]

    written = writers.of(store.sink()).write(place(), changes)

    assert written == Written()
    assert orders(store) == [(1, 2, "")]


def test_every_change_of_a_row_is_made_where_none_may_be_left_out(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(coalesce=False, version=True))

    written = writer.write(place(), [row(0, order(1, 1)), row(1, order(1, 2)), row(2, order(1, 3))])

    assert orders(store) == [(1, 3, "")]
    assert list(written.versions) == [0, 1, 2]
    assert written.versions[2] == written.versions[0] + 2


def test_a_row_is_deleted_and_deleting_it_again_does_nothing(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink())
    writer.write(place(), [row(0, order(1, 1)), row(1, order(2, 2)), row(2, order(3, 3))])

    written = writer.write(
        place(),
        [row(3, gone(1)), row(4, gone(7)), row(5, gone(2)), row(6, gone(1))],
    )

    assert written == Written()
    assert orders(store) == [(3, 3, "")]


@pytest.mark.parametrize(
    ("guard", "mode"),
    [("mark", "upsert"), ("mark", "insert"), ("row", "upsert"), (None, "upsert"), (None, "insert")],
)
def test_a_row_that_is_refused_is_named_and_those_before_it_are_kept(
    store: Store, writers: Writers, guard: str | None, mode: str
) -> None:
    columns = {**COLUMNS, "qty": "integer CHECK (qty > 0)"}
    writer = writers.of(store.sink(guard=guard, mode=mode, columns=columns))
    rows = [row(0, order(1, 1)), row(1), row(2, order(2, 2), order(3, 0)), row(3, order(4, 4))]

    with pytest.raises(RowFailed) as failed:
        writer.write(place(), rows)

    assert failed.value.index == 2
    assert "constraint" in str(failed.value.cause).lower()
    assert failed.value.written == Written()
    assert orders(store) == [(1, 1, "")]
    if guard == "mark":
        assert marks(store) == [(1, 0, 2, "")]


def test_what_follows_a_refused_row_is_written_later_and_leaves_it_open(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(columns={**COLUMNS, "qty": "integer CHECK (qty > 0)"}))
    with pytest.raises(RowFailed):
        writer.write(place(), [row(0, order(1, 0)), row(1, order(2, 2))])

    writer.write(place(open_below=(0,)), [row(1, order(2, 2))])
    between = marks(store)
    written = writer.write(place(), [row(0, order(1, 1))])

    assert between == [(1, 0, 2, "0")]
    assert written == Written()
    assert orders(store) == [(1, 1, ""), (2, 2, "")]
    assert marks(store) == [(1, 0, 2, "")]


def test_nothing_is_kept_if_the_first_row_is_refused(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(columns={**COLUMNS, "qty": "integer CHECK (qty > 0)"}))

    with pytest.raises(RowFailed) as failed:
        writer.write(place(), [row(0, order(1, 0)), row(1, order(2, 2))])

    assert failed.value.index == 0
    assert (orders(store), marks(store)) == ([], [])


def test_repeats_before_a_refused_row_are_told_with_it(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(columns={**COLUMNS, "qty": "integer CHECK (qty > 0)"}))
    writer.write(place(), [row(0, order(1, 1))])

    with pytest.raises(RowFailed) as failed:
        writer.write(place(), [row(0, order(1, 1)), row(1, order(2, 2)), row(2, order(3, 0))])

    assert failed.value.written == Written(repeated=(0,))
    assert marks(store) == [(1, 0, 2, "")]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("order 1", "expected a mapping, a Struct, a dataclass or a Delete"),
        ({"qty": 1}, "there is no id"),
        ({"id": 1, "a b": 1}, "cannot be a column"),
        ({"id": 1, 'x" = 1; --': 1}, "cannot be a column"),
        ({"id": 1, "sw_version": 7}, "cannot be a column"),
        ({"id": [1]}, "unhashable"),
        (Delete({"nope": 1}), "there is no id, which is the key of"),
        ({"id": 1, "qty": object()}, "row 2"),
        ({"id": 1, "qty": {"a": object()}}, "row 2"),
        ({"id": 1, "nope": 1}, "nope"),
        ({"id": 2**70}, "row 2"),
        ({"id": None}, "row 2"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_row_is_refused_by_its_index(store: Store, writers: Writers, value: object, what: str) -> None:
    columns = {"id": "bigint NOT NULL", "qty": "integer", "note": "text"}
    writer = writers.of(store.sink(columns=columns))

    with pytest.raises(RowFailed, match=re.escape(what)) as failed:
        writer.write(place(), [row(0, order(1, 1)), row(1, order(2, 2)), row(2, value), row(3, order(4, 4))])

    assert failed.value.index == 2
    assert orders(store) == [(1, 1, ""), (2, 2, "")]


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (None, {"guard": None}),
        (None, {"guard": "mark"}),
        ("id bigint PRIMARY KEY, qty integer, note text", {"guard": "mark"}),
        ("id bigint PRIMARY KEY, qty integer, note text", {"guard": "row"}),
        ("id bigint PRIMARY KEY, qty integer, note text", {"guard": None, "version": True}),
        ("id bigint, qty integer, note text", {"guard": None}),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_lacking_for_all_rows_is_no_records_fault_and_stops_the_worker(
    store: Store, writers: Writers, table: str | None, options: dict[str, object], count: int
) -> None:
    if table is not None:
        store.ask(f"CREATE TABLE orders ({table})")
    writer = writers.of(store.kind("store", table="orders", key=("id",), **options))  # type: ignore[arg-type]

    with pytest.raises(FatalError, match="streamworker sinks check"):
        writer.write(place(), [row(n, order(n, 1)) for n in range(count)])


def test_structs_and_dataclasses_are_rows_and_what_is_nested_is_json(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink())

    writer.write(place(), [row(0, Order(1, 5, {"a": [1]})), row(1, Sale(2, 6, Size.LARGE)), row(2, order(3, 1, "x"))])

    found = orders(store)
    assert json.loads(str(found[0][2])) == {"a": [1]}
    assert found[1:] == [(2, 6, "large"), (3, 1, "x")]


class Size(enum.Enum):
    LARGE = "large"


class Order(msgspec.Struct):
    id: int
    qty: int
    note: object


@dataclasses.dataclass
class Sale:
    id: int
    qty: int
    note: object


def test_values_of_common_types_are_taken(store: Store, writers: Writers) -> None:
    numeric = "numeric" if store.kind is PostgresSink else "text"
    writer = writers.of(
        store.sink(
            table="things", columns={"id": "text", "at": "text", "price": numeric, "raw": store.kind.dialect().text}
        )
    )
    when = datetime(2031, 5, 1, 6, tzinfo=UTC)
    ids = [str(UUID(int=number)) for number in range(3)]

    writer.write(
        place(),
        [
            row(n, {"id": UUID(one), "at": when.isoformat(), "price": Decimal("1.10"), "raw": None})
            for n, one in enumerate(ids)
        ],
    )

    assert [str(one) for (one,) in store.ask("SELECT price FROM things")] == ["1.10"] * 3
    assert [one for (one,) in store.ask("SELECT id FROM things ORDER BY id")] == ids


def test_each_change_of_a_row_has_a_higher_version_also_after_it_was_gone(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(version=True))
    versions = []
    for offset, value in enumerate([order(1, 1), order(1, 2), order(1, 3), gone(1), order(1, 4)]):
        written = writer.write(place(), [row(offset, value)])
        versions += written.versions.values()

    assert len(versions) == 4
    assert versions == sorted(set(versions))
    assert versions[1] == versions[0] + 1
    assert store.ask("SELECT sw_version FROM orders") == [(versions[-1],)]


def test_versions_are_told_of_the_rows_that_were_written_in_one_go(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(version=True))

    written = writer.write(place(), [row(n, order(n % 4, n)) for n in range(6)])

    assert sorted(written.versions) == [2, 3, 4, 5]
    assert sorted(store.ask("SELECT qty, sw_version FROM orders")) == [(n, written.versions[n]) for n in (2, 3, 4, 5)]


def test_the_row_guard_lets_no_earlier_record_change_a_row(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(guard="row"))
    writer.write(place(), [row(n, order(n, 1)) for n in range(5, 8)])

    replayed = [row(900, order(5, 9), origin=PAST), row(901, order(6, 9), origin=Origin("orders", 3, 6))]
    written = writer.write(place(), [*replayed, row(902, order(8, 1), origin=PAST)])
    alone = [writer.write(place(), [one]) for one in replayed]

    assert written == Written(repeated=(1,), superseded=(0,))
    assert alone == [Written(superseded=(0,)), Written(repeated=(0,))]
    assert orders(store) == [(5, 1, ""), (6, 1, ""), (7, 1, ""), (8, 1, "")]


def test_the_row_guard_takes_later_records_and_those_of_other_partitions(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(guard="row", version=True))
    writer.write(place(), [row(n, order(n, 1)) for n in range(5, 8)])

    later = [Origin("orders", 3, 8), Origin("orders", 2, 0), Origin("others", 3, 0)]
    written = writer.write(place(), [row(20 + n, order(5 + n, 2), origin=one) for n, one in enumerate(later)])

    assert (written.repeated, written.superseded, sorted(written.versions)) == ((), (), [0, 1, 2])
    assert orders(store) == [(5, 2, ""), (6, 2, ""), (7, 2, "")]


def test_the_row_guard_lets_no_earlier_record_delete_a_row(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(guard="row"))
    writer.write(place(), [row(5, order(5, 1)), row(6, order(6, 1))])

    written = writer.write(place(), [row(9, gone(5), origin=PAST), row(10, gone(6)), row(11, gone(7))])

    assert written == Written(superseded=(0,))
    assert orders(store) == [(5, 1, "")]


def test_rows_from_before_the_row_guard_are_changed(store: Store, writers: Writers) -> None:
    store.ask("CREATE TABLE orders (id bigint PRIMARY KEY, qty integer, note text)")
    store.ask("INSERT INTO orders VALUES (1, 1, ''), (2, 1, ''), (3, 1, '')")
    sink = store.sink(guard="row", version=True, columns={})

    written = writers.of(sink).write(place(), [row(0, order(1, 2)), row(1, order(2, 2)), row(2, gone(3))])

    assert written.versions == {0: 1, 1: 1}
    assert orders(store) == [(1, 2, ""), (2, 2, "")]


def test_without_a_guard_what_comes_again_is_written_again(store: Store, writers: Writers) -> None:
    writer = writers.of(store.sink(guard=None))

    found = [writer.write(place(), [row(0, order(1, qty))]) for qty in (1, 2)]

    assert found == [Written(), Written()]
    assert orders(store) == [(1, 2, "")]


def test_an_owner_that_was_replaced_writes_nothing(store: Store, writers: Writers) -> None:
    sink = store.sink()
    first, second = writers.of(sink), writers.of(sink)
    first.write(place("first"), [row(0, order(1, 1))])
    second.write(place("second"), [row(1, order(2, 2))])

    with pytest.raises(OwnershipLost, match=r"orders\[3\]"):
        first.write(place("first"), [row(1, order(2, 9)), row(2, order(3, 9))])

    assert orders(store) == [(1, 1, ""), (2, 2, "")]


def test_an_owner_that_was_replaced_begins_no_lane_under_another_count(store: Store, writers: Writers) -> None:
    sink = store.sink()
    first, second = writers.of(sink), writers.of(sink)
    first.write(place("first", lanes=2, lane=lane_of(b"a", 0, 2)), [row(0, order(1, 1), key=b"a")])
    other = next(key for key in (b"b", b"c", b"d", b"e") if lane_of(key, 0, 2) != lane_of(b"a", 0, 2))
    second.write(place("second", lanes=3, lane=lane_of(b"a", 0, 3)), [row(0, order(1, 1), key=b"a")])

    with pytest.raises(OwnershipLost):
        first.write(place("first", lanes=2, lane=lane_of(other, 0, 2)), [row(1, order(2, 2), key=other)])

    assert orders(store) == [(1, 1, "")]


def test_an_owner_that_comes_back_takes_over_and_repeats_nothing(store: Store, writers: Writers) -> None:
    sink = store.sink()
    first, second = writers.of(sink), writers.of(sink)
    first.write(place("first"), [row(0, order(1, 1))])
    second.write(place("second"), [row(1, order(2, 2))])
    with pytest.raises(OwnershipLost):
        first.write(place("first"), [row(1, order(2, 9))])

    written = first.write(place("first"), [row(1, order(2, 9)), row(2, order(3, 3))])

    assert written == Written(repeated=(0,))
    assert orders(store) == [(1, 1, ""), (2, 2, ""), (3, 3, "")]


def test_processes_of_one_owner_share_the_marks(store: Store, writers: Writers) -> None:
    sink = store.sink()
    one, sibling = writers.of(sink), writers.of(sink)
    one.write(place(), [row(0, order(1, 1))])

    written = [
        sibling.write(place(), [row(0, order(1, 9)), row(1, order(2, 2))]),
        one.write(place(), [row(1, order(2, 9)), row(2, order(3, 3))]),
        sibling.write(place(lanes=2, lane=lane_of(b"k", 3, 2)), [row(3, order(4, 4))]),
    ]

    assert written == [Written(repeated=(0,)), Written(repeated=(0,)), Written()]
    assert orders(store) == [(n, n, "") for n in range(1, 5)]


def test_threads_of_one_process_share_what_they_know(store: Store, writers: Writers) -> None:
    sink, process = store.sink(), Process(store.url)
    one, other = writers.of(sink, process), writers.of(sink, process)
    one.write(place(), [row(0, order(1, 1))])

    written = other.write(place(), [row(0, order(1, 9)), row(1, order(2, 2))])

    assert written == Written(repeated=(0,))


def test_threads_write_their_lanes_side_by_side(store: Store, writers: Writers) -> None:
    sink, process = store.sink(mode="insert", key=()), Process(store.url)
    keys = [b"%d" % number for number in range(200)]

    def write_lane(lane: int) -> None:
        writer = writers.of(sink, process)
        mine = [row(n, order(n, 1), key=key) for n, key in enumerate(keys) if lane_of(key, n, 4) == lane]
        for at in range(0, len(mine), 5):
            writer.write(place(lanes=4, lane=lane), mine[at : at + 5])

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write_lane, lane) for lane in range(4)]:
            done.result()

    assert [one[0] for one in orders(store)] == list(range(200))
    assert len(marks(store)) == 4


@pytest.mark.parametrize("seed", range(4 * SOAK))
def test_each_record_has_its_effect_once_and_in_order_whatever_happens(
    store: Store, writers: Writers, seed: int
) -> None:
    sink = store.sink(mode="insert", key=(), columns={"id": "bigint"})
    of_owner: dict[str, Writer] = {}

    def apply(where: Place, rows: Sequence[Row]) -> bool:
        writer = of_owner.get(where.owner) or of_owner.setdefault(where.owner, writers.of(sink))
        try:
            writer.write(where, rows)
        except OwnershipLost:
            return False
        return True

    Partition(Random(seed), apply, lambda: [int(str(one)) for (one,) in store.ask(IN_ORDER[store.kind])]).run(steps=150)


def test_what_was_applied_under_another_number_of_lanes_is_not_applied_again(store: Store, writers: Writers) -> None:
    sink = store.sink()
    keys = [bytes([number]) for number in range(20)]
    first = writers.of(sink)
    for lane in range(4):
        mine = [row(n, order(n, 1), key=key) for n, key in enumerate(keys) if lane_of(key, n, 4) == lane]
        first.write(place("first", lanes=4, lane=lane, open_below=(mine[0].offset,)), mine[1:])
    left = set(range(20)) - {number for (number,) in store.ask("SELECT id FROM orders")}
    store.ask("UPDATE orders SET note = 'first'")

    second = writers.of(sink)
    for lane in range(3):
        mine = [row(n, order(n, 2), key=key) for n, key in enumerate(keys) if lane_of(key, n, 3) == lane]
        second.write(place("second", lanes=3, lane=lane), mine)

    assert len(left) == 4
    assert {number for number, note in store.ask("SELECT id, note FROM orders") if note == ""} == left
    assert len(orders(store)) == 20


def test_marks_of_another_number_of_lanes_go_once_all_below_them_is_done(store: Store, writers: Writers) -> None:
    sink = store.sink()
    writers.of(sink).write(place("first", lanes=1), [row(n, order(n, 1)) for n in range(10)])
    second = writers.of(sink)

    second.write(place("second", lanes=2, lane=lane_of(b"k", 0, 2)), [row(10, order(10, 1))])
    before = marks(store)
    second.write(place("second", lanes=2, lane=lane_of(b"k", 0, 2), done_below=10), [row(11, order(11, 1))])

    assert [one[0] for one in before] == [1, 2]
    assert [one[0] for one in marks(store)] == [2]


def test_a_null_key_has_the_lane_of_its_offset(store: Store, writers: Writers) -> None:
    sink = store.sink()
    first = writers.of(sink)
    for lane in range(4):
        mine = [row(n, order(n, 1), key=None) for n in range(12) if lane_of(None, n, 4) == lane]
        first.write(place("first", lanes=4, lane=lane), mine)

    written = writers.of(sink).write(place("second"), [row(n, order(n, 9), key=None) for n in range(13)])

    assert written == Written(repeated=tuple(range(12)))


def test_records_that_come_again_from_far_before_stop_the_partition(store: Store, writers: Writers) -> None:
    sink = store.sink()
    writers.of(sink).write(place("first", done_below=90), [row(n, order(n, 1)) for n in (0, 99)])

    again = writers.of(sink)

    with pytest.raises(ForeignRewind, match=r"orders\[3\]@0"):
        again.write(place("second", max_uncommitted=50), [row(0, order(0, 2))])
    assert again.write(place("second", max_uncommitted=50), [row(99, order(99, 2))]) == Written(repeated=(0,))
    assert orders(store) == [(0, 1, ""), (99, 1, "")]


def test_a_repeat_at_an_offset_that_somebody_else_has_set_is_a_rewind(store: Store, writers: Writers) -> None:
    sink = store.sink()
    writers.of(sink).write(place("first"), [row(0, order(0, 1))])
    again = writers.of(sink)

    with pytest.raises(ForeignRewind):
        again.write(place("second", foreign=True), [row(0, order(0, 2))])


def test_what_an_owner_has_written_itself_is_no_rewind(store: Store, writers: Writers) -> None:
    sink = store.sink()
    one, sibling = writers.of(sink), writers.of(sink)
    one.write(place(foreign=True), [row(0, order(0, 1))])

    written = [writer.write(place(foreign=True), [row(0, order(0, 2))]) for writer in (one, sibling)]

    assert written == [Written(repeated=(0,))] * 2


def test_a_rewind_may_be_applied_and_then_repeats_nothing(store: Store, writers: Writers) -> None:
    sink = store.sink(on_rewind="apply")
    first = writers.of(sink)
    first.write(place("first", lanes=2, lane=0, done_below=80), [row(99, order(1, 1), key=b"a")])
    first.write(place("first", lanes=2, lane=1, done_below=80), [row(98, order(2, 1), key=b"b")])

    second = writers.of(sink)
    found = [
        second.write(place("second", lanes=2, lane=0, done_below=20, foreign=True), [row(20, order(1, 2), key=b"a")]),
        second.write(place("second", lanes=2, lane=1, done_below=20, foreign=True), [row(21, order(2, 2), key=b"b")]),
        second.write(place("second", lanes=2, lane=0, done_below=20, foreign=True), [row(20, order(1, 3), key=b"a")]),
    ]

    assert found == [Written(), Written(), Written(repeated=(0,))]
    assert orders(store) == [(1, 2, ""), (2, 2, "")]


def test_a_rewind_may_be_left_out(store: Store, writers: Writers) -> None:
    sink = store.sink(on_rewind="skip")
    writers.of(sink).write(place("first"), [row(99, order(1, 1))])

    written = writers.of(sink).write(place("second", foreign=True), [row(20, order(1, 2)), row(100, order(2, 2))])

    assert written == Written(repeated=(0,))
    assert orders(store) == [(1, 1, ""), (2, 2, "")]


def test_marks_that_were_reset_let_everything_be_applied_again_by_a_living_owner_too(
    store: Store, writers: Writers
) -> None:
    sink = store.sink()
    writer = writers.of(sink)
    writer.write(place(), [row(0, order(1, 1)), row(1, order(2, 1))])

    sink.reset_marks(store.url, "shop", [AT])

    with pytest.raises(OwnershipLost):
        writer.write(place(), [row(2, order(3, 1))])
    assert writer.write(place(), [row(0, order(1, 2)), row(2, order(3, 2))]) == Written()
    assert orders(store) == [(1, 2, ""), (2, 1, ""), (3, 2, "")]


def test_only_the_latest_holder_of_a_fence_writes(store: Store, writers: Writers) -> None:
    sink = store.sink(guard=None, fence="leader")
    old, new = Process(store.url), Process(store.url)
    first, second = writers.of(sink, old), writers.of(sink, new)
    held_fence(old, "leader").hold(1, "a")
    first.write(place(), [row(0, order(1, 1))])

    held_fence(new, "leader").hold(2, "b")
    second.write(place(), [row(0, order(1, 2))])

    with pytest.raises(OwnershipLost, match="leader"):
        first.write(place(), [row(1, order(1, 9))])
    assert orders(store) == [(1, 2, "")]


def test_of_two_holders_with_one_number_the_first_to_write_wins(store: Store, writers: Writers) -> None:
    sink = store.sink(fence="leader")
    one, other = Process(store.url), Process(store.url)
    first, second = writers.of(sink, one), writers.of(sink, other)
    held_fence(one, "leader").hold(7, "a")
    held_fence(other, "leader").hold(7, "b")

    first.write(place("first"), [row(0, order(1, 1))])

    with pytest.raises(OwnershipLost):
        second.write(place("second"), [row(0, order(1, 2))])
    held_fence(one, "leader").release()
    with pytest.raises(OwnershipLost, match="does not hold it"):
        first.write(place("third"), [row(0, order(1, 2))])
    assert orders(store) == [(1, 1, "")]


def test_what_it_needs_is_made_and_then_nothing_is_lacking(store: Store) -> None:
    sink = store.kind("store", table="orders", key=("id",), columns=COLUMNS, guard="mark", version=True, fence="leader")

    lacking = sink.lacks(store.url)
    sink.make(store.url, [one.mend for one in lacking if one.mend is not None])

    assert [one.what for one in lacking] == ["table sw_applied", "table sw_fence", "table orders"]
    assert sink.lacks(store.url) == []


def test_what_is_lacking_in_a_table_is_named(store: Store) -> None:
    store.ask("CREATE TABLE orders (id bigint, qty integer)")
    sink = store.kind("store", table="orders", key=("id", "shop"), guard="row", version=True)

    lacking = {one.what: one.mend for one in sink.lacks(store.url)}

    own = {f"column orders.{name}" for name in ("src_topic", "src_part", "src_off", "sw_version")}
    assert set(lacking) == own | {"column orders.shop", "unique key (id, shop) of orders"}
    assert {what for what, mend in lacking.items() if mend is None} == set(lacking) - own


def test_a_missing_unique_key_can_be_made(store: Store, writers: Writers) -> None:
    store.ask("CREATE TABLE orders (id bigint, qty integer, note text)")
    sink = store.kind("store", table="orders", key=("id",))
    sink.make(store.url, [one.mend for one in sink.lacks(store.url) if one.mend is not None])

    writers.of(sink).write(place(), [row(0, order(1, 1)), row(1, order(1, 2))])

    assert sink.lacks(store.url) == []
    assert orders(store) == [(1, 2, "")]


def test_the_marks_of_a_group_are_told(store: Store, writers: Writers) -> None:
    sink = store.sink()
    writers.of(sink).write(place("first", lanes=2, lane=1, open_below=(5, 6)), [row(4), row(7)])

    found = sink.marks(store.url, "shop")

    assert [(one.partition, one.lane, one.next_offset, one.holes, one.owner) for one in found] == [
        (AT, (2, 1), 8, (5, 6), "first")
    ]
    assert sink.marks(store.url, "another") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "id"}, "did you mean ('id',)?"),
        ({"key": ()}, "mode='upsert' needs the columns"),
        ({"mode": "upser"}, "did you mean 'upsert'?"),
        ({"guard": "rows"}, "did you mean 'row'?"),
        ({"on_rewind": "skipp"}, "did you mean 'skip'?"),
        ({"table": "orders; DROP"}, "table: expected letters"),
        ({"table": "a.b.c"}, "table: expected letters"),
        ({"key": ('i"d',)}, "key: expected letters"),
        ({"key": ("src_off",)}, "the sink's own"),
        ({"columns": {"idd": "bigint"}}, "did you mean 'idd'?"),
        ({"mode": "insert", "guard": "row"}, "guard='row'"),
        ({"mode": "insert", "version": True}, "version=True"),
        ({"guard": "row", "coalesce": False}, "coalesce=True"),
    ],
)
@pytest.mark.parametrize("kind", [SqliteSink, PostgresSink])
def test_what_cannot_work_is_refused_where_it_is_declared(
    kind: type[SqlSink], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as refused:
        kind("store", **{"table": "orders", "key": ("id",), **options})  # type: ignore[arg-type]

    assert kind.__name__ in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (SqliteSink, "postgresql://here/db"),
        (SqliteSink, "sqlite://path"),
        (SqliteSink, "sqlite:///"),
        (PostgresSink, "sqlite:///x"),
        (PostgresSink, "postgresql://here/db?no_such=1"),
    ],
)
def test_a_url_that_is_none_of_it_is_refused(kind: type[SqlSink], url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sinks\.store: "):
        kind("store", table="orders", key=("id",)).writer(Process(url))


def test_a_password_is_not_told_with_the_error_about_its_url() -> None:
    url = "postgresql://shop:se%ZZcret@here/db"

    with pytest.raises(ConfigurationError) as refused:
        PostgresSink("store", table="orders", key=("id",)).writer(Process(url))

    assert "cret" not in str(refused.value)


def test_without_its_driver_a_sink_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(ConfigurationError, match=r"sinks\.store: needs psycopg; install streamworker\[postgres\]"):
        PostgresSink("store", table="orders", key=("id",)).writer(Process("postgresql://here/db"))
