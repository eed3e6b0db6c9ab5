"""A Kafka cluster for tests, without Kafka: librdkafka's mock cluster in a process of its own.

Real clients and real worker processes connect to it by TCP on the loopback interface. It speaks
groups, leader epochs, leader and coordinator moves, and answers with errors on request. It is not
Kafka, though: no admin requests, no TLS or SASL, no quotas, no transaction isolation and no fencing of
zombies, no limit on the size of commit metadata, no compaction; a partition keeps its last 5 MiB and
drops the rest silently. A classic group that all members have left lets the next one in only when a session timeout is
over. What depends on these belongs on a real Kafka.

Decided here: how to start, ask and end the process. It ends when its standard input closes, so it
cannot outlive a test run that was killed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, Self

import msgspec

from streamworker.errors import StreamworkerError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RawHeader = tuple[bytes, bytes | None]

# The protocol's numbers, https://kafka.apache.org/protocol#protocol_api_keys
API_KEYS = {
    "Produce": 0,
    "Fetch": 1,
    "ListOffsets": 2,
    "Metadata": 3,
    "OffsetCommit": 8,
    "OffsetFetch": 9,
    "FindCoordinator": 10,
    "JoinGroup": 11,
    "Heartbeat": 12,
    "LeaveGroup": 13,
    "SyncGroup": 14,
    "ApiVersions": 18,
    "InitProducerId": 22,
    "OffsetForLeaderEpoch": 23,
    "AddPartitionsToTxn": 24,
    "AddOffsetsToTxn": 25,
    "EndTxn": 26,
    "TxnOffsetCommit": 28,
    "ConsumerGroupHeartbeat": 68,
}

# Of groups with the protocol `consumer`. Members hear of each other sooner than by the client's 3 s, which suits tests.
_SESSION_MS, _HEARTBEAT_MS = 30_000, 500

_END_TIMEOUT_S = 5.0  # it ends at once; this is for a machine under load


class MockKafkaError(StreamworkerError):
    """The mock cluster could not be started, is gone, or refused a call."""


class Call(msgspec.Struct, tag=True):
    """Request to the process: a method of the cluster, by name. One JSON line."""

    method: str
    arguments: list[str | int | list[int]]


class Produce(msgspec.Struct, tag=True):
    """Request to the process: one record, to be acknowledged. One JSON line, bytes as base64."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[RawHeader]


class Answer(msgspec.Struct):
    """One JSON line for each request, and one at the start: the value, or why there is none."""

    value: str | int | None = None
    error: str | None = None


class MockKafka:
    """A mock cluster that runs from construction to `close()`, or to the end of the `with` block.

    Brokers are numbered from 1. `topics` maps names to partition counts. Methods block for
    milliseconds, `produce_raw` for at most 10 s; they may be called from any thread, one at a time goes through.
    All raise MockKafkaError when the cluster refuses. Error codes are the protocol's, which
    `confluent_kafka.KafkaError` has as constants.
    """

    def __init__(self, brokers: int = 1, topics: Mapping[str, int] | None = None) -> None:
        self._lock = threading.Lock()  # keeps a request and its answer together
        # A session of its own: Ctrl-C is for the test run, which still needs the cluster while it tears down.
        self._process = subprocess.Popen(  # noqa: S603 - our own module in this interpreter
            [sys.executable, "-m", "streamworker.testing._mock_process", str(brokers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self.bootstrap_servers = str(self._answer())
            self.group_session_timeout(_SESSION_MS, _HEARTBEAT_MS)
            for name, partitions in (topics or {}).items():
                self.create_topic(name, partitions)
        except BaseException:
            self.close()  # nobody else has a reference to it
            raise

    @property
    def pid(self) -> int:
        """Process that the cluster runs in."""
        return self._process.pid

    def create_topic(self, name: str, partitions: int, replication: int = 1) -> None:
        """A topic that exists is an error. Topics that a client asks for come into being with 4 partitions."""
        self._ask(Call("create_topic", [name, partitions, replication]))

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records; `create_topic` makes it anew, with another id and offsets from 0.

        A client that still asks for it by name, as producers do, brings it back at once with 4 partitions.
        """
        self._ask(Call("delete_topic", [name]))

    def push_errors(self, api: str, *codes: int) -> None:
        """Answer the next requests of kind `api` with these codes, in order, one each; 0 lets one through."""
        if api not in API_KEYS:
            raise MockKafkaError(f"no request is called {api!r}: {nearest(api, API_KEYS)}")
        self._ask(Call("push_errors", [API_KEYS[api], list(codes)]))

    def topic_error(self, topic: str, code: int) -> None:
        """Answer metadata requests for the topic with `code`, until 0 is set.

        Records are still fetched and produced by clients that know the topic; see `push_errors` for these.
        """
        self._ask(Call("topic_error", [topic, code]))

    def broker_down(self, broker: int) -> None:
        """Close the broker's connections and refuse new ones."""
        self._ask(Call("broker_down", [broker]))

    def broker_up(self, broker: int) -> None:
        """Listen again, on the same port."""
        self._ask(Call("broker_up", [broker]))

    def broker_rtt(self, broker: int, rtt_ms: int) -> None:
        """Delay the broker's answers."""
        self._ask(Call("broker_rtt", [broker, rtt_ms]))

    def broker_port(self, broker: int) -> int:
        """Port on the loopback interface that the broker listens on, whatever it advertises.

        Not known of brokers that were added later.
        """
        addresses = self.bootstrap_servers.split(",")
        if not 1 <= broker <= len(addresses):
            raise MockKafkaError(f"no port is known of broker {broker}, only of brokers 1 to {len(addresses)}")
        return int(addresses[broker - 1].rpartition(":")[2])

    def advertise(self, broker: int, host: str, port: int) -> None:
        """Send clients to this address for the broker, such as a proxy's; it goes on listening where it did.

        Clients learn of it with their next metadata, so does `produce_raw`. `bootstrap_servers` stays as it was.
        """
        self._ask(Call("advertise", [broker, host, port]))

    def add_broker(self, broker: int) -> None:
        """Start one more broker, on a port that clients learn of with their next metadata.

        All partitions are dealt out anew over all brokers.
        """
        self._ask(Call("add_broker", [broker]))

    def decommission_broker(self, broker: int) -> None:
        """Take the broker out of the cluster for good. All partitions are dealt out anew over the others."""
        self._ask(Call("decommission_broker", [broker]))

    def leader(self, topic: str, partition: int, broker: int) -> None:
        """Make `broker` the leader of the partition.

        -1 leaves it without one; the cluster of librdkafka 2.16 may then die of a segmentation fault, so take a
        broker down instead where clients go on.
        """
        self._ask(Call("leader", [topic, partition, broker]))

    def coordinator(self, group: str, broker: int) -> None:
        """Make `broker` the coordinator of the group."""
        self._ask(Call("coordinator", [group, broker]))

    def group_session_timeout(self, timeout_ms: int, heartbeat_interval_ms: int) -> None:
        """How long a silent member of a group with the protocol `consumer` is waited for: 30 s unless set.

        The interval is the one that members are told to keep, 0.5 s unless set; if it is longer than the timeout,
        living members are expelled. A group takes both over with the next heartbeat of a member. In groups with the
        protocol `classic` each member has its own `session.timeout.ms`.
        """
        self._ask(Call("group_session_timeout", [timeout_ms, heartbeat_interval_ms]))

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Make `before` the first offset of the partition, as retention does."""
        self._ask(Call("delete_records", [topic, partition, before]))

    def produce_raw(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[RawHeader] = (),
    ) -> int:
        """Produce one record and wait for its offset. Header names are bytes, and need not be UTF-8."""
        offset = self._ask(Produce(topic, partition, key, value, list(headers)))
        assert isinstance(offset, int)
        return offset

    def close(self) -> None:
        """End the process; its ports are closed when this returns. Idempotent."""
        stdin, stdout = self._pipes()
        with contextlib.suppress(BrokenPipeError):  # a request that the process did not live to read
            stdin.close()
        stdout.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _ask(self, request: Call | Produce) -> str | int | None:
        stdin, _ = self._pipes()
        with self._lock:
            if stdin.closed:
                raise MockKafkaError("the mock cluster is closed")
            try:
                stdin.write(msgspec.json.encode(request) + b"\n")
                stdin.flush()
            except BrokenPipeError as error:
                raise self._gone() from error
            return self._answer()

    def _answer(self) -> str | int | None:
        _, stdout = self._pipes()
        line = stdout.readline()
        if not line:
            raise self._gone()
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error is not None:
            raise MockKafkaError(answer.error)
        return answer.value

    def _gone(self) -> MockKafkaError:
        code = self._process.wait(_END_TIMEOUT_S)
        return MockKafkaError(f"the mock cluster's process {self.pid} ended with code {code}; see its standard error")

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout
