"""A topic of Kafka as a sink: what a handler may return, the records that are made of it, and what failures mean.

Decided here: key, value, headers and place of each record, which cluster it goes to, and whose fault it is if it does
not get there. Encoding is apart from producing (`deliveries.py`), because delivery in transactions needs it alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import msgspec

from streamworker.bounds import addresses
from streamworker.config import DeadLetterConfig, KafkaConfig
from streamworker.errors import ConfigurationError, PoisonError, RowFailed, nearest
from streamworker.interfaces import AnySerde, Row, Unset, Written
from streamworker.librdkafka import refusal, sink_settings
from streamworker.options import MAX_TOPIC_CHARS
from streamworker.record import Letter
from streamworker.sinks.values import Delete, fields_of

if TYPE_CHECKING:
    from streamworker.interfaces import ClientOption, SinkContext
    from streamworker.record import Header
    from streamworker.sinks.deliveries import Deliveries, Undelivered
    from streamworker.work import Place

Encoder = Callable[[Row], Sequence[Letter]]
# Of the value: its argument is what the handler returns, whose type only the handler knows.
KeyOf = Callable[..., bytes | str | None]
HeadersOf = Mapping[str, bytes | str | None] | Sequence[tuple[str, bytes | str | None]]

_TOPIC = re.compile(rf"(?!\.\.?$)[A-Za-z0-9._-]{{1,{MAX_TOPIC_CHARS}}}", re.ASCII)
_URL = "kafka://host:port[,host:port][?option=value&option=value]"
_NOW = 0  # as a timestamp: the producer's time when it takes the record


class KafkaUnavailable(ConnectionError):
    """The cluster has not acknowledged a record, and the record is not to blame. Breakers count it."""


@dataclass(frozen=True, slots=True)
class KafkaRecord:
    """Returned by a handler instead of a value, to say more than that. What is left out is as the sink says.

    A value of None is a tombstone, and so is a `Delete`.
    """

    value: object
    _: KW_ONLY
    key: object = Unset.UNSET  # as `KafkaSink.key` gives it; None: no key
    topic: str | None = None
    partition: int | None = None  # None: the key decides
    headers: HeadersOf = ()  # text is written as UTF-8


@dataclass(frozen=True, slots=True)
class KafkaSink:
    """Produces each value to a topic; a record is done when all in-sync replicas have what was made of it.

    At least once, and in order for each key. A `Delete` becomes a tombstone, a `KafkaRecord` says more than a value.
    """

    topic: str
    _: KW_ONLY
    value: AnySerde | None = None  # None: values are bytes, written as they are
    key: str | KeyOf | None = None  # a field of the value, or a function of it; None: key of the record it was made of
    key_serde: AnySerde | None = None  # of keys that `key` or a KafkaRecord gives; None: bytes, text, whole numbers
    connection: str | None = None  # of another cluster, in the table `sinks`; None: the one that is read from

    def __post_init__(self) -> None:
        if not isinstance(self.topic, str) or not _TOPIC.fullmatch(self.topic):
            raise ConfigurationError(f"KafkaSink: expected a topic's name, got {self.topic!r}")
        where = f"KafkaSink({self.topic!r})"
        for option, serde in (("value", self.value), ("key_serde", self.key_serde)):
            is_serde = hasattr(serde, "encode") and hasattr(serde, "decode") and not isinstance(serde, type)
            if serde is not None and not is_serde:
                raise ConfigurationError(f"{where}.{option}: expected Json(Order), Text() or the like, got {serde!r}")
        if isinstance(self.key, str):
            self._refuse_unknown_field(where, self.key)
        elif self.key is not None and not callable(self.key):
            raise ConfigurationError(
                f"{where}.key: expected the name of a field or a function of the value, got {self.key!r}"
            )
        if self.connection is not None and (not isinstance(self.connection, str) or not self.connection):
            raise ConfigurationError(
                f"{where}.connection: expected a name of the table sinks, or None for the worker's own cluster,"
                f" got {self.connection!r}"
            )

    @property
    def name(self) -> str:
        """Of the connection, as in the table `sinks`; "kafka" for the cluster that is read from."""
        return self.connection or "kafka"

    @property
    def knows_repeats(self) -> bool:
        """As of `Sink`: what comes again is there again, but for transactions."""
        return False

    @property
    def keeps_marks(self) -> bool:
        """As of `Sink`."""
        return False

    def writer(self, context: SinkContext) -> KafkaWriter:
        """A writer over the producer that all writers of the handler share; it is made with the first write.

        Raises ConfigurationError for a connection that cannot be used.
        """
        from streamworker.sinks.deliveries import Deliveries  # noqa: PLC0415 - only who produces needs the client

        settings = context.producer()
        if self.connection is not None:
            settings = _of_another_cluster(self.connection, context.connection(self.connection), settings)

        def make() -> Deliveries:
            made = Deliveries(settings)
            if self.connection is None:
                context.follow_credentials(made.take_credentials)
            return made

        deliveries = context.shared(f"streamworker.KafkaSink {self.name}", make)
        return KafkaWriter(self, self.encoder(context), deliveries, context)

    def encoder(self, context: SinkContext) -> Encoder:
        """What makes the records of a row. It raises PoisonError for a value of which none can be made.

        What a serde raises because its registry is away comes through. Any thread.
        """
        return _Encoder(self, context.handler).letters_of

    def _refuse_unknown_field(self, where: str, key: str) -> None:
        if not key.isidentifier():
            raise ConfigurationError(f"{where}.key: expected the name of a field, like order_id, got {key!r}")
        kind = getattr(self.value, "kind", None)  # of Json; other serdes do not say
        fields = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
        if fields and key not in fields:
            raise ConfigurationError(f"{where}.key: {self.value!r} has no field {key!r}; {nearest(key, fields)}")


class KafkaWriter:
    """A `Writer` that hands over all of a write and waits until it is acknowledged. Its instance's thread only."""

    def __init__(self, sink: KafkaSink, encode: Encoder, deliveries: Deliveries, context: SinkContext) -> None:
        self._where = f"KafkaSink({sink.topic!r})"
        self._encode = encode
        self._deliveries = deliveries
        self._context = context
        self._closed = False
        deliveries.join()

    def write(self, place: Place, rows: Sequence[Row]) -> Written:  # noqa: ARG002 - Writer's signature
        """As `Writer.write`, except that what follows a row that failed may have been written, and is written again."""
        letters: list[Letter] = []
        of: list[int] = []  # the row of each letter
        broken: RowFailed | None = None
        for index, row in enumerate(rows):
            try:
                made = self._encode(row)
            except Exception as error:  # noqa: BLE001 - raised below, once those before it are durable
                broken = RowFailed(index, error)
                break
            letters += made
            of += [index] * len(made)
        undelivered = self._delivered(letters)
        if undelivered is not None:
            cause = self._cause(undelivered, letters[undelivered.index])
            raise RowFailed(of[undelivered.index], cause) from cause
        if broken is not None:
            raise broken from broken.cause
        return Written()

    def close(self) -> None:
        """Let go of the producer, which ends with its last writer. Idempotent."""
        if not self._closed:
            self._closed = True
            self._deliveries.leave()

    def _delivered(self, letters: Sequence[Letter]) -> Undelivered | None:
        if not letters:
            return None
        return self._deliveries.deliver(letters, self._context.remaining_s(self._deliveries.patience_s))

    def _cause(self, undelivered: Undelivered, letter: Letter) -> Exception:
        found = f"{self._where}: {letter.topic!r} has not taken a record: {undelivered.detail} ({undelivered.code})"
        if undelivered.of_the_letter:
            size_bytes = len(letter.key or b"") + len(letter.value or b"")
            return PoisonError(f"{found}; {size_bytes} bytes of key and value")
        return KafkaUnavailable(found)


def _of_another_cluster(name: str, url: str, own: Mapping[str, ClientOption]) -> Mapping[str, ClientOption]:
    """Settings for the cluster at `url`: times and sizes as of `own`, and no credentials of it."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        usable = parts.scheme == "kafka" and parts.netloc and "@" not in parts.netloc and parts.path in ("", "/")
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"sinks.{name}: expected {_URL}")
    addresses(f"sinks.{name}", parts.netloc)
    for option, value in options.items():
        if reason := refusal(option, value):
            raise ConfigurationError(f"sinks.{name}: {option}: {reason}")
    kafka = KafkaConfig(bootstrap_servers=parts.netloc, librdkafka=options)
    settings = sink_settings(kafka, DeadLetterConfig())
    return {**settings, **{same: own[same] for same in ("delivery.timeout.ms", "message.max.bytes")}}


class _Encoder:
    """Makes letters for one handler. Immutable."""

    __slots__ = ("_sink", "_where")

    def __init__(self, sink: KafkaSink, handler: str) -> None:
        self._sink = sink
        self._where = f"what {handler} returned for KafkaSink({sink.topic!r})"

    def letters_of(self, row: Row) -> list[Letter]:
        """One for each value, in order."""
        return [self._letter(row, value) for value in row.values]

    def _letter(self, row: Row, returned: object) -> Letter:
        if returned is None:
            raise PoisonError(f"{self._where}: None in a list; return Delete(value) for a tombstone")
        record = returned if isinstance(returned, KafkaRecord) else KafkaRecord(returned)
        topic = self._topic(record)
        is_deletion = isinstance(record.value, Delete)
        value = record.value.value if isinstance(record.value, Delete) else record.value
        if isinstance(value, KafkaRecord | Delete):
            raise PoisonError(
                f"{self._where}: a {type(value).__name__} in a {type(returned).__name__}; for a tombstone with more"
                f" than a key return KafkaRecord(None, key=...)"
            )
        key = self._key(record, value, row, topic)
        data = None if is_deletion or value is None else self._value(value, topic)
        if data is None and key is None:
            raise PoisonError(f"{self._where}: a tombstone without a key, which deletes nothing")
        return Letter(
            topic=topic,
            partition=self._partition(record),
            key=key,
            value=data,
            headers=self._headers(record),
            timestamp_ms=_NOW,
        )

    def _topic(self, record: KafkaRecord) -> str:
        if record.topic is None:
            return self._sink.topic
        if not isinstance(record.topic, str) or not _TOPIC.fullmatch(record.topic):
            raise PoisonError(f"{self._where}: KafkaRecord.topic: expected a topic's name, got {record.topic!r}")
        return record.topic

    def _partition(self, record: KafkaRecord) -> int | None:
        number = record.partition
        if number is not None and (type(number) is not int or not 0 <= number < 2**31):
            raise PoisonError(f"{self._where}: KafkaRecord.partition: expected a number from 0, got {number!r}")
        return number

    def _key(self, record: KafkaRecord, value: object, row: Row, topic: str) -> bytes | None:
        by = self._sink.key
        if record.key is not Unset.UNSET:
            key = record.key
        elif by is None:
            return row.key
        elif isinstance(by, str):
            key = self._field(by, value)
        else:
            key = by(value)
        if key is None:
            return None
        if self._sink.key_serde is not None:
            return self._encoded("key", self._sink.key_serde, key, topic)
        return key if isinstance(key, bytes) else self._text(key)

    def _field(self, name: str, value: object) -> object:
        fields = fields_of(value)
        if name not in fields:
            raise PoisonError(f"{self._where}: no field {name!r}, which is to be the key; {nearest(name, fields)}")
        if fields[name] is None:
            raise PoisonError(f"{self._where}: nothing in the field {name!r}, which is to be the key")
        return fields[name]

    def _text(self, key: object) -> bytes:
        """Of what has one way of being written so: text, a whole number, a UUID, an enum of these."""
        try:
            plain = msgspec.to_builtins(key)
        except (TypeError, ValueError):
            plain = None
        if isinstance(plain, bool) or not isinstance(plain, str | int):
            raise PoisonError(
                f"{self._where}: expected bytes, text or a whole number as the key, got {type(key).__name__};"
                f" KafkaSink.key_serde writes others"
            )
        try:
            return str(plain).encode()
        except UnicodeEncodeError as error:
            raise PoisonError(f"{self._where}: the key is not text that UTF-8 can hold: {error}") from error

    def _encoded(self, part: str, serde: AnySerde, value: object, topic: str) -> bytes:
        try:
            data = serde.encode(value, topic)
        except (TypeError, ValueError, OverflowError, AttributeError, LookupError) as error:
            raise PoisonError(f"{self._where}: the {part} cannot be written by {serde!r}: {error}") from error
        if not isinstance(data, bytes):
            raise PoisonError(f"{self._where}: {serde!r} made no bytes of the {part}, but a {type(data).__name__}")
        return data

    def _value(self, value: object, topic: str) -> bytes:
        if self._sink.value is not None:
            return self._encoded("value", self._sink.value, value, topic)
        if not isinstance(value, bytes):
            raise PoisonError(
                f"{self._where}: expected bytes, got {type(value).__name__}; KafkaSink.value says how to write others"
            )
        return value

    def _headers(self, record: KafkaRecord) -> Sequence[Header]:
        given = record.headers
        try:
            pairs = given.items() if isinstance(given, Mapping) else given
            return tuple((_name(name), text.encode() if isinstance(text, str) else _data(text)) for name, text in pairs)
        except (TypeError, ValueError) as error:
            raise PoisonError(
                f"{self._where}: KafkaRecord.headers: expected names with bytes, text or None each: {error}"
            ) from error


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"got {type(name).__name__} as a name")
    name.encode()
    return name


def _data(data: object) -> bytes | None:
    if data is not None and not isinstance(data, bytes):
        raise TypeError(f"got {type(data).__name__} as a value")
    return data
