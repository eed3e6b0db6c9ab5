"""`streamworker topics create`: the topics that handlers need, and those that say what became of their dead letters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import say, show_table
from streamworker.cli.findings import retention_ms, source_topics
from streamworker.cli.handlers import import_handlers
from streamworker.cli.options import TEXT, connect, examples, settings_options, timeout_option
from streamworker.cluster import TopicShape
from streamworker.declaration import declarations, keys_topics
from streamworker.dlq.routes import Routes
from streamworker.errors import ConfigurationError, nearest
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.operations import TOPIC as OPERATIONS_TOPIC
from streamworker.replay.states import state_topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from streamworker.cli.findings import Shapes
    from streamworker.cli.options import Sources
    from streamworker.cluster import Cluster
    from streamworker.declaration import Declaration

_DAY_MS = 86_400_000
_AUDIT_MS = 365 * _DAY_MS
_COMPACTED = {"cleanup.policy": "compact"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A topic that is to be there, as wide and as safe as those of `like` that are, or were made before it."""

    topic: str
    like: Sequence[str]
    partitions: int | None = None  # whatever the others have, and whatever is asked for
    as_wide: bool = False  # as the others, whatever is asked for
    settings: Mapping[str, str] = field(default_factory=dict)  # without, it keeps records as long as the others do
    kept_ms: int = 0  # and at least so long


@click.group()
def topics() -> None:
    """Make the topics that handlers need."""


@topics.command(
    epilog=examples(
        "streamworker topics create app.handlers:StoreOrders --dry-run",
        "streamworker topics create app.handlers:StoreOrders --group orders --partitions 12 --replication 3",
        "streamworker topics create --dead-letters payments.DLT",
    )
)
@click.argument("handlers", nargs=-1, metavar="[MODULE:CLASS]…")
@click.option(
    "--dead-letters",
    "foreign",
    type=TEXT,
    multiple=True,
    metavar="TOPIC",
    help="A dead-letter topic that no handler here names: only what stands beside it is made. May be repeated.",
)
@click.option("--group", help="Consumer group, which replay and retry topics are named after; as --set kafka.group=….")
@click.option("--partitions", type=click.IntRange(min=1), help="As many as the source topic by itself.")
@click.option("--replication", type=click.IntRange(min=1), help="As that of the source topic by itself.")
@click.option(
    "--retention-days",
    type=click.IntRange(min=1),
    default=14,
    show_default=True,
    help="Never less than the source topic's.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be created.")
@timeout_option
@settings_options
def create(
    sources: Sources,
    handlers: Sequence[str],
    foreign: Sequence[str],
    group: str | None,
    partitions: int | None,
    replication: int | None,
    retention_days: int,
    dry_run: bool,
    timeout_s: float,
) -> None:
    """Create the dead-letter, replay and retry topics of HANDLERS; those that exist are left as they are.

    Beside a dead-letter topic also the compacted topic in which it stands what became of its records, with
    on_exhausted="dlq_key" the one with the parked keys, and for all together streamworker.audit and
    streamworker.dlq.ops.
    """
    if not handlers and not foreign:
        raise ConfigurationError("say for what: handlers as MODULE:CLASS, or --dead-letters TOPIC")
    kafka = sources.load_aloud(group=group).config.kafka
    cluster = connect(kafka)
    declared = declarations(import_handlers(handlers, Path.cwd())) if handlers else ()
    there = cluster.topics(timeout_s)
    shapes, rows = dict(there), list[tuple[object, ...]]()
    missing = next((topic for topic in foreign if topic not in there), None)
    if missing is not None:
        raise ConfigurationError(f"there is no topic {missing!r}; {nearest(missing, there)}")
    wanted = _wanted(declared, kafka.group, there, retention_days * _DAY_MS) if declared else ()
    for one in (*wanted, *_beside(foreign)):
        if one.topic in there:
            found = there[one.topic]
            rows.append((one.topic, found.partitions, found.replication, None, "exists"))
        elif one.topic not in shapes:
            alike = {name: shapes[name] for name in one.like if name in shapes}
            shape = shapes[one.topic] = _shape(one, alike, partitions, replication)
            kept_ms = None if one.settings else _longest_retention_ms(cluster, alike, one.kept_ms, timeout_s)
            settings = one.settings or {"cleanup.policy": "delete", "retention.ms": str(kept_ms)}
            outcome = "would be created" if dry_run else _create(cluster, one.topic, shape, settings, timeout_s)
            shown_ms = settings.get("retention.ms")
            rows.append((one.topic, shape.partitions, shape.replication, shown_ms, outcome))
    show_table(("topic", "partitions", "replication", "retention.ms", ""), sorted(rows, key=str))
    if not kafka.group and any(one.dead_letter is not None and one.dead_letter.replay for one in declared):
        say("left out: replay topics, which are named after the group; give --group", to_stderr=True)


def _wanted(handlers: Sequence[Declaration], group: str, there: Shapes, kept_ms: int) -> Iterator[_Wanted]:
    """The topics that go with handlers; what another is like comes after that."""
    letters: dict[str, list[Declaration]] = {}
    for handler in handlers:
        if handler.dead_letter is not None:
            letters.setdefault(handler.dead_letter.topic, []).append(handler)
    if not letters:
        raise ConfigurationError("none of these handlers declares a dead_letter, so there is no topic to create")
    if not group and any(handler.retry.topics for handler in handlers):
        raise ConfigurationError("kafka.group is missing: retry topics are named after it; give --group")
    routes = Routes(handlers, group)
    for topic, owners in letters.items():
        delays_s = [one.delay_s for owner in owners for one in owner.retry.topics]
        yield _Wanted(
            topic=topic, like=list(source_topics(owners, there)), kept_ms=_outlasting(max(delays_s, default=0), kept_ms)
        )
    for topic in keys_topics(handlers):
        yield _Wanted(topic=topic, like=[topic.removesuffix(".keys")], partitions=1, settings=_COMPACTED)
    for route in routes.all if group else ():
        sources = [route.topic] if route.topic in there else list(source_topics([handlers[route.handler]], there))
        # Assignors count partitions: as wide as its source it could be one member's, and the source another's.
        width = 1 if route.is_replay else None
        yield _Wanted(topic=route.name, like=sources, partitions=width, kept_ms=_outlasting(route.delay_s, kept_ms))
    yield from _beside(letters)


def _beside(dead_letter_topics: Collection[str]) -> Iterator[_Wanted]:
    """What says what became of the records of these topics."""
    for topic in dead_letter_topics:
        yield _Wanted(topic=state_topic(topic), like=[topic], as_wide=True, settings=_COMPACTED)
    audit = {"cleanup.policy": "delete", "retention.ms": str(_AUDIT_MS)}
    yield _Wanted(topic=AUDIT_TOPIC, like=list(dead_letter_topics), partitions=1, settings=audit)
    yield _Wanted(topic=OPERATIONS_TOPIC, like=list(dead_letter_topics), partitions=1, settings=_COMPACTED)


def _outlasting(delay_s: float, kept_ms: int) -> int:
    """`kept_ms`, or what keeps records for a day after they are due."""
    return max(kept_ms, int(delay_s * 1000) + _DAY_MS)


def _shape(wanted: _Wanted, alike: Shapes, partitions: int | None, replication: int | None) -> TopicShape:
    """As wide and as safe as what it is like, so that a partition's dead letters keep its number."""
    if not alike and not (partitions and replication):
        raise ConfigurationError(
            f"{wanted.topic}: none of the topics it is for exists; create them first, or give --partitions and"
            f" --replication"
        )
    asked = wanted.partitions if wanted.as_wide else wanted.partitions or partitions
    return TopicShape(
        asked or max(shape.partitions for shape in alike.values()),
        replication or max(shape.replication for shape in alike.values()),
    )


def _longest_retention_ms(cluster: Cluster, sources: Shapes, at_least_ms: int, timeout_s: float) -> int:
    """`at_least_ms`, or the sources' where that is longer and the cluster tells it; -1 keeps for ever."""
    longest_ms: float = at_least_ms
    for source in sources:
        settings = cluster.topic_config(source, timeout_s)
        if settings is None:
            break
        longest_ms = max(longest_ms, retention_ms(settings))
    return -1 if math.isinf(longest_ms) else int(longest_ms)


def _create(cluster: Cluster, topic: str, shape: TopicShape, settings: Mapping[str, str], timeout_s: float) -> str:
    made = cluster.create_topic(topic, shape.partitions, shape.replication, settings, timeout_s)
    return "created" if made else "exists"
