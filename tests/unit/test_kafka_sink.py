"""What a KafkaSink makes of what handlers return, and what it refuses."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.config import DeadLetterConfig, KafkaConfig
from streamworker.errors import ConfigurationError, DependencyUnavailable, PoisonError
from streamworker.handler import Context as RealContext
from streamworker.interfaces import ClientOption, Row
from streamworker.librdkafka import sink_settings
from streamworker.record import Letter, Origin
from streamworker.serde import Json, Text
from streamworker.sinks.deliveries import Deliveries
from streamworker.sinks.kafka import KafkaRecord, KafkaSink
from streamworker.sinks.values import Delete

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

S = TypeVar("S")


class Order(msgspec.Struct, frozen=True):
    order_id: str
    cents: int = 0


@dataclass(frozen=True)
class Payment:
    order: int


class Colour(enum.Enum):
    RED = "red"


class Context:
    """What a sink knows of the handler that it writes for."""

    group = "g"
    handler = "Enrich"

    def __init__(self, url: str = "") -> None:
        self._url = url
        self.settings: Mapping[str, ClientOption] = {}  # of the producer that was asked for last

    def connection(self, name: str) -> str:
        assert name == "other"
        return self._url

    def producer(self) -> Mapping[str, ClientOption]:
        return OWN

    def follow_credentials(self, take: Callable[[str, str], None]) -> None: ...

    def shared(self, name: str, factory: Callable[[], S]) -> S:
        made = factory()
        assert isinstance(made, Deliveries)
        self.settings = made.settings
        return made

    def remaining_s(self, most_s: float) -> float:
        return most_s


OWN = sink_settings(
    KafkaConfig(bootstrap_servers="own:9092", max_record_bytes=5_000_000, librdkafka={"sasl.password": "hunter2"}),
    DeadLetterConfig(delivery_timeout_s=7),
)
ORDERS = KafkaSink("enriched", value=Json(Order), key="order_id")


def letters(sink: KafkaSink, *values: object, key: bytes | None = b"ann") -> list[Letter]:
    row = Row(offset=5, origin=Origin("orders", 0, 5), key=key, values=values)
    return list(sink.encoder(Context())(row))


def letter(sink: KafkaSink, value: object, key: bytes | None = b"ann") -> Letter:
    [only] = letters(sink, value, key=key)
    return only


def test_a_value_becomes_a_record_of_the_topic_at_the_time_of_sending() -> None:
    assert letter(ORDERS, Order("7", 250)) == Letter(
        topic="enriched", partition=None, key=b"7", value=b'{"order_id":"7","cents":250}', headers=(), timestamp_ms=0
    )


def test_several_values_become_records_in_their_order_and_none_becomes_none() -> None:
    assert [one.key for one in letters(ORDERS, Order("2"), Order("1"), Order("2"))] == [b"2", b"1", b"2"]
    assert letters(ORDERS) == []


@pytest.mark.parametrize("key", [b"ann", b"", b"\xff\x00", None])
def test_without_a_key_option_the_key_is_that_of_the_record(key: bytes | None) -> None:
    assert letter(KafkaSink("copy"), b"\xff", key=key).key == key


def test_without_a_serde_bytes_are_written_as_they_are() -> None:
    assert letter(KafkaSink("copy"), b"\xff\x00").value == b"\xff\x00"


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("a", b"a"),
        (b"\xff", b"\xff"),
        (7, b"7"),
        ("", b""),
        (Colour.RED, b"red"),
        (UUID(int=1), b"00000000-0000-0000-0000-000000000001"),
    ],
)
def test_a_field_becomes_the_key(field: object, key: bytes) -> None:
    assert letter(KafkaSink("out", value=Json(object), key="id"), {"id": field, "x": 1}).key == key


def test_a_field_of_a_dataclass_becomes_the_key() -> None:
    assert letter(KafkaSink("out", value=Json(Payment), key="order"), Payment(9)).key == b"9"


@pytest.mark.parametrize("key", [b"k", "k"])
def test_a_function_makes_the_key_of_the_value(key: bytes | str) -> None:
    assert letter(KafkaSink("out", value=Json(Order), key=lambda _: key), Order("7")).key == b"k"


def test_a_function_may_give_no_key() -> None:
    assert letter(KafkaSink("out", value=Json(Order), key=lambda _: None), Order("7")).key is None


def test_a_serde_writes_keys_that_are_given_and_leaves_that_of_the_record() -> None:
    sink = KafkaSink("out", key_serde=Json(object))

    assert letter(sink, KafkaRecord(b"v", key={"id": 7})).key == b'{"id":7}'
    assert letter(sink, b"v").key == b"ann"


def test_a_serde_is_told_the_topic_that_the_record_goes_to() -> None:
    class Told:
        def decode(self, data: bytes, topic: str) -> object:
            raise NotImplementedError

        def encode(self, value: object, topic: str) -> bytes:
            return f"{value} for {topic}".encode()

    sink = KafkaSink("out", value=Told(), key_serde=Told(), key=lambda _: 1)

    assert (letter(sink, 2).key, letter(sink, 2).value) == (b"1 for out", b"2 for out")
    assert letter(sink, KafkaRecord(2, topic="other")).value == b"2 for other"


def test_a_deletion_becomes_a_tombstone_with_the_key_of_its_value() -> None:
    tombstone = letter(ORDERS, Delete({"order_id": "7"}))

    assert (tombstone.key, tombstone.value) == (b"7", None)


def test_a_deletion_without_a_key_option_has_the_key_of_the_record() -> None:
    assert letter(KafkaSink("copy"), Delete(None)).key == b"ann"


def test_a_record_says_more_than_a_value() -> None:
    record = KafkaRecord(
        Order("7"), key="k", topic="other", partition=3, headers=[("a", b"\xff"), ("a", None), ("é", "é")]
    )

    made = letter(ORDERS, record)

    assert (made.topic, made.partition, made.key) == ("other", 3, b"k")
    assert made.headers == (("a", b"\xff"), ("a", None), ("é", "é".encode()))


def test_headers_may_be_a_mapping() -> None:
    assert letter(ORDERS, KafkaRecord(Order("7"), headers={"trace": "1"})).headers == (("trace", b"1"),)


def test_what_a_record_leaves_out_is_as_the_sink_says() -> None:
    assert letter(ORDERS, KafkaRecord(Order("7"))) == letter(ORDERS, Order("7"))


def test_a_record_may_have_no_key() -> None:
    assert letter(ORDERS, KafkaRecord(Order("7"), key=None)).key is None


@pytest.mark.parametrize("value", [None, Delete(None), Delete(Order("9"))])
def test_a_record_without_a_value_is_a_tombstone(value: object) -> None:
    made = letter(ORDERS, KafkaRecord(value, key="7", headers={"why": "gone"}))

    assert (made.key, made.value, made.headers) == (b"7", None, (("why", b"gone"),))


@given(key=st.one_of(st.none(), st.binary()), value=st.binary())
def test_any_bytes_go_through_as_they_are(key: bytes | None, value: bytes) -> None:
    made = letter(KafkaSink("copy"), value, key=key)

    assert (made.key, made.value) == (key, value)


class Stubborn:
    def __init__(self, outcome: object) -> None:
        self._outcome = outcome

    def decode(self, data: bytes, topic: str) -> object:
        raise NotImplementedError

    def encode(self, value: object, topic: str) -> bytes:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome  # type: ignore[return-value]  # what users get wrong

    def __repr__(self) -> str:
        return "Stubborn()"


@pytest.mark.parametrize(
    ("sink", "value", "message"),
    [
        (ORDERS, None, "None in a list; return Delete(value) for a tombstone"),
        (ORDERS, Order(None), "nothing in the field 'order_id', which is to be the key"),  # type: ignore[arg-type]
        (ORDERS, {"orderid": 1}, "no field 'order_id', which is to be the key; did you mean 'orderid'?"),
        (ORDERS, 7, "expected a mapping, a msgspec.Struct or a dataclass to write, got int"),
        (ORDERS, Order("\ud800"), "the key is not text that UTF-8 can hold"),
        (ORDERS, {"order_id": 1.5}, "expected bytes, text or a whole number as the key, got float"),
        (ORDERS, {"order_id": True}, "expected bytes, text or a whole number as the key, got bool"),
        (ORDERS, {"order_id": "7", "x": object()}, "the value cannot be written by Json(Order): dict does not fit"),
        (ORDERS, Delete(KafkaRecord(1)), "a KafkaRecord in a Delete; for a tombstone with more than a key return"),
        (ORDERS, KafkaRecord(KafkaRecord(1)), "a KafkaRecord in a KafkaRecord"),
        (ORDERS, KafkaRecord(None, key=None), "a tombstone without a key, which deletes nothing"),
        (ORDERS, KafkaRecord(Order("7"), topic=""), "KafkaRecord.topic: expected a topic's name, got ''"),
        (ORDERS, KafkaRecord(Order("7"), topic="a b"), "KafkaRecord.topic: expected a topic's name, got 'a b'"),
        (ORDERS, KafkaRecord(Order("7"), partition=-1), "KafkaRecord.partition: expected a number from 0, got -1"),
        (ORDERS, KafkaRecord(Order("7"), partition=True), "KafkaRecord.partition: expected a number from 0, got True"),
        (ORDERS, KafkaRecord(Order("7"), headers={"a": 1}), "expected names with bytes, text or None each: got int"),  # type: ignore[dict-item]
        (ORDERS, KafkaRecord(Order("7"), headers=["a"]), "expected names with bytes, text or None each"),  # type: ignore[list-item]
        (ORDERS, KafkaRecord(Order("7"), headers=7), "expected names with bytes, text or None each"),  # type: ignore[arg-type]
        (ORDERS, KafkaRecord(Order("7"), headers=[(b"a", b"")]), "got bytes as a name"),  # type: ignore[list-item]
        (ORDERS, KafkaRecord(Order("7"), headers={"\ud800": b""}), "expected names with bytes, text or None each"),
        (KafkaSink("copy"), "text", "expected bytes, got str; KafkaSink.value says how to write others"),
        (KafkaSink("o", value=Stubborn(AttributeError("x"))), 1, "the value cannot be written by Stubborn(): x"),
        (KafkaSink("o", value=Stubborn("text")), 1, "Stubborn() made no bytes of the value, but a str"),
        (KafkaSink("o", key=len, key_serde=Stubborn(ValueError("x"))), b"", "the key cannot be written by Stubborn()"),
    ],
)
def test_a_value_of_which_no_record_can_be_made_is_the_records_fault(
    sink: KafkaSink, value: object, message: str
) -> None:
    with pytest.raises(PoisonError) as raised:
        letters(sink, value)

    assert str(raised.value).startswith(("what Enrich returned for KafkaSink(", "expected a mapping"))
    assert message in str(raised.value)


def test_a_tombstone_needs_the_key_that_the_record_does_not_have() -> None:
    with pytest.raises(PoisonError, match="a tombstone without a key"):
        letters(KafkaSink("copy"), Delete(None), key=None)


def test_a_registry_that_is_away_is_not_the_records_fault() -> None:
    with pytest.raises(DependencyUnavailable):
        letters(KafkaSink("o", value=Stubborn(DependencyUnavailable("away"))), 1)


def test_what_the_key_function_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        letters(KafkaSink("o", value=Json(Order), key=lambda _: str(1 / 0)), Order("7"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KafkaSink(""), "KafkaSink: expected a topic's name, got ''"),
        (lambda: KafkaSink(".."), "KafkaSink: expected a topic's name, got '..'"),
        (lambda: KafkaSink("a" * 250), "KafkaSink: expected a topic's name, got 'aaa"),
        (lambda: KafkaSink(("orders",)), "KafkaSink: expected a topic's name, got ('orders',)"),
        (lambda: KafkaSink("o", value=Json), "KafkaSink('o').value: expected Json(Order), Text() or the like, got"),
        (lambda: KafkaSink("o", key_serde="text"), "KafkaSink('o').key_serde: expected Json(Order), Text() or the"),
        (lambda: KafkaSink("o", key=7), "KafkaSink('o').key: expected the name of a field or a function of the value"),
        (
            lambda: KafkaSink("o", key="{order_id}"),
            "key: expected the name of a field, like order_id, got '{order_id}'",
        ),
        (
            lambda: KafkaSink("o", value=Json(Order), key="oder_id"),
            "KafkaSink('o').key: Json(Order) has no field 'oder_id'; did you mean 'order_id'?",
        ),
        (lambda: KafkaSink("o", value=Json(Payment), key="cents"), "has no field 'cents'; known: order"),
        (lambda: KafkaSink("o", connection=""), "KafkaSink('o').connection: expected a name of the table sinks, or"),
    ],
)
def test_options_that_cannot_work_are_refused(make: Callable[[], KafkaSink], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        make()

    assert message in str(raised.value)


def test_a_field_is_looked_for_only_where_the_serde_says_what_there_is() -> None:
    assert KafkaSink("o", value=Json(dict), key="order_id").key == "order_id"
    assert KafkaSink("o", value=Text(), key="order_id").key == "order_id"


@pytest.mark.parametrize(("connection", "name"), [(None, "kafka"), ("other", "other")])
def test_its_name_is_that_of_its_cluster(connection: str | None, name: str) -> None:
    assert KafkaSink("o", connection=connection).name == name


def settings(sink: KafkaSink, url: str = "") -> Mapping[str, ClientOption]:
    context = Context(url)
    sink.writer(context).close()
    return context.settings


def test_without_a_connection_the_cluster_is_the_workers_own() -> None:
    assert settings(KafkaSink("o")) == OWN


@pytest.mark.parametrize("servers", ["a:9092", "a:9092,b:9093", "[::1]:9092"])
def test_another_cluster_gets_the_workers_times_and_sizes_but_no_credentials(servers: str) -> None:
    found = settings(KafkaSink("o", connection="other"), f"kafka://{servers}")

    assert found["bootstrap.servers"] == servers
    assert found["enable.idempotence"] is True
    assert found["acks"] == "all"
    assert found["delivery.timeout.ms"] == 7_000
    assert found["message.max.bytes"] == OWN["message.max.bytes"]
    assert "sasl.password" not in found


def test_options_of_another_cluster_are_in_its_url() -> None:
    url = "kafka://a:9092?security.protocol=sasl_ssl&sasl.password=p%26w&linger.ms=0"
    found = settings(KafkaSink("o", connection="other"), url)

    assert (found["security.protocol"], found["sasl.password"], found["linger.ms"]) == ("sasl_ssl", "p&w", "0")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "sinks.other: expected kafka://host:port"),
        ("a:9092", "sinks.other: expected kafka://host:port"),
        ("http://a:9092", "sinks.other: expected kafka://host:port"),
        ("kafka://", "sinks.other: expected kafka://host:port"),
        ("kafka://a:9092/topic", "sinks.other: expected kafka://host:port"),
        ("kafka://[a:9092", "sinks.other: expected kafka://host:port"),
        ("kafka://a:9092?linger", "sinks.other: expected kafka://host:port"),
        ("kafka://user:hunter2@a:9092", "sinks.other: expected kafka://host:port"),
        ("kafka://a:99999", "sinks.other: expected host:port"),
        ("kafka://a:9092?acks=1", "sinks.other: acks: set by streamworker itself"),
        ("kafka://a:9092?plugin.library.paths=x", "sinks.other: plugin.library.paths: not allowed"),
    ],
)
def test_a_url_that_names_no_cluster_is_refused_and_not_shown(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        settings(KafkaSink("o", connection="other"), url)

    assert str(raised.value).startswith(message)
    assert "hunter2" not in str(raised.value)


def test_without_a_cluster_there_is_no_writer() -> None:
    with pytest.raises(ConfigurationError, match=r"Copy.sink: there is no Kafka here to produce to"):
        KafkaSink("o").writer(RealContext(app={}, group="g", handler="Copy"))
