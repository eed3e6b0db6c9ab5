"""What a dead letter says, in the headers of whoever wrote it.

Decided here: whose letter it is, and what is believed of it. What cannot be read is named, and nothing is raised.
Pure, any thread.

Rules. A letter is of who wrote the last header that belongs to anybody, because nearly everybody adds theirs behind
those that are there: of a letter of Spring's that Connect gave up in its turn, Connect's are last, and Spring's are
headers that the record had before. (SmallRye puts its own in front. Another system's letter that it gave up is read
as that system's.) Names that a user's records might have as well count only if all are there that their system writes.

Of a name that is there several times the last one holds. Spring and SmallRye keep what an earlier failure wrote: there
the earliest says where the record was first, and the latest where it was delivered from. A null says nothing where
its system writes nulls, in texts, and is damaged elsewhere. So are names that no topic can have, and numbers that are
negative or too large, which is what a system writes that knows no place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING

import msgspec

from streamworker.dlq.envelope import PREFIX, VERSION
from streamworker.dlq.lineage import MAX_COUNT
from streamworker.fingerprint import fingerprint
from streamworker.options import MAX_TOPIC_CHARS
from streamworker.record import Headers, Origin, read_headers, timestamp_ms_of
from streamworker.replay.dead_record import DeadRecord, LetterId
from streamworker.replay.header_values import (
    MAX_DIGITS,
    MAX_NAME_BYTES,
    MAX_OFFSET,
    MAX_PARTITION,
    MAX_STACKTRACE_CHARS,
    HeaderValues,
    as_attempts,
    as_count,
    as_digits,
    as_int8_or_int32,
    as_int32,
    as_int64,
    as_name,
    as_parent,
    as_partition,
    as_pointer,
    as_replay_id,
    as_sha256,
    as_topic,
    origin,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.dlq.envelope import Attempt
    from streamworker.record import Message
    from streamworker.replay.dead_record import Pointer

OURS = "streamworker"
NONE = "none"  # of a letter that says nothing of itself
ALL_HEADERS = "*"  # in `DeadRecord.damaged`

_VERSION = VERSION.encode()
_SPRINGS_WRAPPERS = frozenset(
    f"org.springframework.kafka.listener.{one}" for one in ("ListenerExecutionFailedException", "TimestampedException")
)
_JAVA_CLASS = re.compile(r"[\w.$]+")


def read(topic: str, message: Message) -> DeadRecord:
    """What the record `message` of dead-letter topic `topic` says."""
    headers = read_headers(message)
    family = _family_of(headers)
    usual = _usual(topic, message, headers) if family is _OUR_FAMILY else None
    return usual or _any(topic, message, headers, family)


def _any(topic: str, message: Message, headers: Headers, family: _Family) -> DeadRecord:
    damaged: list[str] = [] if headers.readable else [ALL_HEADERS]
    values = HeaderValues(dict(headers), damaged)
    said = family.read(values, HeaderValues(dict(reversed(headers)), damaged))
    told = msgspec.structs.asdict(said)
    key_header = told.pop("key_header")
    if said.origin is not None:
        told["origin_topic"] = said.origin.topic
    if said.fingerprint is None and (said.exception, said.message) != (None, None):
        told["fingerprint"] = fingerprint(said.exception or "", said.message or "")
    return DeadRecord(
        topic=topic,
        id=LetterId(message.partition(), message.offset()),
        written_ms=timestamp_ms_of(message),
        key=message.key() if key_header is None else values.raw(key_header) or None,
        value=message.value(),
        headers=headers,
        family=family.name,
        own_headers=_own(headers, family),
        damaged=tuple(damaged),
        **told,
    )


class _Said(msgspec.Struct, kw_only=True):
    """What headers say; the fields of `DeadRecord`."""

    origin: Origin | None = None
    origin_topic: str | None = None
    origin_timestamp_ms: int | None = None
    delivered: Origin | None = None
    group: str | None = None
    handler: str | None = None
    reason: str | None = None
    exception: str | None = None
    message: str | None = None
    stacktrace: str | None = None
    fingerprint: str | None = None
    attempts: int | None = None
    attempt_log: tuple[Attempt, ...] = ()
    sw_id: str | None = None
    parent: str | None = None
    replay_id: str | None = None
    replay_count: int = 0
    repaired_sha256: str | None = None
    parked_behind: int | None = None
    pointer: Pointer | None = None
    trimmed: tuple[str, ...] = ()
    headers_lost: bool = False
    key_header: str | None = None  # has the record's key, where the letter has another one


@dataclass(frozen=True, slots=True)
class _Family:
    """Whose headers are called so: `names`, and all that begins with one of `prefixes`. `needed`: or it is not theirs.

    `read` gets the headers with the latest value of each name, and with the earliest.
    """

    name: str
    read: Callable[[HeaderValues, HeaderValues], _Said]
    prefixes: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()

    def owns(self, header: str) -> bool:
        """Whether a header of this name is theirs."""
        return header in self.names or header.startswith(self.prefixes)


def _ours(latest: HeaderValues, _: HeaderValues) -> _Said:
    if latest.raw("sw-version") != _VERSION and "sw-version" in latest:
        latest.note("sw-version")  # of another version the other headers may mean something else
    left_out = latest.read("sw-trimmed", as_name)
    return _Said(
        origin=latest.place("sw-origin-"),
        origin_topic=latest.read("sw-origin-topic", as_topic),
        origin_timestamp_ms=latest.read("sw-origin-timestamp", as_digits),
        delivered=latest.place("sw-from-"),
        group=latest.read("sw-group", as_name),
        handler=latest.read("sw-handler", as_name),
        reason=latest.read("sw-reason", as_name),
        exception=latest.read("sw-exception", as_name),
        message=latest.text("sw-message"),
        fingerprint=latest.read("sw-fingerprint", as_name),
        attempts=latest.read("sw-attempts", as_count),
        attempt_log=latest.read("sw-attempt-log", as_attempts) or (),
        sw_id=latest.read("sw-id", as_name),
        parent=latest.read("sw-parent", as_parent),
        replay_id=latest.read("sw-replay-id", as_replay_id),
        replay_count=latest.read("sw-replay-count", as_count) or 0,
        repaired_sha256=latest.read("sw-repaired", as_sha256),
        parked_behind=latest.read("sw-parked-behind", as_digits),
        pointer=latest.read("sw-pointer", as_pointer),
        trimmed=() if left_out is None else tuple(left_out.split(",")),
        headers_lost="sw-headers-unreadable" in latest,
    )


def _spring(latest: HeaderValues, earliest: HeaderValues) -> _Said:
    """`DeadLetterPublishingRecoverer`, and with other names the one behind retry topics (`@RetryableTopic`).

    Numbers are binary. The container wraps what the listener raised, so the cause says more than the exception.
    """
    behind_retries = "retry_topic-attempts" in latest
    prefix = "kafka_" if behind_retries and "kafka_dlt-original-topic" not in latest else "kafka_dlt-"
    error = f"{prefix}exception-" if f"{prefix}exception-fqcn" in latest else f"{prefix}key-exception-"
    exception = latest.text(f"{error}fqcn", MAX_NAME_BYTES)
    cause = latest.text(f"{prefix}exception-cause-fqcn", MAX_NAME_BYTES)
    # It counts the delivery from the dead-letter topic, too.
    deliveries = latest.read("retry_topic-attempts", as_int8_or_int32)
    first = _springs_place(earliest, prefix)
    return _Said(
        origin=first,
        origin_topic=earliest.read(f"{prefix}original-topic", as_topic),
        origin_timestamp_ms=earliest.read(f"{prefix}original-timestamp", as_int64),
        delivered=None if behind_retries else _springs_place(latest, prefix),
        group=latest.read("kafka_dlt-original-consumer-group", as_name),
        exception=cause if cause is not None and exception in _SPRINGS_WRAPPERS else exception,
        message=latest.text(f"{error}message"),
        stacktrace=latest.text(f"{error}stacktrace", MAX_STACKTRACE_CHARS),
        attempts=deliveries - 1 if deliveries else latest.read("kafka_deliveryAttempt", as_int32),
    )


def _springs_place(values: HeaderValues, prefix: str) -> Origin | None:
    return origin(
        values.read(f"{prefix}original-topic", as_topic),
        values.read(f"{prefix}original-partition", as_int32),
        values.read(f"{prefix}original-offset", as_int64),
    )


def _connect(latest: HeaderValues, _: HeaderValues) -> _Said:
    """`DeadLetterQueueReporter`. What it does not know is an empty topic and -1; names that are taken it leaves."""
    place = latest.place("__connect.errors.")
    return _Said(
        origin=place,
        origin_topic=latest.read("__connect.errors.topic", as_topic),
        delivered=place,
        handler=latest.read("__connect.errors.connector.name", as_name),
        reason=latest.read("__connect.errors.stage", as_name),
        exception=latest.text("__connect.errors.exception.class.name", MAX_NAME_BYTES),
        message=latest.text("__connect.errors.exception.message"),
        stacktrace=latest.text("__connect.errors.exception.stacktrace", MAX_STACKTRACE_CHARS),
    )


def _streams(latest: HeaderValues, _: HeaderValues) -> _Said:
    """`ExceptionHandlerUtils` (KIP-1034). The exception is its `toString`: the class, and often the message."""
    place = latest.place("__streams.errors.")
    shown = latest.text("__streams.errors.exception") or ""
    name, _colon, rest = shown.partition(": ")
    message = latest.text("__streams.errors.message")
    return _Said(
        origin=place,
        origin_topic=latest.read("__streams.errors.topic", as_topic),
        delivered=place,
        exception=(name if _JAVA_CLASS.fullmatch(name) else shown)[:MAX_NAME_BYTES] or None,
        message=rest or None if message is None else message,
        stacktrace=latest.text("__streams.errors.stacktrace", MAX_STACKTRACE_CHARS),
    )


def _share_group(latest: HeaderValues, _: HeaderValues) -> _Said:
    """`ShareGroupDLQRecordHelper` (KIP-1191). It names no class, and copies the record if the group asks for that."""
    place = latest.place("__dlq.errors.")
    return _Said(
        origin=place,
        origin_topic=latest.read("__dlq.errors.topic", as_topic),
        delivered=place,
        group=latest.read("__dlq.errors.group", as_name),
        message=latest.text("__dlq.errors.message"),
        attempts=latest.read("__dlq.errors.delivery.count", as_count),
    )


def _karafka(prefix: str) -> Callable[[HeaderValues, HeaderValues], _Said]:
    """Karafka Pro; without it the letter has the record's headers alone. Its letters' key is the source partition."""

    def read(latest: HeaderValues, _: HeaderValues) -> _Said:
        place = latest.place(prefix)
        return _Said(
            origin=place,
            origin_topic=latest.read(f"{prefix}topic", as_topic),
            delivered=place,
            group=latest.read(f"{prefix}consumer_group", as_name),
            attempts=latest.read(f"{prefix}attempts", as_count),
            key_header=f"{prefix}key" if f"{prefix}key" in latest else None,
        )

    return read


def _smallrye(latest: HeaderValues, earliest: HeaderValues) -> _Said:
    """`KafkaDeadLetterQueue`, and `KafkaDelayedRetryTopic`, which counts retries. Both put theirs in front."""
    newest, oldest = earliest, latest
    prefix = "dead-letter-" if "dead-letter-exception-class-name" in newest else "delayed-retry-"
    retries = newest.read("delayed-retry-count", as_count)
    return _Said(
        origin=oldest.place("delayed-retry-" if "delayed-retry-topic" in oldest else prefix),
        origin_topic=oldest.read("delayed-retry-topic", as_topic) or oldest.read("dead-letter-topic", as_topic),
        origin_timestamp_ms=newest.read("delayed-retry-original-timestamp", as_digits),
        delivered=newest.place(prefix),
        exception=newest.text(f"{prefix}exception-class-name", MAX_NAME_BYTES),
        message=newest.text(f"{prefix}reason"),
        attempts=None if retries is None else retries + 1,
    )


def _watermill(latest: HeaderValues, _: HeaderValues) -> _Said:
    """The `PoisonQueue` middleware. It knows neither partition nor offset."""
    return _Said(
        origin_topic=latest.read("topic_poisoned", as_topic),
        handler=latest.read("handler_poisoned", as_name),
        message=latest.text("reason_poisoned"),
    )


def _greyhound(latest: HeaderValues, _: HeaderValues) -> _Said:
    """A record of a retry topic: it has no dead letters. The number is that of the attempt before, from 0."""
    attempt = latest.read("GH_RetryAttempt", as_count)
    return _Said(
        origin_topic=latest.read("GH_OriginalTopic", as_topic),
        attempts=None if attempt is None else attempt + 1,
    )


def _silent(_latest: HeaderValues, _earliest: HeaderValues) -> _Said:
    """Arroyo names partition and offset and no topic; others say nothing at all."""
    return _Said()


_SOURCE = ("topic", "partition", "offset", "consumer_group", "attempts", "key", "trace_id")
_NO_FAMILY = _Family(NONE, _silent)
_OUR_FAMILY = _Family(OURS, _ours, prefixes=(PREFIX,))
_FAMILIES = (
    _Family(
        "spring",
        _spring,
        prefixes=(
            "kafka_dlt-",
            "kafka_original-",
            "kafka_exception-",
            "kafka_key-exception-",
            "retry_topic-",
            "springDeserializerException",
        ),
        names=frozenset({"kafka_deliveryAttempt"}),
    ),
    _Family("connect", _connect, prefixes=("__connect.errors.",)),
    _Family("streams", _streams, prefixes=("__streams.errors.",)),
    _Family("share_group", _share_group, prefixes=("__dlq.errors.",)),
    _Family(
        "karafka",
        _karafka("source_"),
        names=frozenset(f"source_{name}" for name in _SOURCE),
        needed=frozenset({"source_topic", "source_partition", "source_offset"}),
    ),
    _Family(  # before its version 2.4
        "karafka",
        _karafka("original_"),
        names=frozenset(f"original_{name}" for name in _SOURCE),
        needed=frozenset({"original_topic", "original_partition", "original_offset"}),
    ),
    _Family("smallrye", _smallrye, prefixes=("dead-letter-", "delayed-retry-")),
    _Family(
        "watermill",
        _watermill,
        names=frozenset(
            {
                "reason_poisoned",
                "topic_poisoned",
                "handler_poisoned",
                "subscriber_poisoned",
                "_watermill_requeuer_retries",
            }
        ),
        needed=frozenset({"reason_poisoned"}),
    ),
    _Family(
        "greyhound",
        _greyhound,
        prefixes=("GH_",),
        names=frozenset({"submitTimestamp", "backOffTimeMs"}),
        needed=frozenset({"submitTimestamp", "backOffTimeMs", "GH_OriginalTopic"}),
    ),
    _Family(
        "arroyo",
        _silent,
        names=frozenset({"original_partition", "original_offset"}),
        needed=frozenset({"original_partition", "original_offset"}),
    ),
)


# Of anybody but us. A letter may have tens of thousands of headers that are nobody's.
_ANYBODYS = re.compile("|".join(re.escape(one) for family in _FAMILIES for one in (*family.prefixes, *family.names)))


def _family_of(headers: Headers) -> _Family:
    """Whose letter this is."""
    there: set[str] | None = None
    for header, _ in reversed(headers):
        if header.startswith(PREFIX):
            return _OUR_FAMILY
        if _ANYBODYS.match(header):
            there = {name for name, _ in headers} if there is None else there
            for family in _FAMILIES:
                if family.owns(header) and family.needed <= there:
                    return family
    return _NO_FAMILY


def _own(headers: Headers, family: _Family) -> Headers:
    """Those that the record had. A name that begins like ours is nobody's own: sent on, it would be believed."""
    own = []
    for header in headers:
        if header[0] == _FIRST and family is _OUR_FAMILY:
            break  # what stands behind ours somebody put there since, an agent that traces for instance
        if not header[0].startswith(PREFIX) and not family.owns(header[0]):
            own.append(header)
    return Headers(own)


# What nearly every letter of ours has: texts, numbers, and the rest.
_FIRST = "sw-version"
_TEXTS = ("sw-id", "sw-group", "sw-handler", "sw-reason", "sw-exception", "sw-fingerprint", "sw-message")
_NUMBERS = ("sw-origin-partition", "sw-origin-offset", "sw-origin-timestamp", "sw-attempts")
_PLACES = ("sw-origin-topic", "sw-from-topic", "sw-from-partition", "sw-from-offset")
_usual_values = itemgetter(*_TEXTS, *_NUMBERS, *_PLACES, _FIRST, "sw-attempt-log")
_RARE = (
    "sw-parent",
    "sw-replay-id",
    "sw-replay-count",
    "sw-repaired",
    "sw-parked-behind",
    "sw-trimmed",
    "sw-pointer",
    "sw-headers-unreadable",
)


def _usual(topic: str, message: Message, headers: Headers) -> DeadRecord | None:
    """The same as `_any` in half of the time, for a letter of ours with all that is usual and sound; None for others.

    A view reads letters by the million.
    """
    by_name = dict(headers)
    try:
        values = _usual_values(by_name)
        texts, numbers = values[:7], values[7:11]
        digits = b"".join(numbers)
        if not digits.isdigit() or len(digits) > MAX_DIGITS or len(b"".join(texts)) > MAX_NAME_BYTES:
            return None
        sw_id, group, handler, reason, exception, mistake, text = map(bytes.decode, texts)
        partition, offset, timestamp_ms, calls = map(int, numbers)
    except (KeyError, TypeError, ValueError):  # not there, or a null, or no UTF-8, or empty
        return None
    first_topic, last_topic, last_partition, last_offset, version, log = values[11:]
    place = origin(_known_topic(first_topic), partition, offset)
    same = last_offset == numbers[1] and last_partition == numbers[0] and last_topic == first_topic
    delivered = place if same else origin(as_topic(last_topic), as_partition(last_partition), as_digits(last_offset))
    attempt_log = as_attempts(log)
    if place is None or delivered is None or attempt_log is None or b"" in texts[:-1] or version != _VERSION:
        return None
    if partition > MAX_PARTITION or offset > MAX_OFFSET or timestamp_ms > MAX_OFFSET or calls > MAX_COUNT:
        return None
    if not by_name.keys().isdisjoint(_RARE):
        return None
    return DeadRecord(
        topic=topic,
        id=LetterId(message.partition(), message.offset()),
        written_ms=timestamp_ms_of(message),
        key=message.key(),
        value=message.value(),
        headers=headers,
        family=OURS,
        own_headers=_own(headers, _OUR_FAMILY),
        origin=place,
        origin_topic=place.topic,
        origin_timestamp_ms=timestamp_ms,
        delivered=delivered,
        group=group,
        handler=handler,
        reason=reason,
        exception=exception,
        message=text,
        fingerprint=mistake,
        attempts=calls,
        attempt_log=attempt_log,
        sw_id=sw_id,
    )


def _known_topic(value: bytes | None) -> str | None:
    return _remembered_topic(value) if value is not None and len(value) <= MAX_TOPIC_CHARS else None


_remembered_topic = lru_cache(256)(as_topic)
