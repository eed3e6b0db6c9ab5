"""The options of librdkafka: what streamworker sets, what a user may add, what must not be printed.

Three settings are made here, one per client; the user's own options (`kafka.librdkafka`) are laid over them. Refused
are the options that would run foreign code, weaken TLS, or belong to streamworker. Whether a value is good is left to
the client, which checks it when it is made. No client is imported; pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from streamworker.config import GroupProtocol
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from streamworker.config import DeadLetterConfig, KafkaConfig

V = TypeVar("V")


Option = str | int | float | bool

MASK = "********"

_GUARDED = {
    "plugin.library.paths": "it loads foreign code into the process",
    "sasl.kerberos.kinit.cmd": "it is run by a shell; renew the ticket outside of the worker",
    "ssl.engine.location": "it loads foreign code into the process",
    "ssl.providers": "it loads foreign code into the process",
}

_OURS = {
    "bootstrap.servers": "use kafka.bootstrap_servers",
    "metadata.broker.list": "use kafka.bootstrap_servers",
    "group.id": "use kafka.group",
    "group.protocol": "use kafka.group_protocol",
    "group.protocol.type": "use kafka.group_protocol",
    "partition.assignment.strategy": "it follows kafka.group_protocol",
    "session.timeout.ms": "use kafka.session_timeout_s",
    "heartbeat.interval.ms": "it follows kafka.session_timeout_s",
    "max.poll.interval.ms": "use kafka.max_poll_interval_s",
    "auto.offset.reset": "use kafka.start, or `streamworker offsets reset` for a group that has offsets",
    "enable.auto.commit": "only what is handled is committed; use commit.interval_s for how often",
    "auto.commit.enable": "only what is handled is committed; use commit.interval_s for how often",
    "auto.commit.interval.ms": "use commit.interval_s",
    "enable.auto.offset.store": "only what is handled is committed",
    "offset.store.method": "offsets are committed to the group",
    "isolation.level": "only committed records are read",
    "statistics.interval.ms": "the worker knows by the statistics whether it is still a member",
    "queued.min.messages": "use kafka.queued_min_messages",
    "queued.max.messages.kbytes": "use kafka.queued_max_kbytes",
    "enable.partition.eof": "use `streamworker run --until-end`",
    "check.crcs": "a damaged record must not reach a handler",
    "allow.auto.create.topics": "use `streamworker topics create`",
    "enable.idempotence": "a dead letter is written once",
    "acks": "a dead letter counts when all in-sync replicas have it",
    "request.required.acks": "a dead letter counts when all in-sync replicas have it",
    "retries": "use dead_letters.delivery_timeout_s",
    "message.send.max.retries": "use dead_letters.delivery_timeout_s",
    "delivery.timeout.ms": "use dead_letters.delivery_timeout_s",
    "message.timeout.ms": "use dead_letters.delivery_timeout_s",
    "delivery.report.only.error": "a dead letter counts when its delivery is reported",
    "transactional.id": "dead letters are written without transactions",
    "enabled_events": "events are served by the worker",
    "log.queue": "logs are served by the worker",
    "default.topic.config": "write the topic's options beside the others",
}

# After the column C/P of librdkafka's CONFIGURATION.md; what is in neither set concerns every client.
_CONSUMER_ONLY = frozenset(
    {
        "consume.callback.max.messages",
        "coordinator.query.interval.ms",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "group.instance.id",
        "group.remote.assignor",
        "max.partition.fetch.bytes",
    }
)
_PRODUCER_ONLY = frozenset(
    {
        "batch.num.messages",
        "batch.size",
        "compression.codec",
        "compression.level",
        "compression.type",
        "enable.gapless.guarantee",
        "linger.ms",
        "partitioner",
        "queue.buffering.backpressure.threshold",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queue.buffering.max.ms",
        "queuing.strategy",
        "request.timeout.ms",
        "sticky.partitioning.linger.ms",
        "transaction.timeout.ms",
    }
)

# What rdkafka_conf.c marks as sensitive and the pattern below does not find.
_SENSITIVE = ("sasl.username", "sasl.oauthbearer.config", "ssl.ca.pem")
# `per_token` is a rate of ours.
_SECRET_NAME = re.compile(r"passw|pwd|passphrase|secret|(?<!per_)token|key|credential", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)\S*@")
# A word is looked at from its beginning only and never twice; else a long value would take time in its length squared.
_SECRET_PART = re.compile(
    r"((?<!\w)(?=\w*?(?:passw|pwd|secret|token|credential))\w++\s*+[=:]\s*+)[^\s;&,]+", re.IGNORECASE
)

_TRUE = ("true", "t", "1")  # what librdkafka reads as true

_SOCKET_TIMEOUT_MS = 10_000
# Room for the headers that a dead letter has beside its value.
_ENVELOPE_BYTES = 64 * 1024
# What consumers are named after that are members of no group, where none is configured. They need to Describe it.
READERS = "streamworker"
_LARGEST_MESSAGE_BYTES = 1_000_000_000  # librdkafka's bound of message.max.bytes


class Masked(dict[str, V], Generic[V]):
    """A table whose `repr` is safe to log: what is secret by its name is masked in it."""

    def __repr__(self) -> str:
        return repr({name: redact(name, value) for name, value in self.items()})


def redact(name: str, value: object) -> object:
    """`value` as it may be printed: masked if `name` (dotted, tables included) says that it is a secret.

    User information in URLs and `password=…` inside a text are masked wherever they stand.
    """
    if isinstance(value, Mapping):
        return {key: redact(f"{name}.{key}", inner) for key, inner in value.items()}
    if name.endswith(_SENSITIVE) or _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, list | tuple):
        return [redact(name, one) for one in value]
    if isinstance(value, str):
        return _SECRET_PART.sub(rf"\1{MASK}", _USER_INFO.sub(f"{MASK}@", value))
    return value


def credentials(username: str, password: str) -> dict[str, Option]:
    """The options that name and password of SASL stand in."""
    return {"sasl.username": username, "sasl.password": password}


def without_secrets(text: str, options: Mapping[str, Option]) -> str:
    """`text`, for instance a client's complaint about `options`, with every secret value of them masked."""
    for name, value in options.items():
        if isinstance(value, str) and value and redact(name, value) == MASK:
            text = text.replace(value, MASK)
    return text


def refusal(name: str, value: Option) -> str | None:
    """Why `kafka.librdkafka` must not set `name` to `value`, and what to use; None if it may."""
    name = _bare(name)
    if name in _GUARDED:
        return f"not allowed, because {_GUARDED[name]}"
    if name in _OURS:
        return f"set by streamworker itself; {_OURS[name]}"
    if name.startswith("test.mock."):
        return "not allowed, because it replaces the cluster by a simulated one"
    if name.endswith("_cb") or name in ("on_commit", "on_delivery", "logger"):
        return "callbacks belong to streamworker"
    if _weakens_tls(name, str(value).lower()):
        return "not allowed: brokers must prove who they are; use ssl.ca.location for a private authority"
    return None


def _weakens_tls(name: str, value: str) -> bool:
    if name == "ssl.endpoint.identification.algorithm":
        return value == "none"
    return name == "enable.ssl.certificate.verification" and value not in _TRUE


def cautions(kafka: KafkaConfig) -> list[str]:
    """What is allowed and should not stay, one sentence each."""
    return [
        f"kafka.librdkafka.{name}: the client's debug log may show what requests contain; remove it after use"
        for name in kafka.librdkafka
        if _bare(name) == "debug"
    ]


def consumer_settings(kafka: KafkaConfig, *, end_of_partition: bool) -> dict[str, Option]:
    """Settings of the group member; `end_of_partition` asks for an event at the end of each partition."""
    return {
        **_common(kafka),
        "group.id": kafka.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "check.crcs": True,
        "enable.partition.eof": end_of_partition,
        "fetch.queue.backoff.ms": 10,  # the default of 1 000 made a fast loop 3.6 times slower
        # Membership is read from them. A proof of it is a heartbeat and this old at most: two thirds of the lease.
        "statistics.interval.ms": min(max(_milliseconds(kafka.membership_lease_s / 6), 50), 1000),
        "queued.min.messages": kafka.queued_min_messages,
        "queued.max.messages.kbytes": kafka.queued_max_kbytes,
        "fetch.max.bytes": 16 * 1024 * 1024,
        "receive.message.max.bytes": 32 * 1024 * 1024,  # must exceed fetch.max.bytes by 512
        "topic.metadata.refresh.interval.ms": 60_000,  # new partitions and topics of a pattern are seen within it
        **_membership(kafka),
        **_added(kafka, "consumer", _PRODUCER_ONLY),
    }


def key_log_settings(kafka: KafkaConfig) -> dict[str, Option]:
    """Settings of the consumer that reads which keys are parked; it is no member of the group, only named after it."""
    return {
        **_common(kafka),
        "group.id": kafka.group or READERS,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",  # notes may be read twice, and none must be missed
        "check.crcs": True,
        "enable.partition.eof": True,
        **_added(kafka, "consumer", _PRODUCER_ONLY),
    }


def topic_log_settings(kafka: KafkaConfig) -> dict[str, Option]:
    """Settings of the consumer that reads dead letters, their states and the audit for people."""
    return {
        **key_log_settings(kafka),
        "isolation.level": "read_committed",
        # What is fetched and waits. Other ranges are read next, so most of a larger buffer would be thrown away.
        "queued.min.messages": 10_000,
        "queued.max.messages.kbytes": 8 * 1024,
        "fetch.max.bytes": 8 * 1024 * 1024,
        "fetch.queue.backoff.ms": 10,
        # A request that waits at the end of one partition keeps the next range of another one waiting.
        "fetch.wait.max.ms": 20,
        **_added(kafka, "consumer", _PRODUCER_ONLY),
    }


def peek_settings(kafka: KafkaConfig) -> dict[str, Option]:
    """Settings of the consumer that looks at single records; it reads as little beyond them as can be."""
    return {
        **key_log_settings(kafka),
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "queued.min.messages": 1,
        "queued.max.messages.kbytes": 1024,
        # A broker sends at least one whole batch of records, however large that is.
        "fetch.message.max.bytes": 16 * 1024,
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 20,  # at the end of a partition; others of the same broker wait behind it
        **_added(kafka, "consumer", _PRODUCER_ONLY),
    }


def producer_settings(kafka: KafkaConfig, dead_letters: DeadLetterConfig) -> dict[str, Option]:
    """Settings of the producer that writes dead letters."""
    return {
        **_common(kafka),
        "enable.idempotence": True,
        "acks": "all",
        "delivery.timeout.ms": _milliseconds(dead_letters.delivery_timeout_s),
        "linger.ms": 5,
        # The client's default of 1 000 000 would refuse a letter that a broker takes.
        "message.max.bytes": min(max(1_000_000, kafka.max_record_bytes + _ENVELOPE_BYTES), _LARGEST_MESSAGE_BYTES),
        **_added(kafka, "producer", _CONSUMER_ONLY),
    }


def transactional_settings(kafka: KafkaConfig, timeout_s: float, transactional_id: str) -> dict[str, Option]:
    """Settings of the producer that makes transactions."""
    timeout_ms = _milliseconds(timeout_s)
    return {
        **_common(kafka),
        "transactional.id": transactional_id,
        "partitioner": "murmur2_random",  # as of `sink_settings`
        "transaction.timeout.ms": timeout_ms,
        "socket.timeout.ms": min(timeout_ms, _SOCKET_TIMEOUT_MS),  # the client refuses one that is longer
        "acks": "all",
        # Below the transaction's: else it would be aborted while an output is still tried.
        "delivery.timeout.ms": timeout_ms * 2 // 3,
        "linger.ms": 0,  # all of a transaction is handed over at once, and the end of it is waited for
        "message.max.bytes": min(max(1_000_000, kafka.max_record_bytes + _ENVELOPE_BYTES), _LARGEST_MESSAGE_BYTES),
        **_added(kafka, "producer", _CONSUMER_ONLY),
    }


def sink_settings(kafka: KafkaConfig, dead_letters: DeadLetterConfig) -> dict[str, Option]:
    """Settings of the producer that writes what handlers return; `dead_letters` for the time that a delivery has."""
    settings = producer_settings(kafka, dead_letters)
    largest_kbytes = -(-int(settings["message.max.bytes"]) // 1024)
    return {
        # That of Java's clients: a key goes to the partition where their records of it are.
        "partitioner": "murmur2_random",
        # The client's default is a gigabyte; a write waits for room.
        "queue.buffering.max.kbytes": max(64 * 1024, 2 * largest_kbytes),
        **settings,
    }


def admin_settings(kafka: KafkaConfig) -> dict[str, Option]:
    """Settings of a client that asks about the cluster."""
    return {**_common(kafka), **_added(kafka, "admin", _CONSUMER_ONLY | _PRODUCER_ONLY)}


def _common(kafka: KafkaConfig) -> dict[str, Option]:
    return {
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": "streamworker",
        "socket.timeout.ms": _SOCKET_TIMEOUT_MS,
        "enable.metrics.push": False,
        "allow.auto.create.topics": False,  # true for producers otherwise: a typing error would make a topic
    }


def _membership(kafka: KafkaConfig) -> dict[str, Option]:
    max_poll_interval_ms = _milliseconds(kafka.max_poll_interval_s)
    if kafka.group_protocol is GroupProtocol.CONSUMER:  # the client refuses the others; the broker has them
        return {"group.protocol": "consumer", "max.poll.interval.ms": max_poll_interval_ms}
    session_timeout_ms = _milliseconds(kafka.session_timeout_s)
    return {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": min(session_timeout_ms // 3, _milliseconds(kafka.membership_lease_s / 2), 3000),
        "max.poll.interval.ms": max_poll_interval_ms,
    }


def _added(kafka: KafkaConfig, client: str, foreign: frozenset[str]) -> dict[str, Option]:
    """The user's options for `client`; its own prefix wins over the general name."""
    general: dict[str, Option] = {}
    own: dict[str, Option] = {}
    for name, value in kafka.librdkafka.items():
        if reason := refusal(name, value):
            raise ConfigurationError(f"kafka.librdkafka.{name}: {reason}")
        if name.startswith(f"{client}."):
            own[_bare(name)] = value
        elif name == _bare(name) and name not in foreign:
            general[name] = value
    return {**general, **own}


def _bare(name: str) -> str:
    return name.removeprefix("consumer.").removeprefix("producer.")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
