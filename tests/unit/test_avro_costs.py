"""What a few bytes of Avro may cost, whoever wrote the schema."""

from __future__ import annotations

import decimal
import json
import time
import tracemalloc
from io import BytesIO

import fastavro
import pytest

from streamworker.errors import ConfigurationError, DecodeError
from streamworker.serde.avro import MAX_DECIMAL_BYTES, parse
from streamworker.serde.schemas import MAX_IDLE, SchemaText

MIB = 2**20
BYTES = {"type": "bytes", "logicalType": "decimal", "precision": 5000, "scale": 2}
FIXED = {"type": "fixed", "name": "Big", "size": MIB, "logicalType": "decimal", "precision": 5000}


def written(schema: object) -> SchemaText:
    return SchemaText(json.dumps(schema), "order.avsc")


def fields(*types: object) -> list[dict[str, object]]:
    return [{"name": f"f{number}", "type": one} for number, one in enumerate(types)]


def prefixed(data: bytes) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, "bytes", data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (BYTES, prefixed(b"\x7f" * MIB)),
        (FIXED, b"\x7f" * MIB),
        ({"type": "map", "values": ["null", {"type": "array", "items": BYTES}]}, b"\2\0\2\2" + prefixed(b"\x7f" * MIB)),
        ({"type": "record", "name": "R", "fields": fields(FIXED, "Big")}, b"\x7f" * MIB * 2),
    ],
    ids=["bytes", "fixed", "inside", "by name"],
)
def test_a_decimal_of_a_megabyte_is_a_decode_error_within_a_moment(schema: object, data: bytes) -> None:
    parsed = parse(written(schema))

    begin_s = time.process_time()
    with pytest.raises(DecodeError):
        parsed.read(data)

    assert time.process_time() - begin_s < 0.1


def test_a_decimal_of_a_schema_that_is_referred_to_is_bounded_too() -> None:
    parsed = parse(written({"type": "record", "name": "R", "fields": fields("Big")}), [written(FIXED)])

    with pytest.raises(DecodeError):
        parsed.read(b"\x7f" * MIB)


@pytest.mark.parametrize("value", ["0", "-1.50", "12345678901234567890.12", f"{'9' * 2400}.01"])
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: ["null", one]], ids=["plain", "in a choice"])
def test_decimals_that_people_write_come_back(value: str, wrap: object) -> None:
    assert callable(wrap)
    parsed = parse(written(wrap(BYTES)))
    number = decimal.Decimal(value)

    data = parsed.write(number)

    assert len(data) <= MAX_DECIMAL_BYTES
    assert parsed.read(data) == number


def test_decimals_are_read_by_another_schema_as_before() -> None:
    writer = parse(written({"type": "record", "name": "R", "fields": [{"name": "price", "type": BYTES}]}))
    reader = parse(written({"type": "record", "name": "R", "fields": [{"name": "price", "type": ["null", BYTES]}]}))

    datum = writer.read(writer.write({"price": decimal.Decimal("1.50")}), reader=reader)

    assert datum == {"price": decimal.Decimal("1.50")}


def test_other_users_of_fastavro_keep_their_decimals() -> None:
    stream = BytesIO(prefixed(b"\x7f" * 2 * MAX_DECIMAL_BYTES))

    assert isinstance(fastavro.schemaless_reader(stream, {**BYTES}, None), decimal.Decimal)


def test_records_that_multiply_without_bytes_are_refused() -> None:
    """Thirty records, each with the one before it twice: an empty record became a billion values."""
    records: list[object] = [{"type": "record", "name": "R0", "fields": fields("null")}]
    records += [
        {"type": "record", "name": f"R{level}", "fields": fields(f"R{level - 1}", f"R{level - 1}")}
        for level in range(1, 30)
    ]

    with pytest.raises(ConfigurationError, match=r"^order\.avsc: the schema R\d makes \d+ values that take no bytes"):
        parse(written({"type": "record", "name": "T", "fields": fields(*records)}))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "record", "name": "Wide", "fields": fields(*["int"] * 3000)},
        {"type": "record", "name": "Optional", "fields": fields(*[["null", "string"]] * 3000)},
        {"type": "record", "name": "Nulls", "fields": fields(*["null"] * (MAX_IDLE - 1))},
        {"type": "record", "name": "Parts", "fields": fields(
            *({"type": "record", "name": f"P{number}", "fields": fields("string", "long")} for number in range(1000))
        )},
    ],
    ids=["wide", "optional", "nulls", "parts"],
)  # fmt: skip
def test_large_schemas_are_no_bombs(schema: object) -> None:
    assert parse(written(schema)).name


def test_what_a_value_weighs_beside_its_bytes() -> None:
    """The most there is without a schema made for it. `kafka.max_record_bytes` is what keeps it small."""
    item = {"type": "record", "name": "Line", "fields": fields("int")}
    parsed = parse(written({"type": "array", "items": item}))
    data = b"\x80\x80\x08" + b"\2" * 65_536 + b"\0"

    tracemalloc.start()
    lines = parsed.read(data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert isinstance(lines, list)
    assert len(lines) == 65_536
    assert peak_bytes / len(data) < 256
