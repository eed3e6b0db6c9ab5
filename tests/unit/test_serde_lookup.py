from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from streamworker.errors import ConfigurationError, DecodeError, DependencyUnavailable
from streamworker.serde.avro import FramedAvro, parse
from streamworker.serde.lookup import CALLS_PER_S, LARGEST_ID, MAX_ENTRIES, UNKNOWN_FOR_S, SchemaLookup
from streamworker.serde.schemas import Reference, SchemaText

if TYPE_CHECKING:
    from collections.abc import Collection

ORDER = '{"type": "record", "name": "Order", "fields": [{"name": "qty", "type": "int"}]}'
WIDER = '{"type": "record", "name": "Order", "fields": [{"name": "qty", "type": "int"}, {"name": "x", "type": "int"}]}'
BOMB = '{"type": "array", "items": "null"}'


def framed(schema_id: int, datum: bytes = b"\x0e") -> bytes:
    return struct.pack(">bI", 0, schema_id) + datum


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0


class FakeStore:
    """A registry in memory that counts its calls and can be away."""

    origin = "the fake registry"

    def __init__(self, clock: FakeClock) -> None:
        self.calls: list[float] = []
        self.away = False
        self._clock = clock
        self._schemas: list[tuple[str, SchemaText]] = []

    def put(self, subject: str, text: str, *references: Reference, kind: str = "AVRO") -> int:
        self._schemas.append((subject, SchemaText(text, subject, kind, references)))
        return len(self._schemas)

    def _called(self) -> None:
        self.calls.append(self._clock.now_s)
        if self.away:
            raise DependencyUnavailable("away")

    def fetch(self, schema_id: int) -> SchemaText | None:
        self._called()
        return self._schemas[schema_id - 1][1] if 0 < schema_id <= len(self._schemas) else None

    def subjects(self, schema_id: int) -> Collection[str]:
        self._called()
        return [self._schemas[schema_id - 1][0]]

    def version(self, subject: str, version: int) -> SchemaText | None:
        self._called()
        return next((schema for name, schema in self._schemas if name == subject), None)

    def id_under(self, subject: str, schema: SchemaText) -> int | None:
        self._called()
        known = [(name, one.text) for name, one in self._schemas]
        return known.index((subject, schema.text)) + 1 if (subject, schema.text) in known else None

    def register(self, subject: str, schema: SchemaText) -> int:
        self._called()
        return self.put(subject, schema.text)


class World:
    def __init__(self, *, schema: str | None = None, subjects: tuple[str, ...] = ("{topic}-value",)) -> None:
        self.clock = FakeClock()
        self.store = FakeStore(self.clock)
        lookup = SchemaLookup(self.store, parse, subjects=subjects, clock=self.clock)
        self.serde: FramedAvro[object] = FramedAvro(
            lookup, schema=None if schema is None else SchemaText(schema, "order.avsc")
        )


def test_a_schema_is_asked_for_once() -> None:
    world = World()
    schema_id = world.store.put("orders-value", ORDER)

    values = [world.serde.decode(framed(schema_id), "orders") for _ in range(100)]

    assert values == [{"qty": 7}] * 100
    assert len(world.store.calls) == 2


def test_an_id_that_is_registered_elsewhere_is_a_decode_error_for_this_topic_only() -> None:
    world = World()
    schema_id = world.store.put("payments-value", ORDER)

    with pytest.raises(DecodeError, match="id 1 is not registered under orders-value"):
        world.serde.decode(framed(schema_id), "orders")

    assert world.serde.decode(framed(schema_id), "payments") == {"qty": 7}


def test_other_subjects_are_believed_if_they_are_named() -> None:
    world = World(subjects=("{topic}-key", "shared"))

    for subject in ("orders-key", "shared"):
        assert world.serde.decode(framed(world.store.put(subject, ORDER)), "orders") == {"qty": 7}


def test_an_unknown_id_is_a_decode_error_and_not_asked_for_again_until_it_might_be_known() -> None:
    world = World()
    for _ in range(50):
        with pytest.raises(DecodeError, match="id 1 is not known to the fake registry"):
            world.serde.decode(framed(1), "orders")
    calls_before = len(world.store.calls)
    world.store.put("orders-value", ORDER)

    world.clock.now_s += UNKNOWN_FOR_S

    assert calls_before == 1
    assert world.serde.decode(framed(1), "orders") == {"qty": 7}


def test_an_id_that_no_registry_gives_out_is_a_decode_error_without_asking() -> None:
    world = World()

    for schema_id in (LARGEST_ID + 1, 2**32 - 1):
        with pytest.raises(DecodeError, match=f"schema id {schema_id}: expected at most {LARGEST_ID}"):
            world.serde.decode(framed(schema_id), "orders")
    with pytest.raises(DecodeError, match=f"schema id {LARGEST_ID} is not known"):
        world.serde.decode(framed(LARGEST_ID), "orders")

    assert len(world.store.calls) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "expected 5 bytes"),
        (b"\0\0\0\0", "expected 5 bytes"),
        (b"\x01\0\0\0\x01\x0e", "first byte to be 0, got 1"),
        (b'{"qty": 7}', "first byte to be 0, got 123"),
        (framed(1, b""), "beyond byte 5 of 5"),
        (framed(1, b"\x0e\x0e"), "ends at byte 6 of 7"),
    ],
)
def test_bytes_in_another_format_are_a_decode_error(data: bytes, reason: str) -> None:
    world = World()
    world.store.put("orders-value", ORDER)

    with pytest.raises(DecodeError, match=reason):
        world.serde.decode(data, "orders")


@pytest.mark.parametrize(
    ("text", "kind"), [(BOMB, "AVRO"), ("{", "AVRO"), ("{}", "JSON"), ('syntax = "proto3";', "PROTOBUF")]
)
def test_a_registered_schema_that_cannot_be_read_safely_is_a_decode_error(text: str, kind: str) -> None:
    world = World()
    schema_id = world.store.put("orders-value", text, kind=kind)

    for _ in range(2):
        with pytest.raises(DecodeError, match="orders-value: "):
            world.serde.decode(framed(schema_id), "orders")

    assert len(world.store.calls) == 2


def test_while_the_registry_is_away_records_wait_and_known_schemas_are_read() -> None:
    world = World()
    known, unknown = world.store.put("orders-value", ORDER), world.store.put("orders-value", WIDER)
    world.serde.decode(framed(known), "orders")
    world.store.away = True

    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            world.serde.decode(framed(unknown, b"\x0e\x02"), "orders")

    assert world.serde.decode(framed(known), "orders") == {"qty": 7}
    world.store.away = False
    assert world.serde.decode(framed(unknown, b"\x0e\x02"), "orders") == {"qty": 7, "x": 1}


def test_random_ids_reach_the_registry_ten_times_a_second_at_most_and_all_end_as_decode_errors() -> None:
    world = World()
    rng = random.Random(7)
    waiting = [framed(rng.randrange(10_000, 2**32)) for _ in range(10_000)]
    refused = 0

    while waiting:
        world.clock.now_s += 0.09
        try:
            world.serde.decode(waiting[-1], "orders")
        except DecodeError:
            waiting.pop()
            refused += 1
        except DependencyUnavailable:
            continue

    calls = world.store.calls
    assert refused == 10_000
    assert all(later - first >= 1.0 for first, later in zip(calls, calls[CALLS_PER_S:], strict=False))


def test_the_memory_of_refusals_is_bounded() -> None:
    clock = FakeClock()
    lookup = SchemaLookup(FakeStore(clock), parse, subjects=("{topic}-value",), clock=clock)

    for schema_id in range(MAX_ENTRIES + 10):
        clock.now_s += 1.0
        with pytest.raises(DecodeError):
            lookup.schema(schema_id, "orders")

    assert len(lookup._refusals) == MAX_ENTRIES


def test_a_schema_that_names_others_is_read_with_them() -> None:
    world = World()
    world.store.put("money", '{"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "int"}]}')
    world.store.put(
        "line",
        '{"type": "record", "name": "Line", "fields": [{"name": "price", "type": "Money"}]}',
        Reference("money", 1),
    )
    schema_id = world.store.put(
        "orders-value",
        '{"type": "record", "name": "Two", "fields": [{"name": "a", "type": "Line"}, {"name": "b", "type": "Money"}]}',
        Reference("line", 1),
        Reference("money", 1),
    )

    value = world.serde.decode(framed(schema_id, b"\x02\x04"), "orders")

    assert value == {"a": {"price": {"cents": 1}}, "b": {"cents": 2}}


def test_schemas_that_name_each_other_or_nothing_are_a_decode_error() -> None:
    world = World()
    ring = world.store.put("orders-value", '{"type": "array", "items": "A"}', Reference("orders-value", 1))
    dangling = world.store.put("orders-value", ORDER, Reference("nowhere", 3))

    with pytest.raises(DecodeError):
        world.serde.decode(framed(ring), "orders")
    with pytest.raises(DecodeError, match="nowhere version 3, which does not exist"):
        world.serde.decode(framed(dangling), "orders")


def test_values_are_read_as_the_schema_that_was_given() -> None:
    world = World(schema=ORDER)
    schema_id = world.store.put("orders-value", WIDER)

    assert world.serde.decode(framed(schema_id, b"\x0e\x02"), "orders") == {"qty": 7}


def test_encoding_registers_the_schema_once_under_the_first_subject() -> None:
    world = World(schema=ORDER)

    first, second = world.serde.encode({"qty": 7}, "orders"), world.serde.encode({"qty": 8}, "orders")

    assert (first, second) == (framed(1), framed(1, b"\x10"))
    assert world.store.subjects(1) == ["orders-value"]


def test_subjects_must_be_a_sequence_of_names() -> None:
    for subjects in ("orders-value", ()):
        with pytest.raises(ConfigurationError, match="subjects"):
            SchemaLookup(FakeStore(FakeClock()), parse, subjects=subjects, clock=FakeClock())
