from __future__ import annotations

import contextlib
import io
import time
import tracemalloc
from pathlib import Path

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError, DecodeError
from streamworker.serde import Avro
from streamworker.serde.avro import parse
from streamworker.serde.schemas import MAX_LEVELS, SchemaText, load

MIB = 2**20
FLIGHT = Path(__file__).parents[2] / "schemas" / "flight.avsc"
ROW = {
    "year": 2013,
    "month": 1,
    "day": 1,
    "dep_time": 517.0,
    "sched_dep_time": 515,
    "dep_delay": 2.0,
    "arr_time": None,
    "sched_arr_time": 819,
    "arr_delay": None,
    "carrier": "UA",
    "flight": 1545,
    "tailnum": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "air_time": None,
    "distance": 1400.0,
    "hour": 5,
    "minute": 15,
    "time_hour": "2013-01-01T05:00:00Z",
}
ORDER = """{"type": "record", "name": "Order", "fields": [
    {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
        {"name": "sku", "type": "string"}, {"name": "pieces", "type": "long"}]}}},
    {"name": "tags", "type": {"type": "map", "values": "bytes"}},
    {"name": "when", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
    {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED"]}}]}"""


class Flight(msgspec.Struct):
    carrier: str
    flight: int
    dep_time: float | None
    tailnum: str | None


class Untagged(msgspec.Struct):
    either: Flight | Misread


class Misread(msgspec.Struct):
    carrier: int


def _written(text: str) -> SchemaText:
    return SchemaText(text, "order.avsc")


@pytest.fixture
def order(tmp_path: Path) -> Avro[object]:
    file = tmp_path / "order.avsc"
    file.write_text(ORDER)
    return Avro(file)


def test_a_row_of_the_flights_is_read_as_a_dict_or_as_a_struct() -> None:
    data = Avro(FLIGHT).encode(ROW, "flights")

    assert Avro(FLIGHT).decode(data, "flights") == ROW
    assert Avro(FLIGHT, into=Flight).decode(data, "flights") == Flight("UA", 1545, 517.0, "N14228")


def test_what_does_not_fit_the_struct_is_a_decode_error_with_its_path() -> None:
    data = Avro(FLIGHT).encode(ROW, "flights")

    with pytest.raises(DecodeError, match=r"^\$\.carrier: expected int, got str$"):
        Avro(FLIGHT, into=Misread).decode(data, "flights")


def test_a_type_that_msgspec_cannot_make_is_refused_when_the_serde_is_made() -> None:
    with pytest.raises(ConfigurationError, match="into="):
        Avro(FLIGHT, into=Untagged)


def test_every_truncation_and_every_addition_is_a_decode_error() -> None:
    serde = Avro(FLIGHT)
    data = serde.encode(ROW, "flights")

    for length in range(len(data)):
        with pytest.raises(DecodeError, match=f"cannot be read beyond byte {length} of {length}"):
            serde.decode(data[:length], "flights")
    with pytest.raises(DecodeError, match=f"ends at byte {len(data)} of {len(data) + 1}"):
        serde.decode(data + b"\0", "flights")


def test_a_field_too_many_or_too_few_is_not_written() -> None:
    with pytest.raises(ValueError, match="more fields"):
        Avro(FLIGHT).encode({**ROW, "gate": 5}, "flights")
    with pytest.raises(ValueError, match="carrier"):
        Avro(FLIGHT).encode({name: value for name, value in ROW.items() if name != "carrier"}, "flights")


LONGEST = b"\xfe" + b"\xff" * 8 + b"\x01"  # 2^63 - 1
NASTY = {
    "nothing": b"",
    "a count without items": LONGEST,
    "a negative count without items": b"\x01" + LONGEST,
    "a string longer than memory": b"\x02" + LONGEST,
    "a string of negative length": b"\x02\x01ab",
    "a varint without an end": b"\xff" * (MIB // 4),
    "a string that is not UTF-8": b"\x02\x04\xff\xff\x00",
    "a branch that the union has not": b"\x00\x00\x04",
    "a symbol that the enum has not": b"\x00\x00\x00\x02",
    "a time that datetime has not": b"\x00\x00\x02" + LONGEST + b"\x00",
    "a megabyte of zeros": b"\x00" * MIB,
    "a map without an end": b"\x00" + b"\xfe\xff\xff\x7f" + b"\x02a\x00" * 1000,
}


@pytest.mark.parametrize("name", NASTY)
def test_nasty_bytes_are_a_decode_error_at_little_cost(order: Avro[object], name: str) -> None:
    data = NASTY[name]

    begin_s = time.process_time()
    with pytest.raises(DecodeError, match=r"^.{1,250}$"):
        order.decode(data, "orders")
    cpu_s = time.process_time() - begin_s
    tracemalloc.start()
    with contextlib.suppress(DecodeError):
        order.decode(data, "orders")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert cpu_s < 0.05
    assert peak_bytes <= 20 * len(data) + 10 * MIB


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_decode_error(data: bytes) -> None:
    schema = parse(_written(ORDER))

    with contextlib.suppress(DecodeError):
        schema.read(data)


@given(st.integers(0, 100), st.integers(0, 255))
def test_a_changed_byte_gives_a_value_or_a_decode_error(place: int, byte: int) -> None:
    serde = Avro(FLIGHT, into=Flight)
    data = bytearray(Avro(FLIGHT).encode(ROW, "flights"))
    data[place % len(data)] = byte

    with contextlib.suppress(DecodeError):
        serde.decode(bytes(data), "flights")


@pytest.mark.parametrize(
    "items",
    [
        '"null"',
        '{"type": "record", "name": "Empty", "fields": []}',
        '{"type": "record", "name": "Nulls", "fields": [{"name": "a", "type": "null"}, {"name": "b", "type": "null"}]}',
        '{"type": "fixed", "name": "Nothing", "size": 0}',
        '{"type": "record", "name": "A", "fields": [{"name": "b", "type": {"type": "fixed", "name": "B", "size": 0}}]}',
    ],
)
def test_an_array_of_items_without_bytes_is_refused_when_the_serde_is_made(items: str) -> None:
    inside = f'{{"type": "map", "values": ["null", {{"type": "array", "items": {items}}}]}}'

    with pytest.raises(ConfigurationError, match=r"^order\.avsc: .* items take no bytes"):
        parse(_written(inside))


def test_five_bytes_would_otherwise_become_millions_of_items() -> None:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, "long", 300_000)
    bomb = stream.getvalue() + b"\0"

    items = fastavro.schemaless_reader(io.BytesIO(bomb), {"type": "array", "items": "null"}, None)

    assert len(bomb) <= 5
    assert isinstance(items, list)
    assert len(items) == 300_000


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ('{"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}', "N holds itself"),
        ('{"type": "record", "name": "N", "fields": [{"name": "a", "type": {"type": "map", "values": "N"}}]}', "N h"),
        ('{"type": "array", "items": ' * MAX_LEVELS + '"int"' + "}" * MAX_LEVELS, "levels deep"),
        ('{"type": "array", "items": ' * 900 + '"int"' + "}" * 900, "too deep"),
        ("[" * 100_000, "not JSON"),
        ('{"type": "record", "name": "R", "__fastavro_parsed": true, "fields": []}', "mark of a parsed schema"),
        ('{"type": "record", "name": "R", "\\u005f_fastavro_parsed": true, "fields": []}', "mark of a parsed schema"),
        ('{"type": "fixed", "name": "F", "size": "x"}', "no Avro type"),
        ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "Foo"}]}', "Foo"),
        ('{"type": "array"}', "items"),
        ("5", "not an Avro schema"),
        ("{", "not JSON"),
    ],
)  # fmt: skip
def test_a_schema_that_is_wrong_or_dangerous_is_refused_with_its_place_and_the_reason(schema: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^order.avsc: .*{reason}"):
        parse(_written(schema))


def test_a_long_chain_of_names_is_as_deep_as_nesting() -> None:
    first = '{"type": "record", "name": "R0", "fields": [{"name": "a", "type": "int"}]}'
    rest = [
        f'{{"type": "record", "name": "R{i}", "fields": [{{"name": "a", "type": "R{i - 1}"}}]}}'
        for i in range(1, MAX_LEVELS + 1)
    ]

    with pytest.raises(ConfigurationError, match="levels deep"):
        parse(_written(f"[{', '.join([first, *rest])}]"))


def test_a_wrong_path_is_answered_with_the_nearest_file() -> None:
    with pytest.raises(ConfigurationError, match=r"fligt\.avsc.*did you mean 'flight\.avsc'\?"):
        Avro(FLIGHT.with_name("fligt.avsc"))


def test_a_missing_directory_an_unfit_file_and_an_empty_directory_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "latin.avsc").write_bytes(b"\xff")

    for path, reason in (("nope/x.avsc", "no directory"), ("latin.avsc", "cannot be read"), (".", "cannot be read")):
        with pytest.raises(ConfigurationError, match=reason):
            load(tmp_path / path)
    (tmp_path / "latin.avsc").unlink()
    with pytest.raises(ConfigurationError, match=r"no \.avsc file"):
        load(tmp_path / "x.avsc")


def test_a_relative_path_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "order.avsc").write_text(ORDER)
    monkeypatch.chdir(tmp_path)

    assert repr(Avro("order.avsc")) == "Avro(Order)"
