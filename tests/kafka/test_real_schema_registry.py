"""Records of Confluent's serializer and a real schema registry: what is read, what is refused, what waits.

The brokers are a mock cluster: none of this depends on them.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import secrets
from typing import TYPE_CHECKING

import msgspec
import pytest
from fleet.in_process import Running, committed, config, read
from missing import obtained
from servers.registry import StartedRegistry, obtain_registry

from streamworker import DeadLetter, Handler
from streamworker.errors import ConfigurationError
from streamworker.record import Ending
from streamworker.serde import Avro

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from confluent_kafka.schema_registry import SchemaRegistryClient
    from fleet.in_process import HandlerClass
    from servers.registry import Registry

    from streamworker import Record
    from streamworker.interfaces import AnySerde
    from streamworker.testing.mock_kafka import MockKafka

pytest.importorskip("certifi", reason="the extra `registry` is not installed")

RECOVERY_TIMEOUT_S = 40.0  # the last look at a registry that is back may be 16 s after the one before
ABSENT_ID = 2_000_000_000


def schema_of(name: str, *fields: dict[str, object]) -> str:
    return json.dumps({"type": "record", "name": name, "fields": fields})


QTY: dict[str, object] = {"name": "qty", "type": "int"}
NOTE: dict[str, object] = {"name": "note", "type": ["null", "string"], "default": None}
ORDER = schema_of("Order", QTY)
ORDER_WITH_NOTE = schema_of("Order", QTY, NOTE)
EVERYTHING = schema_of(
    "Everything",
    {"name": "number", "type": "long"},
    {"name": "ratio", "type": "double"},
    {"name": "text", "type": "string"},
    {"name": "blob", "type": "bytes"},
    {"name": "maybe", "type": ["null", "string"]},
    {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OPEN", "PAID"]}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "lines", "type": {"type": "array", "items": json.loads(schema_of("Line", QTY))}},
    {"name": "tags", "type": {"type": "map", "values": "int"}},
)


class Line(msgspec.Struct, frozen=True):
    qty: int


class Everything(msgspec.Struct, frozen=True):
    number: int
    ratio: float
    text: str
    blob: bytes
    maybe: str | None
    state: str
    at: dt.datetime
    price: decimal.Decimal
    lines: list[Line]
    tags: dict[str, int]


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    """A real schema registry: at STREAMWORKER_TEST_REGISTRY if that is set, else started for this module."""
    given = os.environ.get("STREAMWORKER_TEST_REGISTRY")
    server = obtained(lambda: obtain_registry(given), asked_for=bool(given))
    yield server
    server.close()


@pytest.fixture
def client(registry: Registry) -> Iterator[SchemaRegistryClient]:
    """Confluent's own client, as other programs use it."""
    from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415 - comes with an extra

    with SchemaRegistryClient.new_client({"url": registry.url}) as client:
        yield client


@pytest.fixture
def topic(mock_kafka: MockKafka) -> str:
    """A topic of two partitions and its dead-letter topic; the registry has never heard of it."""
    name = f"orders-{secrets.token_hex(4)}"
    mock_kafka.create_topic(name, 2)
    mock_kafka.create_topic(f"{name}.dlq", 1)
    return name


def serialized(client: SchemaRegistryClient, topic: str, schema: str, value: dict[str, object]) -> bytes:
    """As Confluent's serializer writes it, which registers the schema for the topic."""
    from confluent_kafka.schema_registry.avro import AvroSerializer  # noqa: PLC0415 - comes with an extra
    from confluent_kafka.serialization import MessageField, SerializationContext  # noqa: PLC0415 - likewise

    data: bytes | None = AvroSerializer(client, schema)(value, SerializationContext(topic, MessageField.VALUE))
    assert data is not None
    return data


def framed(schema_id: int, datum: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + datum


def letter(mock_kafka: MockKafka, topic: str) -> dict[str, str]:
    """The headers of a topic's first dead letter."""
    (message,) = read(mock_kafka.bootstrap_servers, f"{topic}.dlq", 1, 1)
    headers = message.headers()
    assert isinstance(headers, list)
    return {name: value.decode() for name, value in headers if isinstance(value, bytes)}


def noting(name: str, serde: AnySerde, seen: list[tuple[int, int, object]]) -> HandlerClass:
    """A handler that notes what it is given as (partition, offset, value)."""

    class Orders(Handler[object]):
        topics = (name,)
        value = serde
        dead_letter = DeadLetter(f"{name}.dlq")

        def handle(self, record: Record[object]) -> None:
            seen.append((record.partition, record.offset, record.value))

    return Orders  # type: ignore[return-value]  # what it is given is no bytes


def test_values_of_all_types_are_read_as_they_were_written(
    mock_kafka: MockKafka, registry: Registry, client: SchemaRegistryClient, topic: str
) -> None:
    servers = mock_kafka.bootstrap_servers
    written: list[dict[str, object]] = [
        {
            "number": 2**40 + number,
            "ratio": number / 3,
            "text": "\N{SNOWMAN}" * number,
            "blob": bytes(range(number)),
            "maybe": "x" if number % 2 else None,
            "state": "PAID" if number % 2 else "OPEN",
            "at": dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC),
            "price": decimal.Decimal(f"-12.{number:02}"),
            "lines": [{"qty": qty} for qty in range(number)],
            "tags": {"a": number},
        }
        for number in range(20)
    ]
    for value in written:
        mock_kafka.produce_raw(topic, 0, None, serialized(client, topic, EVERYTHING, value))
    seen: list[tuple[int, int, object]] = []
    serde = Avro.registry(url=registry.url, into=Everything)

    with Running(config(servers), noting(topic, serde, seen), until_end=True) as worker:
        assert worker.ended() == 0

    assert [value for _, _, value in seen] == [msgspec.convert(value, Everything) for value in written]
    assert committed(servers, "g", topic, 2) == {0: 20}


@pytest.mark.parametrize(
    ("reads_as", "first", "second"),
    [
        (ORDER, {"qty": 1}, {"qty": 2}),
        (ORDER_WITH_NOTE, {"qty": 1, "note": None}, {"qty": 2, "note": "new"}),
        (None, {"qty": 1}, {"qty": 2, "note": "new"}),
    ],
    ids=["as the older schema", "as the newer schema", "as they were written"],
)
def test_records_from_before_and_after_a_new_optional_field_are_both_read(
    mock_kafka: MockKafka,
    registry: Registry,
    client: SchemaRegistryClient,
    topic: str,
    tmp_path: Path,
    reads_as: str | None,
    first: object,
    second: object,
) -> None:
    file = tmp_path / "order.avsc"
    file.write_text(reads_as or "")
    older = serialized(client, topic, ORDER, {"qty": 1})
    newer = serialized(client, topic, ORDER_WITH_NOTE, {"qty": 2, "note": "new"})
    for data in (older, newer, older):
        mock_kafka.produce_raw(topic, 0, None, data)
    seen: list[tuple[int, int, object]] = []
    serde = Avro.registry(url=registry.url, schema=file if reads_as else None)

    with Running(config(mock_kafka.bootstrap_servers), noting(topic, serde, seen), until_end=True) as worker:
        assert worker.ended() == 0

    assert seen == [(0, 0, first), (0, 1, second), (0, 2, first)]


def test_a_record_that_names_the_schema_of_another_topic_is_dead_lettered_and_the_next_one_is_read(
    mock_kafka: MockKafka, registry: Registry, client: SchemaRegistryClient, topic: str
) -> None:
    foreign = serialized(client, f"{topic}-payments", schema_of(f"Payment{secrets.token_hex(4)}", QTY), {"qty": 666})
    mock_kafka.produce_raw(topic, 0, b"k", foreign)
    mock_kafka.produce_raw(topic, 0, b"k", serialized(client, topic, ORDER, {"qty": 7}))
    seen: list[tuple[int, int, object]] = []
    serde = Avro.registry(url=registry.url)

    with Running(config(mock_kafka.bootstrap_servers), noting(topic, serde, seen), until_end=True) as worker:
        assert worker.ended() == 0

    headers = letter(mock_kafka, topic)
    assert seen == [(0, 1, {"qty": 7})]
    assert headers["sw-reason"] == "undecodable_value"
    assert headers["sw-origin-offset"] == "0"
    assert f"is not registered under {topic}-value" in headers["sw-message"]


def test_a_record_that_names_no_known_schema_is_dead_lettered_after_one_try(
    mock_kafka: MockKafka, registry: Registry, client: SchemaRegistryClient, topic: str
) -> None:
    order = serialized(client, topic, ORDER, {"qty": 7})
    mock_kafka.produce_raw(topic, 0, b"k", framed(ABSENT_ID, order[5:]))
    mock_kafka.produce_raw(topic, 0, b"k", order)
    seen: list[tuple[int, int, object]] = []
    serde = Avro.registry(url=registry.url)

    with Running(config(mock_kafka.bootstrap_servers), noting(topic, serde, seen), until_end=True) as worker:
        assert worker.ended() == 0

    headers = letter(mock_kafka, topic)
    tries = [(attempt, ending) for _, _, _, _, attempt, ending in worker.recorder.of("failed")]
    assert seen == [(0, 1, {"qty": 7})]
    assert tries == [(1, Ending.DEAD_LETTERED)]
    assert headers["sw-attempts"] == "1"
    assert f"schema id {ABSENT_ID} is not known" in headers["sw-message"]
    assert worker.recorder.of("stopped") == []


def test_while_the_registry_is_down_known_schemas_are_read_and_records_of_others_wait_for_it(
    mock_kafka: MockKafka, registry: Registry, client: SchemaRegistryClient, topic: str
) -> None:
    if not isinstance(registry, StartedRegistry):
        pytest.skip("the registry was given, so it is not killed")
    servers = mock_kafka.bootstrap_servers
    known = [serialized(client, topic, ORDER, {"qty": qty}) for qty in range(20)]
    unknown = [serialized(client, topic, ORDER_WITH_NOTE, {"qty": qty, "note": "new"}) for qty in range(10)]
    seen: list[tuple[int, int, object]] = []

    with Running(config(servers), noting(topic, Avro.registry(url=registry.url), seen)) as worker:
        for data in known[:10]:
            mock_kafka.produce_raw(topic, 0, None, data)
        worker.wait(lambda: len(seen) == 10, "its schema is known")
        registry.kill()
        for data in unknown:
            mock_kafka.produce_raw(topic, 1, None, data)
        worker.wait(lambda: worker.recorder.of("stopped"), "partition 1 stops")
        for data in known[10:]:
            mock_kafka.produce_raw(topic, 0, None, data)
        worker.wait(lambda: committed(servers, "g", topic, 2) == {0: 20}, "partition 0 goes on")
        seen_without_it = list(seen)
        registry.restart()
        worker.wait(lambda: committed(servers, "g", topic, 2) == {0: 20, 1: 10}, "all", RECOVERY_TIMEOUT_S)
        assert worker.stop() == 0

    assert seen_without_it == [(0, qty, {"qty": qty}) for qty in range(20)]
    assert seen[20:] == [(1, qty, {"qty": qty, "note": "new"}) for qty in range(10)]
    stops = {(partition, reason, mends) for partition, reason, _, mends in worker.recorder.of("stopped")}
    assert stops == {((topic, 1), "dependency_unavailable", True)}
    tries = {(attempt, ending) for _, _, _, _, attempt, ending in worker.recorder.of("failed")}
    assert tries == {(1, Ending.RETRIED)}, "no attempt is spent"
    assert worker.recorder.of("dead_lettered") == []


def test_a_schema_that_names_another_subjects_is_read_with_it(registry: Registry, client: SchemaRegistryClient) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaReference  # noqa: PLC0415 - comes with an extra

    topic, money = f"orders-{secrets.token_hex(4)}", f"money-{secrets.token_hex(4)}"
    client.register_schema(money, Schema(schema_of("Money", {"name": "cents", "type": "int"}), "AVRO"))
    text = schema_of("Price", {"name": "price", "type": "Money"})
    schema = Schema(text, "AVRO", [SchemaReference("Money", money, 1)])
    schema_id = client.register_schema(f"{topic}-value", schema)

    value = Avro.registry(url=registry.url).decode(framed(schema_id, b"\x0e"), topic)

    assert value == {"price": {"cents": 7}}


def test_records_of_a_deleted_subject_are_still_read(registry: Registry, client: SchemaRegistryClient) -> None:
    topic = f"orders-{secrets.token_hex(4)}"
    data = serialized(client, topic, schema_of(f"Gone{secrets.token_hex(4)}", QTY), {"qty": 7})
    client.delete_subject(f"{topic}-value")

    value = Avro.registry(url=registry.url).decode(data, topic)

    assert value == {"qty": 7}


def test_what_is_encoded_here_is_read_by_confluents_deserializer(
    registry: Registry, client: SchemaRegistryClient, tmp_path: Path
) -> None:
    from confluent_kafka.schema_registry.avro import AvroDeserializer  # noqa: PLC0415 - comes with an extra
    from confluent_kafka.serialization import MessageField, SerializationContext  # noqa: PLC0415 - likewise

    topic, file = f"orders-{secrets.token_hex(4)}", tmp_path / "order.avsc"
    file.write_text(ORDER)

    data = Avro.registry(url=registry.url, schema=file).encode({"qty": 7}, topic)

    assert AvroDeserializer(client)(data, SerializationContext(topic, MessageField.VALUE)) == {"qty": 7}


def test_a_schema_that_breaks_the_subjects_compatibility_is_refused_by_the_registry(
    registry: Registry, client: SchemaRegistryClient, tmp_path: Path
) -> None:
    topic, file = f"orders-{secrets.token_hex(4)}", tmp_path / "order.avsc"
    serialized(client, topic, ORDER, {"qty": 7})
    client.set_compatibility(f"{topic}-value", "BACKWARD")
    file.write_text(schema_of("Order", QTY, {"name": "required", "type": "string"}))

    with pytest.raises(ConfigurationError, match="answered 409: "):
        Avro.registry(url=registry.url, schema=file).encode({"qty": 7, "required": "x"}, topic)
