"""What `streamworker check` looks at in the cluster, and what it says of it.

Decided here: what is right, what is only worth a warning, and the command that mends it. Nothing is changed and
nothing is printed. Any thread; blocks for its questions.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streamworker.assembly import replay_key
from streamworker.cluster import GroupState, TopicShape
from streamworker.config import Config, GroupProtocol
from streamworker.dlq.routes import Routes
from streamworker.errors import ClientError, ConfigurationError, nearest
from streamworker.options import KeptIn
from streamworker.record import TopicPartition
from streamworker.replay.states import state_topic

if TYPE_CHECKING:
    from streamworker.declaration import Declaration
    from streamworker.dlq.routes import Route
    from streamworker.interfaces import OffsetMark

Shapes = Mapping[str, TopicShape]

_OF_ONE_GROUP = re.compile(r"\.retry\..+\.[0-9]+$|\.replay\.")

MISSING_GROUP = "kafka.group is missing: name the consumer group by --group or in the configuration"


class Level(enum.Enum):
    """How bad a finding is; only `WRONG` makes the check fail."""

    OK = "ok"
    NOT_CHECKED = "not checked"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `mend` is the command that helps."""

    level: Level
    subject: str
    message: str
    mend: str | None = None


class Asked(Protocol):
    """What is asked of the cluster; as in `Cluster`."""

    def topics(self, timeout_s: float) -> Shapes:
        """All topics that can be seen."""

    def topic_config(self, name: str, timeout_s: float) -> Mapping[str, str] | None:
        """Settings of a topic; None if the cluster does not tell them."""

    def group_state(self, group: str, timeout_s: float) -> GroupState | None:
        """State of a group; None if the cluster does not tell it."""

    def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None, timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """The group's offsets."""

    def log_start_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        """First offset that each has."""

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        """Offset behind the last record of each."""


def look(cluster: Asked, config: Config, handlers: Sequence[Declaration], timeout_s: float) -> Iterator[Finding]:
    """All findings, in the order of what depends on what."""
    if handlers and not config.kafka.group:
        yield Finding(Level.WRONG, "group", MISSING_GROUP, "streamworker check --group …")
    for handler in handlers:
        yield from _written_to(handler, config)
    try:
        replay_key(config.replay)
    except ConfigurationError as error:
        yield Finding(Level.WRONG, "replays", str(error), "streamworker config show")
    servers = config.kafka.bootstrap_servers
    try:
        shapes = cluster.topics(timeout_s)
    except ClientError as error:
        yield Finding(Level.WRONG, f"brokers {servers}", str(error), "streamworker config show")
        return
    yield Finding(Level.OK, f"brokers {servers}", f"reachable, {len(shapes)} topics")
    for handler in handlers:
        yield from _sources(handler, shapes, servers)
    settings = _TopicSettings(cluster, timeout_s)
    for handler in handlers:
        yield from _dead_letters(handler, shapes, settings, servers)
    routes = Routes(handlers, config.kafka.group).all
    for route in routes:
        yield from _route(route, handlers[route.handler], config.kafka.group, shapes, settings, servers)
    retried = {one.name: shapes[one.name] for one in routes if one.name in shapes}
    if config.kafka.group or not handlers:
        yield from _group(cluster, config, {**source_topics(handlers, shapes), **retried}, timeout_s)


def source_topics(handlers: Sequence[Declaration], shapes: Shapes) -> Shapes:
    """The topics there are that `handlers` subscribe to."""
    return {name: shape for name, shape in shapes.items() if any(one.subscribes_to(name) for one in handlers)}


def _written_to(handler: Declaration, config: Config) -> Iterator[Finding]:
    """What a handler writes to, or asks, and nothing says where that is."""
    sink = handler.sink
    if sink is not None and getattr(sink, "connection", sink) is not None and sink.name not in config.sinks:
        message = f"no URL for {sink.name!r} ({handler.name})"
        if config.sinks:
            message += f"; {nearest(sink.name, config.sinks)}"
        yield Finding(Level.WRONG, f"sink {sink.name}", message, f'[sinks] {sink.name} = "…"')
    kept = handler.idempotency
    if kept is not None and kept.kept_in is KeptIn.REDIS and config.claims.redis is None:
        message = f"claims.redis is missing, and {handler.name} keeps claims there"
        yield Finding(Level.WRONG, "claims", message, '[claims] redis = "redis://…"')


def _sources(handler: Declaration, shapes: Shapes, servers: str) -> Iterator[Finding]:
    for topic in handler.topics:
        subject = f"topic {topic}"
        if topic.startswith("^"):
            matching = [name for name in shapes if re.fullmatch(topic[1:].removesuffix("$"), name)]
            told = f"{len(matching)} topics match" if matching else "no topic matches yet"
            yield Finding(Level.OK if matching else Level.WARNING, subject, f"{told} ({handler.name})")
            of_groups = [name for name in matching if _OF_ONE_GROUP.search(name)]
            if of_groups:
                message = f"it also matches {of_groups[0]}, which by its name is for records of one group alone"
                yield Finding(Level.WARNING, subject, message, "let the pattern leave out .retry. and .replay.")
        elif topic in shapes:
            yield Finding(Level.OK, subject, f"{shapes[topic].partitions} partitions ({handler.name})")
        else:
            mend = f"kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions 8"
            message = f"{handler.name} subscribes to it and there is no such topic; {nearest(topic, shapes)}"
            yield Finding(Level.WRONG, subject, message, mend)


class _TopicSettings:
    """Topics' settings. A cluster that declines once declines for all, after a wait, and is not asked again."""

    def __init__(self, cluster: Asked, timeout_s: float) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._told = True

    def of(self, topic: str) -> Mapping[str, str] | None:
        """Settings of `topic`; None if the cluster does not tell them."""
        settings = self._cluster.topic_config(topic, self._timeout_s) if self._told else None
        self._told = settings is not None
        return settings


def _dead_letters(handler: Declaration, shapes: Shapes, settings: _TopicSettings, servers: str) -> Iterator[Finding]:
    if handler.dead_letter is None:
        message = "no dead-letter topic: a record that cannot be handled stops its partition"
        yield Finding(Level.WARNING, f"handler {handler.name}", message, 'dead_letter = DeadLetter("<topic>.dlq")')
        return
    topic = handler.dead_letter.topic
    subject = f"dead-letter topic {topic}"
    if topic not in shapes:
        message = f"{handler.name} needs it and there is no such topic"
        yield Finding(Level.WRONG, subject, message, f"streamworker topics create {_reference(handler)}")
        return
    yield Finding(Level.OK, subject, f"{shapes[topic].partitions} partitions ({handler.name})")
    yield from _states(handler, topic, shapes, settings, servers)
    if handler.dead_letter.keys_topic is not None:
        yield from _parked_keys(handler, handler.dead_letter.keys_topic, shapes, settings, servers)
    kept = settings.of(topic)
    sources = {name: settings.of(name) for name in source_topics([handler], shapes)}
    if kept is None or None in sources.values():
        yield Finding(Level.NOT_CHECKED, subject, "retention: the cluster does not tell the settings of topics")
        return
    for source, theirs in sources.items():
        yield from _compared(topic, kept, source, theirs or {}, servers)
    if "compact" in kept.get("cleanup.policy", ""):
        message = "it is compacted: of several dead letters with one key only the last is kept"
        yield Finding(Level.WARNING, subject, message, _alter(servers, topic, "cleanup.policy=delete"))


def _states(
    handler: Declaration, letters: str, shapes: Shapes, settings: _TopicSettings, servers: str
) -> Iterator[Finding]:
    """Workers do without; who replays, repairs or discards dead letters writes there what became of them."""
    topic = state_topic(letters)
    subject = f"states of dead letters {topic}"
    if topic not in shapes:
        message = f"there is no such topic: nobody can replay or discard dead letters of {handler.name}"
        yield Finding(Level.WARNING, subject, message, f"streamworker topics create {_reference(handler)}")
        return
    if shapes[topic].partitions < shapes[letters].partitions:
        message = f"it has {shapes[topic].partitions} partitions, and {letters} {shapes[letters].partitions}"
        wanted = f"--topic {topic} --partitions {shapes[letters].partitions}"
        yield Finding(Level.WRONG, subject, message, f"kafka-topics.sh --bootstrap-server {servers} --alter {wanted}")
    kept = settings.of(topic)
    if kept is not None and kept.get("cleanup.policy") != "compact":
        message = "it is not only compacted: what was handled would be pending again once that is deleted"
        yield Finding(Level.WRONG, subject, message, _alter(servers, topic, "cleanup.policy=compact"))


def _parked_keys(
    handler: Declaration, topic: str, shapes: Shapes, settings: _TopicSettings, servers: str
) -> Iterator[Finding]:
    subject = f"parked keys {topic}"
    if topic not in shapes:
        message = f"{handler.name} needs it and there is no such topic"
        yield Finding(Level.WRONG, subject, message, f"streamworker topics create {_reference(handler)}")
        return
    kept = settings.of(topic)
    if kept is None:
        yield Finding(Level.NOT_CHECKED, subject, "compaction: the cluster does not tell the settings of topics")
    elif kept.get("cleanup.policy") != "compact":
        message = "it is not only compacted: keys would go on by themselves once their notes are deleted"
        yield Finding(Level.WRONG, subject, message, _alter(servers, topic, "cleanup.policy=compact"))
    else:
        yield Finding(Level.OK, subject, f"compacted ({handler.name})")


def _route(
    route: Route, handler: Declaration, group: str, shapes: Shapes, settings: _TopicSettings, servers: str
) -> Iterator[Finding]:
    subject = f"{route.kind} {route.name}"
    if not group:
        message = f"kafka.group is not set, and {route.kind}s are named after it"
        yield Finding(Level.NOT_CHECKED, subject, message, "streamworker check --set kafka.group=…")
        return
    if route.name not in shapes:
        message = f"{handler.name} needs it and there is no such topic"
        if route.is_replay:
            message = f"there is no such topic: no dead letter of {handler.name} can be sent back to the group"
        mend = f"streamworker topics create {_reference(handler)} --group {group}"
        yield Finding(Level.WRONG, subject, message, mend)
        return
    yield Finding(Level.OK, subject, f"{shapes[route.name].partitions} partitions ({handler.name})")
    kept = settings.of(route.name)
    if kept is None:
        yield Finding(Level.NOT_CHECKED, subject, "retention: the cluster does not tell the settings of topics")
        return
    if not route.is_replay and retention_ms(kept) <= route.delay_s * 1000:
        message = (
            f"its retention is {_days(kept)}, and its records are due after {route.delay_s:g} s: they would be lost"
        )
        yield Finding(Level.WRONG, subject, message, _alter(servers, route.name, "retention.ms=1209600000"))
    if "compact" in kept.get("cleanup.policy", ""):
        message = "it is compacted: of several records with one key only the last would come back"
        yield Finding(Level.WRONG, subject, message, _alter(servers, route.name, "cleanup.policy=delete"))


def _reference(handler: Declaration) -> str:
    """The handler as the command line names it; `make` is its class."""
    return f"{handler.make.__module__}:{handler.name}"


def _compared(
    topic: str, settings: Mapping[str, str], source: str, theirs: Mapping[str, str], servers: str
) -> Iterator[Finding]:
    subject = f"dead-letter topic {topic}"
    if retention_ms(settings) < retention_ms(theirs):
        message = f"its retention is {_days(settings)}, that of {source} {_days(theirs)}: a dead letter goes first"
        wanted_ms = retention_ms(theirs)
        change = f"retention.ms={-1 if math.isinf(wanted_ms) else int(wanted_ms)}"
        yield Finding(Level.WARNING, subject, message, _alter(servers, topic, change))
    if _max_message_bytes(settings) < _max_message_bytes(theirs):
        message = f"it takes smaller records than {source}: a large dead letter loses its value"
        change = f"max.message.bytes={_max_message_bytes(theirs)}"
        yield Finding(Level.WARNING, subject, message, _alter(servers, topic, change))


def _alter(servers: str, topic: str, change: str) -> str:
    return (
        f"kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic}"
        f" --add-config {change}"
    )


def retention_ms(settings: Mapping[str, str]) -> float:
    """How long a topic keeps its records; infinite if it does not delete by time."""
    kept_ms = int(settings.get("retention.ms", "-1"))
    return math.inf if kept_ms < 0 or settings.get("cleanup.policy", "delete") == "compact" else kept_ms


def _days(settings: Mapping[str, str]) -> str:
    kept_ms = retention_ms(settings)
    return "unlimited" if math.isinf(kept_ms) else f"{kept_ms / 86_400_000:g} days"


def _max_message_bytes(settings: Mapping[str, str]) -> int:
    return int(settings.get("max.message.bytes", "0"))


def _group(cluster: Asked, config: Config, sources: Shapes, timeout_s: float) -> Iterator[Finding]:
    group = config.kafka.group
    if not group:
        yield Finding(Level.NOT_CHECKED, "group", "kafka.group is not set", "streamworker check --group …")
        return
    subject = f"group {group}"
    state = cluster.group_state(group, timeout_s)
    if state is None:
        yield Finding(Level.NOT_CHECKED, subject, "the cluster does not tell a group's state")
    else:
        yield Finding(Level.OK, subject, f"{state.state.lower().replace('_', ' ')}, {state.members} members")
    if config.kafka.group_protocol is GroupProtocol.CONSUMER:
        message = f"kafka.session_timeout_s ({config.kafka.session_timeout_s:g}) must be the group's; brokers decide it"
        yield Finding(Level.NOT_CHECKED, subject, message)
    yield from _offsets(cluster, group, sources, timeout_s)


def _offsets(cluster: Asked, group: str, sources: Shapes, timeout_s: float) -> Iterator[Finding]:
    partitions = [TopicPartition(name, number) for name, shape in sources.items() for number in range(shape.partitions)]
    if not partitions:
        return
    marks = cluster.group_offsets(group, partitions, timeout_s)
    starts = cluster.log_start_offsets(partitions, timeout_s)
    ends = cluster.end_offsets(partitions, timeout_s)
    for partition, mark in marks.items():
        if mark is not None and not starts[partition] <= mark.offset <= ends[partition]:
            message = (
                f"{partition} is committed at {mark.offset} and has {starts[partition]} to {ends[partition]}:"
                f" it would be stopped"
            )
            where = f"--topic {partition.topic} --partition {partition.partition}"
            mend = f"streamworker offsets reset {group} {where} --to-earliest"
            yield Finding(Level.WRONG, f"group {group}", message, mend)
