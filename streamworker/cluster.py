"""The only door to the client's AdminClient: questions about topics, offsets and groups, and the few changes.

Nothing is decided here. Any thread; each call blocks for at most its `timeout_s`, and what the client cannot do
becomes `ClientError`.
"""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it exports
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from streamworker.client_log import ClientLogger
from streamworker.errors import ClientError
from streamworker.interfaces import CommitAnswer, OffsetMark
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from confluent_kafka.admin import DeletedRecords  # type: ignore[attr-defined]  # as above

T = TypeVar("T")

# Also what librdkafka's mock cluster answers: it has no controller to ask.
_NOT_TOLD = frozenset({"_UNSUPPORTED_FEATURE", "TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"})
_NO_CONTROLLER = "waiting for controller"

_LOST = frozenset({"_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN"})

_NO_SUCH_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})

_URL_SAFE = str.maketrans("+/", "-_")

_GRACE_S = 1.0  # the client answers within its own timeout; this is for the hand-over between threads


@dataclass(frozen=True, slots=True)
class TopicShape:
    """How a topic is laid out."""

    partitions: int
    replication: int


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group as its coordinator sees it. `state` is Kafka's name of it, in capitals."""

    state: str
    members: int
    owners: Mapping[TopicPartition, str] = field(default_factory=dict)  # who has which partition, by name and host
    simple: bool = False  # its offsets are committed by somebody who is no member, and chooses partitions himself

    @property
    def live(self) -> bool:
        """Whether it has members, whose offsets must not be moved from outside."""
        return self.members > 0

    @property
    def tells_owners(self) -> bool:
        """Whether a partition that is not in `owners` has none; amid a classic rebalance nobody is listed."""
        return not self.simple and self.state not in ("PREPARING_REBALANCING", "COMPLETING_REBALANCING")


@dataclass(frozen=True, slots=True)
class GroupListing:
    """Consumer groups that this client may see, with Kafka's name of their state; not `whole`: of some brokers."""

    states: Mapping[str, str]
    whole: bool


class Cluster:
    """A `Log` over an AdminClient with `settings`, librdkafka's options; and what the command line asks besides."""

    def __init__(self, settings: Mapping[str, str | int | float | bool]) -> None:
        self._trouble: str | None = None  # what the client last said of its connections
        self._has_controller = False
        try:
            self._client = AdminClient(
                {**settings, "error_cb": self._on_error},  # type: ignore[dict-item]  # the stub knows no callbacks
                logger=ClientLogger(),
            )
        except KafkaException as error:
            raise _client_error(error.args[0]) from error

    def take_credentials(self, username: str, password: str) -> None:
        """Show these to brokers from the next connection on."""
        self._client.set_sasl_credentials(username, password)

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        """As `Log.end_offsets`: behind the last committed record of each."""
        return self._offsets(partitions, OffsetSpec.latest(), timeout_s)  # type: ignore[no-untyped-call]

    def log_start_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        """First offset that each still has."""
        return self._offsets(partitions, OffsetSpec.earliest(), timeout_s)  # type: ignore[no-untyped-call]

    def bounds(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """First offset that each still has, and the one behind its last; one that gives no answer is left out."""
        asked = _client_partitions(partitions)
        if not asked:
            return {}
        with self._call():
            starts, ends = (
                self._client.list_offsets(
                    dict.fromkeys(asked, which),
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=timeout_s,
                )
                for which in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
            )
            found = {
                one: (_answer_or_none(starts[one], timeout_s), _answer_or_none(ends[one], timeout_s)) for one in asked
            }
        return {
            _partition(one): (start.offset, end.offset)
            for one, (start, end) in found.items()
            if start is not None and end is not None
        }

    def offsets_at(
        self, partitions: Sequence[TopicPartition], timestamp_ms: int, timeout_s: float
    ) -> Mapping[TopicPartition, int]:
        """As `Log.offsets_at`."""
        found = self._offsets(partitions, OffsetSpec.for_timestamp(timestamp_ms), timeout_s / 2)
        beyond = [partition for partition, offset in found.items() if offset < 0]
        return {**found, **self.end_offsets(beyond, timeout_s / 2)}

    def partitions(self, topic: str, timeout_s: float) -> Sequence[TopicPartition]:
        """As `Log.partitions`."""
        with self._call():
            metadata = self._client.list_topics(topic, timeout=timeout_s).topics[topic]
        if metadata.error is not None and metadata.error.name() not in _NO_SUCH_TOPIC:
            raise _client_error(metadata.error, f"topic {topic}")
        return [TopicPartition(topic, number) for number in sorted(metadata.partitions)]

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> Mapping[str, str]:
        """As `Log.topic_ids`."""
        with self._call():
            if self._is_mock(timeout_s / 2):
                return {}
            asked = self._client.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s / 2)
            described = {topic: _answer_or_none(answer, timeout_s / 2) for topic, answer in asked.items()}
        found = {topic: str(one.topic_id) for topic, one in described.items() if one is not None}
        # The client writes base64 with + and /, all others, and Kafka itself, with - and _.
        return {topic: text.translate(_URL_SAFE).rstrip("=") for topic, text in found.items()}

    def topics(self, timeout_s: float) -> Mapping[str, TopicShape]:
        """All topics that this client may see."""
        with self._call():
            topics = self._client.list_topics(timeout=timeout_s).topics
        return {
            name: TopicShape(len(topic.partitions), min(len(one.replicas) for one in topic.partitions.values()))
            for name, topic in topics.items()
            if topic.partitions
        }

    def create_topic(
        self, name: str, partitions: int, replication: int, config: Mapping[str, str], timeout_s: float
    ) -> bool:
        """Create a topic; false if there is one of that name already."""
        wanted = NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(config))
        try:
            with self._call():
                _answer(self._client.create_topics([wanted], request_timeout=timeout_s)[name], timeout_s)
        except ClientError as error:
            if error.code == "TOPIC_ALREADY_EXISTS":
                return False
            raise
        return True

    def topic_config(self, name: str, timeout_s: float) -> Mapping[str, str] | None:
        """Settings of a topic; None if this cluster does not tell them (no such API, or not allowed)."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        try:
            with self._call():
                if self._is_mock(timeout_s):
                    return None
                answer = self._client.describe_configs([resource], request_timeout=timeout_s)[resource]
                entries = _answer(answer, timeout_s)
        except ClientError as error:
            if error.code in _NOT_TOLD or _NO_CONTROLLER in str(error):
                return None
            raise
        return {key: entry.value for key, entry in entries.items() if entry.value is not None}

    def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None, timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """The group's offsets, None where there is none; all that it has when `partitions` is None."""
        asked = None if partitions is None else _client_partitions(partitions)
        with self._call():
            request = [ConsumerGroupTopicPartitions(group, asked)]
            answer = self._client.list_consumer_group_offsets(request, request_timeout=timeout_s)[group]
            offsets = _answer(answer, timeout_s).topic_partitions
        return {_partition(one): _mark(one) for one in offsets}

    def stable_group_offsets(
        self, group: str, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """The same once no transaction is open that would change them; raises ClientError while one is."""
        with self._call():
            request = [ConsumerGroupTopicPartitions(group, _client_partitions(partitions))]
            answer = self._client.list_consumer_group_offsets(request, require_stable=True, request_timeout=timeout_s)[
                group
            ]
            offsets = _answer(answer, timeout_s).topic_partitions
        for one in offsets:
            if one.error is not None:
                raise _client_error(one.error)
        return {_partition(one): _mark(one) for one in offsets}

    def set_group_offsets(
        self, group: str, marks: Mapping[TopicPartition, OffsetMark], timeout_s: float
    ) -> Sequence[CommitAnswer]:
        """Set the offsets of a group without members; brokers refuse it for one that has some."""
        wanted = [ClientPartition(one.topic, one.partition, mark.offset, mark.metadata) for one, mark in marks.items()]
        with self._call():
            request = [ConsumerGroupTopicPartitions(group, wanted)]
            answer = self._client.alter_consumer_group_offsets(request, request_timeout=timeout_s)[group]
            answers = _answer(answer, timeout_s).topic_partitions
        return [
            CommitAnswer(_partition(one), marks[_partition(one)], None if one.error is None else one.error.name())
            for one in answers
        ]

    def delete_records(
        self, before: Mapping[TopicPartition, int], timeout_s: float
    ) -> Mapping[TopicPartition, int | str]:
        """Delete the records before an offset of each partition; where each begins now, or the error's name."""
        wanted = [ClientPartition(one.topic, one.partition, offset) for one, offset in before.items()]
        if not wanted:
            return {}
        with self._call():
            answers = self._client.delete_records(wanted, request_timeout=timeout_s, operation_timeout=timeout_s)
            return {_partition(one): _begins_at(answer, timeout_s) for one, answer in answers.items()}

    def group_state(self, group: str, timeout_s: float) -> GroupState | None:
        """State of a group, `DEAD` for one that does not exist; None if this cluster does not tell it."""
        try:
            with self._call():
                answer = self._client.describe_consumer_groups([group], request_timeout=timeout_s)[group]
                found = _answer(answer, timeout_s)
        except ClientError as error:
            if error.code in ("_UNSUPPORTED_FEATURE", "GROUP_AUTHORIZATION_FAILED"):
                return None
            if error.code == "GROUP_ID_NOT_FOUND":
                return GroupState("DEAD", 0)
            raise
        owners = {
            _partition(one): f"{member.group_instance_id or member.client_id} ({member.host.removeprefix('/')})"
            for member in found.members
            for one in member.assignment.topic_partitions
        }
        return GroupState(found.state.name, len(found.members), owners, simple=bool(found.is_simple_consumer_group))

    def groups(self, timeout_s: float) -> GroupListing | None:
        """All consumer groups that this client may see; None if this cluster does not tell them."""
        with self._call():
            found = _answer(self._client.list_consumer_groups(request_timeout=timeout_s), timeout_s)
        errors: list[KafkaError] = list(found.errors or ())
        if not found.valid and errors:
            if all(error.name() in _NOT_TOLD for error in errors):
                return None
            raise _client_error(errors[0])
        states = {one.group_id: "UNKNOWN" if one.state is None else one.state.name for one in found.valid or ()}
        return GroupListing(states, whole=not errors)

    def offsets_of_groups(
        self, groups: Sequence[str], partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[str, Mapping[TopicPartition, OffsetMark]]:
        """What each group has of these partitions, asked for at once; one that gives no answer in time is left out."""
        asked = _client_partitions(partitions)
        with self._call():
            answers = {
                group: self._client.list_consumer_group_offsets(
                    [ConsumerGroupTopicPartitions(group, asked)], request_timeout=timeout_s
                )[group]
                for group in groups
            }
            found = {group: _answer_or_none(answer, timeout_s) for group, answer in answers.items()}
        return {
            group: {
                _partition(one): mark
                for one in answer.topic_partitions
                if one.error is None and (mark := _mark(one)) is not None
            }
            for group, answer in found.items()
            if answer is not None
        }

    def _is_mock(self, timeout_s: float) -> bool:
        """Whether it is a mock cluster, which would let us wait for its controller: it has none.

        A cluster that has shown one is not asked again; one without may be choosing another.
        """
        if not self._has_controller:
            metadata = self._client.list_topics(timeout=timeout_s)
            self._has_controller = metadata.controller_id in metadata.brokers
        return not self._has_controller

    @contextmanager
    def _call(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            self._client.poll(0)  # brings what the client says of its connections
            reason: KafkaError = error.args[0]
            raise _client_error(reason, self._trouble if reason.name() in _LOST else None) from error
        except FutureTimeoutError as error:
            raise ClientError("the client did not answer in time", code="_TIMED_OUT", retriable=True) from error
        finally:
            self._client.poll(0)  # otherwise its log lines pile up in memory

    def _offsets(
        self, partitions: Sequence[TopicPartition], which: OffsetSpec, timeout_s: float
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        asked = dict.fromkeys(_client_partitions(partitions), which)
        with self._call():
            answers = self._client.list_offsets(
                asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_s
            )
            return {_partition(one): _answer(answer, timeout_s).offset for one, answer in answers.items()}

    def _on_error(self, error: KafkaError) -> None:
        if error.name() != "_ALL_BROKERS_DOWN":  # the broker's own error, which came before, says more
            self._trouble = error.str()


def _client_error(error: KafkaError, detail: str | None = None) -> ClientError:
    text = error.str() if detail is None else f"{error.str()} ({detail})"
    return ClientError(text, code=error.name(), retriable=error.retriable())


def _answer(future: Future[T], timeout_s: float) -> T:
    return future.result(timeout_s + _GRACE_S)


def _answer_or_none(future: Future[T], timeout_s: float) -> T | None:
    try:
        return _answer(future, timeout_s)
    except KafkaException:
        return None


def _begins_at(future: Future[DeletedRecords], timeout_s: float) -> int | str:
    try:
        return int(_answer(future, timeout_s).low_watermark)
    except KafkaException as error:
        return str(error.args[0].name())


def _client_partitions(partitions: Iterable[TopicPartition]) -> list[ClientPartition]:
    return [ClientPartition(topic, number) for topic, number in partitions]


def _partition(one: ClientPartition) -> TopicPartition:
    return TopicPartition(one.topic, one.partition)


def _mark(one: ClientPartition) -> OffsetMark | None:
    if one.error is not None:
        raise _client_error(one.error, str(_partition(one)))
    return None if one.offset == OFFSET_INVALID else OffsetMark(one.offset, one.metadata or "")
