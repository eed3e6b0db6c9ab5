"""Dead letters as other systems write them, byte for byte, and what is to be read of them.

Headers are in the order in which each system adds them, read from its source: Spring Kafka 2.8 to 4.1, Connect and
Streams of Kafka 4.2, share groups of 4.4, Karafka Pro 2.3 and 2.4, SmallRye 4.x, Watermill 1.x, Greyhound and Arroyo.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.record import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.record import Header

OWN: tuple[Header, ...] = (("tenant", b"acme"), ("trace", b"\x80\x01"), ("tenant", b"other"), ("empty", None))
PLACE = Origin("orders", 7, 41_892)
TIMESTAMP_MS = 1_712_620_800_123


@dataclass(frozen=True, slots=True)
class ForeignLetter:
    """`told` are fields of `DeadRecord`; what is not in it is to be as if nothing were said."""

    name: str  # of the test
    family: str
    headers: Sequence[Header]
    told: Mapping[str, object]
    own: Sequence[Header] = OWN
    key: bytes | None = b"customer-17"
    value: bytes | None = b'{"qty": "many"}'


def _int32(number: int) -> bytes:
    return struct.pack(">i", number)


def _int64(number: int) -> bytes:
    return struct.pack(">q", number)


def _springs(prefix: str, place: Origin) -> tuple[Header, ...]:
    return (
        (f"{prefix}original-topic", place.topic.encode()),
        (f"{prefix}original-partition", _int32(place.partition)),
        (f"{prefix}original-offset", _int64(place.offset)),
        (f"{prefix}original-timestamp", _int64(TIMESTAMP_MS)),
        (f"{prefix}original-timestamp-type", b"CreateTime"),
    )


_WRAPPER = b"org.springframework.kafka.listener.ListenerExecutionFailedException"
_STACK = b"java.lang.IllegalStateException: no stock\n\tat shop.Orders.store(Orders.java:17)\n"
_SPRINGS_ERROR: tuple[Header, ...] = (
    ("kafka_dlt-exception-fqcn", _WRAPPER),
    ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_dlt-exception-message", b"Listener failed; no stock"),
    ("kafka_dlt-exception-stacktrace", _STACK),
)
_SPRINGS_GROUP: Header = ("kafka_dlt-original-consumer-group", b"billing")
_SPRINGS_TOLD: Mapping[str, object] = {
    "origin": PLACE,
    "delivered": PLACE,
    "origin_timestamp_ms": TIMESTAMP_MS,
    "group": "billing",
    "exception": "java.lang.IllegalStateException",
    "message": "Listener failed; no stock",
    "stacktrace": _STACK.decode(),
}


def _connects(topic: bytes, partition: bytes, offset: bytes) -> tuple[Header, ...]:
    prefix = "__connect.errors."
    return (
        (f"{prefix}topic", topic),
        (f"{prefix}partition", partition),
        (f"{prefix}offset", offset),
        (f"{prefix}connector.name", b"orders-to-s3"),
        (f"{prefix}task.id", b"0"),
        (f"{prefix}stage", b"VALUE_CONVERTER"),
        (f"{prefix}class.name", b"org.apache.kafka.connect.json.JsonConverter"),
        (f"{prefix}exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
        (f"{prefix}exception.message", b"Converting byte[] to Kafka Connect data failed"),
        (f"{prefix}exception.stacktrace", _STACK),
    )


_CONNECT_TOLD: Mapping[str, object] = {
    "origin": PLACE,
    "delivered": PLACE,
    "handler": "orders-to-s3",
    "reason": "VALUE_CONVERTER",
    "exception": "org.apache.kafka.connect.errors.DataException",
    "message": "Converting byte[] to Kafka Connect data failed",
    "stacktrace": _STACK.decode(),
}

_SHARE_GROUPS: tuple[Header, ...] = (
    ("__dlq.errors.topic", b"orders"),
    ("__dlq.errors.partition", b"7"),
    ("__dlq.errors.offset", b"41892"),
    ("__dlq.errors.group", b"billing"),
    ("__dlq.errors.delivery.count", b"5"),
    ("__dlq.errors.message", b"Offset delivery count exceeded the threshold."),
)
_SHARE_GROUP_TOLD: Mapping[str, object] = {
    "origin": PLACE,
    "delivered": PLACE,
    "group": "billing",
    "attempts": 5,
    "message": "Offset delivery count exceeded the threshold.",
}

FOREIGN_LETTERS = (
    ForeignLetter(
        "spring",
        "spring",
        (*OWN, ("kafka_deliveryAttempt", _int32(3)), *_SPRINGS_ERROR, *_springs("kafka_dlt-", PLACE), _SPRINGS_GROUP),
        {**_SPRINGS_TOLD, "attempts": 3},
    ),
    ForeignLetter(
        "spring_after_a_key_that_cannot_be_read",
        "spring",
        (
            *OWN,
            ("springDeserializerExceptionKey", b"\xac\xed\x00\x05"),
            ("kafka_dlt-key-exception-fqcn", b"org.springframework.kafka.support.serializer.DeserializationException"),
            ("kafka_dlt-exception-cause-fqcn", b"org.apache.kafka.common.errors.SerializationException"),
            ("kafka_dlt-key-exception-message", b"failed to deserialize"),
            ("kafka_dlt-key-exception-stacktrace", _STACK),
            *_springs("kafka_dlt-", PLACE),
        ),
        {
            "origin": PLACE,
            "delivered": PLACE,
            "origin_timestamp_ms": TIMESTAMP_MS,
            "exception": "org.springframework.kafka.support.serializer.DeserializationException",
            "message": "failed to deserialize",
            "stacktrace": _STACK.decode(),
        },
    ),
    ForeignLetter(
        "spring_behind_retry_topics",  # other names, and numbers of as many bytes as they need
        "spring",
        (
            *OWN,
            *((name.replace("dlt-", ""), value) for name, value in _SPRINGS_ERROR),
            *_springs("kafka_", PLACE),
            _SPRINGS_GROUP,
            ("retry_topic-original-timestamp", TIMESTAMP_MS.to_bytes(6, "big")),
            ("retry_topic-attempts", _int32(4)),
            ("retry_topic-backoff-timestamp", TIMESTAMP_MS.to_bytes(6, "big")),
        ),
        {**_SPRINGS_TOLD, "delivered": None, "attempts": 3},
    ),
    ForeignLetter(
        "spring_twice",  # its dead letter failed again: the new place comes behind the old one, the error replaces it
        "spring",
        (
            *OWN,
            *_springs("kafka_dlt-", PLACE),
            *_SPRINGS_ERROR,
            *_springs("kafka_dlt-", Origin("orders.DLT", 2, 5)),
            _SPRINGS_GROUP,
        ),
        {**_SPRINGS_TOLD, "delivered": Origin("orders.DLT", 2, 5)},
    ),
    ForeignLetter("connect", "connect", (*OWN, *_connects(b"orders", b"7", b"41892")), _CONNECT_TOLD),
    ForeignLetter(
        "connect_after_spring",
        "connect",
        (*OWN, *_SPRINGS_ERROR, *_springs("kafka_dlt-", PLACE), *_connects(b"orders.DLT", b"2", b"5")),
        {**_CONNECT_TOLD, "origin": Origin("orders.DLT", 2, 5), "delivered": Origin("orders.DLT", 2, 5)},
        own=(*OWN, *_SPRINGS_ERROR, *_springs("kafka_dlt-", PLACE)),
    ),
    ForeignLetter(
        "connect_that_knows_no_place",
        "connect",
        (*OWN, *_connects(b"", b"-1", b"-1")),
        {
            **_CONNECT_TOLD,
            "origin": None,
            "delivered": None,
            "damaged": ("__connect.errors.topic", "__connect.errors.partition", "__connect.errors.offset"),
        },
    ),
    ForeignLetter(
        "streams",
        "streams",
        (
            ("__streams.errors.exception", b"java.lang.IllegalStateException: no stock"),
            ("__streams.errors.message", b"no stock"),
            ("__streams.errors.stacktrace", _STACK),
            ("__streams.errors.topic", b"orders"),
            ("__streams.errors.partition", b"7"),
            ("__streams.errors.offset", b"41892"),
        ),
        {
            "origin": PLACE,
            "delivered": PLACE,
            "exception": "java.lang.IllegalStateException",
            "message": "no stock",
            "stacktrace": _STACK.decode(),
        },
        own=(),
    ),
    ForeignLetter(
        "streams_without_a_message",
        "streams",
        (
            ("__streams.errors.exception", b"java.lang.NullPointerException"),
            ("__streams.errors.message", None),
            ("__streams.errors.topic", b"orders"),
            ("__streams.errors.partition", b"7"),
            ("__streams.errors.offset", b"41892"),
        ),
        {"origin": PLACE, "delivered": PLACE, "exception": "java.lang.NullPointerException"},
        own=(),
    ),
    ForeignLetter(
        "share_group",
        "share_group",
        _SHARE_GROUPS,
        _SHARE_GROUP_TOLD,
        own=(),
        key=None,
        value=None,
    ),
    ForeignLetter("share_group_that_copies_records", "share_group", (*OWN, *_SHARE_GROUPS), _SHARE_GROUP_TOLD),
    ForeignLetter(
        "karafka",
        "karafka",
        (
            *OWN,
            ("source_topic", b"orders"),
            ("source_partition", b"7"),
            ("source_offset", b"41892"),
            ("source_consumer_group", b"billing"),
            ("source_attempts", b"2"),
            ("source_trace_id", b"7a31"),
        ),
        {"origin": PLACE, "delivered": PLACE, "group": "billing", "attempts": 2},
    ),
    ForeignLetter(
        "karafka_before_its_version_2_4",  # its letters' key is the partition
        "karafka",
        (
            *OWN,
            ("original_topic", b"orders"),
            ("original_partition", b"7"),
            ("original_offset", b"41892"),
            ("original_consumer_group", b"billing"),
            ("original_key", b"customer-17"),
            ("original_attempts", b"2"),
        ),
        {"origin": PLACE, "delivered": PLACE, "group": "billing", "attempts": 2, "key": b"customer-17"},
        key=b"7",
    ),
    ForeignLetter(
        "smallrye",
        "smallrye",
        (
            ("dead-letter-exception-class-name", b"java.lang.IllegalStateException"),
            ("dead-letter-reason", b"no stock"),
            ("dead-letter-cause-class-name", b"java.io.IOException"),
            ("dead-letter-cause", b"closed"),
            ("dead-letter-topic", b"orders"),
            ("dead-letter-partition", b"7"),
            ("dead-letter-offset", b"41892"),
            *OWN,
        ),
        {
            "origin": PLACE,
            "delivered": PLACE,
            "exception": "java.lang.IllegalStateException",
            "message": "no stock",
        },
    ),
    ForeignLetter(
        "smallrye_behind_retry_topics",  # what the latest failure wrote is in front of what the first one did
        "smallrye",
        (
            ("delayed-retry-exception-class-name", b"java.lang.IllegalStateException"),
            ("delayed-retry-reason", b"still no stock"),
            ("delayed-retry-topic", b"orders_retry_10000"),
            ("delayed-retry-partition", b"0"),
            ("delayed-retry-offset", b"12"),
            ("delayed-retry-exception-class-name", b"java.io.IOException"),
            ("delayed-retry-reason", b"closed"),
            ("delayed-retry-topic", b"orders"),
            ("delayed-retry-partition", b"7"),
            ("delayed-retry-offset", b"41892"),
            *OWN,
            ("delayed-retry-original-timestamp", b"%d" % TIMESTAMP_MS),
            ("delayed-retry-first-processing-timestamp", b"%d" % TIMESTAMP_MS),
            ("delayed-retry-count", b"1"),
        ),
        {
            "origin": PLACE,
            "delivered": Origin("orders_retry_10000", 0, 12),
            "origin_timestamp_ms": TIMESTAMP_MS,
            "exception": "java.lang.IllegalStateException",
            "message": "still no stock",
            "attempts": 2,
        },
    ),
    ForeignLetter(
        "watermill",  # its metadata is a map of Go: in any order
        "watermill",
        (
            ("_watermill_message_uuid", b"a0a3"),
            ("topic_poisoned", b"orders"),
            ("tenant", b"acme"),
            ("handler_poisoned", b"store_orders"),
            ("reason_poisoned", b"dial tcp 10.0.0.7:5432: connection refused"),
            ("subscriber_poisoned", b"kafka.Subscriber"),
        ),
        {
            "origin_topic": "orders",
            "handler": "store_orders",
            "message": "dial tcp 10.0.0.7:5432: connection refused",
        },
        own=(("_watermill_message_uuid", b"a0a3"), ("tenant", b"acme")),
    ),
    ForeignLetter(
        "greyhound",
        "greyhound",
        (
            *OWN,
            ("submitTimestamp", b"%d" % TIMESTAMP_MS),
            ("backOffTimeMs", b"1000"),
            ("GH_OriginalTopic", b"orders"),
            ("GH_RetryAttempt", b"1"),
        ),
        {"origin_topic": "orders", "attempts": 2},
    ),
    ForeignLetter("arroyo", "arroyo", (*OWN, ("original_partition", b"7"), ("original_offset", b"41892")), {}),
    ForeignLetter(
        "nobody",
        "none",
        (*OWN, ("original_topic", b"orders"), ("submitTimestamp", b"1")),
        {},
        own=(*OWN, ("original_topic", b"orders"), ("submitTimestamp", b"1")),
    ),
    ForeignLetter("no_header_at_all", "none", (), {}, own=()),
)
