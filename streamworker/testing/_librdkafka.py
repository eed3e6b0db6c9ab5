"""What the Python client does not expose of librdkafka: its mock cluster, and headers named by bytes.

Everything that touches ctypes is here. The shared library is the one inside the confluent-kafka
wheel, loaded without importing confluent_kafka. Which functions it has depends on the version, so
each is looked up when it is needed and its absence is an error that names it. One thread.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from ctypes import POINTER, c_char_p, c_int, c_int16, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING

from streamworker.errors import StreamworkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.testing.mock_kafka import RawHeader

_PRODUCER = 0  # rd_kafka_type_t
_COPY_PAYLOAD = 2  # RD_KAFKA_MSG_F_COPY
_ACK_TIMEOUT_MS = 10_000  # a loopback acknowledgement takes milliseconds

# Tags of rd_kafka_produceva()'s arguments (rd_kafka_vtype_t).
_TOPIC, _PARTITION, _VALUE, _KEY, _FLAGS, _HEADERS = 1, 3, 4, 5, 7, 10

# Return type and argument types, as rdkafka.h and rdkafka_mock.h declare them.
_SIGNATURES: Mapping[str, tuple[type | None, Sequence[type]]] = {
    "rd_kafka_version_str": (c_char_p, ()),
    "rd_kafka_err2name": (c_char_p, (c_int,)),
    "rd_kafka_conf_new": (c_void_p, ()),
    "rd_kafka_conf_set": (c_int, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)),
    "rd_kafka_conf_set_dr_msg_cb": (None, (c_void_p, c_void_p)),
    "rd_kafka_new": (c_void_p, (c_int, c_void_p, c_char_p, c_size_t)),
    "rd_kafka_destroy": (None, (c_void_p,)),
    "rd_kafka_flush": (c_int, (c_void_p, c_int)),
    "rd_kafka_produceva": (c_void_p, (c_void_p, c_void_p, c_size_t)),
    "rd_kafka_error_code": (c_int, (c_void_p,)),
    "rd_kafka_error_destroy": (None, (c_void_p,)),
    "rd_kafka_headers_new": (c_void_p, (c_size_t,)),
    "rd_kafka_headers_destroy": (None, (c_void_p,)),
    "rd_kafka_header_add": (c_int, (c_void_p, c_char_p, c_size_t, c_char_p, c_size_t)),
    "rd_kafka_mock_cluster_new": (c_void_p, (c_void_p, c_int)),
    "rd_kafka_mock_cluster_bootstraps": (c_char_p, (c_void_p,)),
    "rd_kafka_mock_topic_create": (c_int, (c_void_p, c_char_p, c_int, c_int)),
    "rd_kafka_mock_topic_delete": (c_int, (c_void_p, c_char_p)),
    "rd_kafka_mock_topic_set_error": (None, (c_void_p, c_char_p, c_int)),
    "rd_kafka_mock_push_request_errors_array": (None, (c_void_p, c_int16, c_size_t, POINTER(c_int))),
    "rd_kafka_mock_broker_set_down": (c_int, (c_void_p, c_int32)),
    "rd_kafka_mock_broker_set_up": (c_int, (c_void_p, c_int32)),
    "rd_kafka_mock_broker_set_rtt": (c_int, (c_void_p, c_int32, c_int)),
    "rd_kafka_mock_broker_set_host_port": (None, (c_void_p, c_int32, c_char_p, c_int)),
    "rd_kafka_mock_broker_add": (c_int, (c_void_p, c_int32)),
    "rd_kafka_mock_broker_decommission": (c_int, (c_void_p, c_int32)),
    "rd_kafka_mock_partition_set_leader": (c_int, (c_void_p, c_char_p, c_int32, c_int32)),
    "rd_kafka_mock_partition_delete_records": (c_int, (c_void_p, c_char_p, c_int32, c_int64)),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, (c_void_p, c_int32)),
    "rd_kafka_mock_set_group_consumer_session_timeout_ms": (None, (c_void_p, c_int)),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, (c_void_p, c_int)),
    "rd_kafka_mock_coordinator_set": (c_int, (c_void_p, c_char_p, c_char_p, c_int32)),
}


class _Bytes(ctypes.Structure):
    _fields_ = (("data", c_char_p), ("size", c_size_t))


class _Value(ctypes.Union):
    _fields_ = (
        ("text", c_char_p),
        ("int32", c_int32),
        ("int", c_int),
        ("pointer", c_void_p),
        ("bytes", _Bytes),
        ("reserved", ctypes.c_char * 64),
    )


class _Argument(ctypes.Structure):
    """rd_kafka_vu_t: one tagged argument of rd_kafka_produceva()."""

    _fields_ = (("tag", c_int), ("value", _Value))


class _Message(ctypes.Structure):
    """rd_kafka_message_t, read in delivery reports."""

    _fields_ = (
        ("error", c_int),
        ("topic", c_void_p),
        ("partition", c_int32),
        ("payload", c_void_p),
        ("payload_size", c_size_t),
        ("key", c_void_p),
        ("key_size", c_size_t),
        ("offset", c_int64),
        ("opaque", c_void_p),
    )


_DeliveryReport = ctypes.CFUNCTYPE(None, c_void_p, POINTER(_Message), c_void_p)


class LibraryError(StreamworkerError):
    """librdkafka is not there, lacks a function, or refused a call."""


def library_path() -> Path:
    """The shared library beside (Linux) or inside (macOS) the installed confluent_kafka package."""
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise LibraryError("confluent_kafka is not installed in this environment")
    package = Path(spec.origin).parent
    folders = (package.parent / "confluent_kafka.libs", package / ".dylibs")
    found = [path for folder in folders for path in sorted(folder.glob("librdkafka*")) if "++" not in path.name]
    if not found:
        places = " or ".join(str(folder) for folder in folders)
        raise LibraryError(f"no librdkafka in {places}: confluent-kafka must be installed from a wheel")
    return found[0]


class Library:
    """The loaded library."""

    def __init__(self) -> None:
        self._path = library_path()
        self._library = ctypes.CDLL(str(self._path))

    def call(self, name: str, *arguments: object) -> object:
        """What the function `name` returns; raises LibraryError if this librdkafka has none."""
        return self._function(name)(*arguments)

    def checked(self, name: str, *arguments: object) -> None:
        """Call a function that returns an error code; raises LibraryError with the code's name."""
        code = self.call(name, *arguments)
        if code:
            raise LibraryError(f"{name}{self._readable(arguments[1:])}: {self.error_name(code)}")

    def error_name(self, code: object) -> str:
        """Name of an error code, as librdkafka spells it."""
        return _text(self.call("rd_kafka_err2name", code))

    def client(self, settings: Mapping[str, str], delivered: object = None) -> object:
        """A producer instance; `delivered` is a callback made by `_DeliveryReport`."""
        conf = self.call("rd_kafka_conf_new")
        reason = ctypes.create_string_buffer(512)
        for name, value in settings.items():
            if self.call("rd_kafka_conf_set", conf, name.encode(), value.encode(), reason, len(reason)):
                raise LibraryError(f"{name}={value}: {reason.value.decode()}")
        if delivered is not None:
            self.call("rd_kafka_conf_set_dr_msg_cb", conf, ctypes.cast(delivered, c_void_p))  # type: ignore[arg-type]
        client = self.call("rd_kafka_new", _PRODUCER, conf, reason, len(reason))
        if not client:
            raise LibraryError(f"no client instance: {reason.value.decode()}")
        return client

    def _function(self, name: str) -> Callable[..., object]:
        function = getattr(self._library, name, None)
        if function is None:
            version = _text(self.call("rd_kafka_version_str"))
            raise LibraryError(
                f"{name} is not in librdkafka {version} ({self._path.name} of confluent-kafka "
                f"{importlib.metadata.version('confluent-kafka')}); a newer confluent-kafka may have it"
            )
        function.restype, function.argtypes = _SIGNATURES[name]
        return function  # type: ignore[no-any-return]  # what ctypes makes of a symbol is untyped

    @staticmethod
    def _readable(arguments: Sequence[object]) -> str:
        return str(tuple(one.decode(errors="replace") if isinstance(one, bytes) else one for one in arguments))


class Cluster:
    """A mock cluster of `brokers` brokers, numbered from 1, that lives as long as the process."""

    def __init__(self, library: Library, brokers: int) -> None:
        self._library = library
        self._brokers = set(range(1, brokers + 1))
        # Level 2 is critical: a broker that is down on purpose is no news.
        client = library.client({"client.id": "mock-kafka", "log_level": "2"})
        self._cluster = library.call("rd_kafka_mock_cluster_new", client, brokers)
        if not self._cluster:
            raise LibraryError(f"librdkafka made no mock cluster of {brokers} brokers")
        # The default of 3 s, in which a new group waits for more members, would be most of a test's time.
        self._call("group_initial_rebalance_delay_ms", 0)

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all brokers, on the loopback interface."""
        return _text(self._library.call("rd_kafka_mock_cluster_bootstraps", self._cluster))

    def create_topic(self, name: str, partitions: int, replication: int) -> None:
        """Fails for a topic that exists."""
        self._checked("topic_create", name.encode(), partitions, replication)

    def delete_topic(self, name: str) -> None:
        """Fails for a topic that does not exist."""
        self._checked("topic_delete", name.encode())

    def push_errors(self, api_key: int, codes: Sequence[int]) -> None:
        """Answer the next requests of this kind with these codes, one each."""
        array = (c_int * len(codes))(*codes)
        self._call("push_request_errors_array", api_key, len(codes), array)

    def topic_error(self, topic: str, code: int) -> None:
        """Answer everything about the topic with `code` until 0 is set."""
        self._call("topic_set_error", topic.encode(), code)

    def broker_down(self, broker: int) -> None:
        """Close the broker's connections and listen no more."""
        self._checked("broker_set_down", broker)

    def broker_up(self, broker: int) -> None:
        """Listen again, on the same port."""
        self._checked("broker_set_up", broker)

    def broker_rtt(self, broker: int, rtt_ms: int) -> None:
        """Delay the broker's answers."""
        self._checked("broker_set_rtt", broker, rtt_ms)

    def advertise(self, broker: int, host: str, port: int) -> None:
        """Name this address to clients; fails for an unknown broker, which librdkafka would ignore."""
        if broker not in self._brokers:
            raise LibraryError(f"no broker {broker}: there are {sorted(self._brokers)}")
        self._call("broker_set_host_port", broker, host.encode(), port)

    def add_broker(self, broker: int) -> None:
        """Fails for a broker that exists."""
        self._checked("broker_add", broker)
        self._brokers.add(broker)

    def decommission_broker(self, broker: int) -> None:
        """Fails for a broker that does not exist."""
        self._checked("broker_decommission", broker)
        self._brokers.remove(broker)

    def leader(self, topic: str, partition: int, broker: int) -> None:
        """Make `broker` the leader; -1 leaves the partition without one."""
        self._checked("partition_set_leader", topic.encode(), partition, broker)

    def coordinator(self, group: str, broker: int) -> None:
        """Make `broker` the coordinator of the group."""
        self._checked("coordinator_set", b"group", group.encode(), broker)

    def group_session_timeout(self, timeout_ms: int, heartbeat_interval_ms: int) -> None:
        """For groups of the protocol `consumer`."""
        self._call("set_group_consumer_session_timeout_ms", timeout_ms)
        self._call("set_group_consumer_heartbeat_interval_ms", heartbeat_interval_ms)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Make `before` the first offset of the partition."""
        self._checked("partition_delete_records", topic.encode(), partition, before)

    def _call(self, name: str, *arguments: object) -> None:
        self._library.call(f"rd_kafka_mock_{name}", self._cluster, *arguments)

    def _checked(self, name: str, *arguments: object) -> None:
        self._library.checked(f"rd_kafka_mock_{name}", self._cluster, *arguments)


class RawProducer:
    """Produces one record at a time and takes header names as bytes, which the Python client refuses."""

    def __init__(self, library: Library, bootstrap_servers: str) -> None:
        self._library = library
        self._reports: list[tuple[int, int]] = []  # error code and offset of the last record, once it is known
        self._callback = _DeliveryReport(self._delivered)  # must outlive the client: C holds no reference
        settings = {"bootstrap.servers": bootstrap_servers, "log_level": "2", "linger.ms": "0"}
        self._client = library.client(settings, self._callback)

    def produce(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[RawHeader]
    ) -> int:
        """Offset of the acknowledged record. Waits at most 10 s; raises LibraryError if it was refused."""
        self._reports.clear()
        self._hand_over(topic, partition, key, value, headers)
        self._library.call("rd_kafka_flush", self._client, _ACK_TIMEOUT_MS)
        if not self._reports:
            raise LibraryError(f"{topic}[{partition}]: not acknowledged within {_ACK_TIMEOUT_MS} ms")
        code, offset = self._reports[-1]
        if code:
            raise LibraryError(f"{topic}[{partition}]: {self._library.error_name(code)}")
        return offset

    def _hand_over(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[RawHeader]
    ) -> None:
        arguments = (_Argument * 6)(
            _Argument(_TOPIC, _Value(text=topic.encode())),
            _Argument(_PARTITION, _Value(int32=partition)),
            _Argument(_KEY, _Value(bytes=_sized(key))),
            _Argument(_VALUE, _Value(bytes=_sized(value))),
            _Argument(_FLAGS, _Value(int=_COPY_PAYLOAD)),
            _Argument(_HEADERS, _Value(pointer=self._headers(headers))),
        )
        error = self._library.call("rd_kafka_produceva", self._client, arguments, len(arguments))
        if error:
            name = self._library.error_name(self._library.call("rd_kafka_error_code", error))
            self._library.call("rd_kafka_error_destroy", error)
            self._library.call("rd_kafka_headers_destroy", arguments[5].value.pointer)  # ours again after a refusal
            raise LibraryError(f"{topic}[{partition}]: {name}")

    def _headers(self, headers: Sequence[RawHeader]) -> object:
        made = self._library.call("rd_kafka_headers_new", len(headers))
        for name, value in headers:
            size = 0 if value is None else len(value)
            self._library.checked("rd_kafka_header_add", made, name, len(name), value, size)
        return made

    def _delivered(self, _client: object, message: Sequence[_Message], _opaque: object) -> None:
        self._reports.append((message[0].error, message[0].offset))


def _sized(data: bytes | None) -> _Bytes:
    return _Bytes(data, 0 if data is None else len(data))


def _text(answer: object) -> str:
    assert isinstance(answer, bytes)
    return answer.decode()
