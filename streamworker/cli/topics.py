"""`streamworker topics create`: the topics that handlers need, for dead letters, parked keys and retries."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import show_table
from streamworker.cli.findings import retention_ms, source_topics
from streamworker.cli.handlers import import_handlers
from streamworker.cli.options import connect, examples, settings_options, timeout_option
from streamworker.cluster import TopicShape
from streamworker.declaration import declarations, keys_topics
from streamworker.dlq.retries import RetryRoutes
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.cli.findings import Shapes
    from streamworker.cli.options import Sources
    from streamworker.cluster import Cluster
    from streamworker.declaration import Declaration

_DAY_MS = 86_400_000
_COMPACTED = {"cleanup.policy": "compact"}


@click.group()
def topics() -> None:
    """Make the topics that handlers need."""


@topics.command(
    epilog=examples(
        "streamworker topics create app.handlers:StoreOrders --dry-run",
        "streamworker topics create app.handlers:StoreOrders --group orders --partitions 12 --replication 3",
    )
)
@click.argument("handlers", nargs=-1, required=True, metavar="MODULE:CLASS…")
@click.option("--group", help="Consumer group, which retry topics are named after; as --set kafka.group=….")
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
    group: str | None,
    partitions: int | None,
    replication: int | None,
    retention_days: int,
    dry_run: bool,
    timeout_s: float,
) -> None:
    """Create the dead-letter and retry topics of HANDLERS; those that exist are left as they are.

    Beside a dead-letter topic with on_exhausted="dlq_key" also the compacted topic with the parked keys.
    """
    kafka = sources.load_aloud(group=group).config.kafka
    cluster = connect(kafka)
    declared = declarations(import_handlers(handlers, Path.cwd()))
    owners, compacted = _owners(declared, kafka.group), keys_topics(declared)
    shapes = cluster.topics(timeout_s)
    rows: list[Sequence[object]] = [
        (topic, shapes[topic].partitions, shapes[topic].replication, None, "exists")
        for topic in owners
        if topic in shapes
    ]
    for topic in owners.keys() - shapes.keys():
        theirs = source_topics(owners[topic], shapes)
        shape = _shape(topic, theirs, partitions, replication)
        if topic in compacted:
            shape = TopicShape(1, shape.replication)
            outcome = "would be created" if dry_run else _create(cluster, topic, shape, _COMPACTED, timeout_s)
            rows.append((topic, shape.partitions, shape.replication, None, outcome))
            continue
        longest_delay_s = max((one.delay_s for owner in owners[topic] for one in owner.retry.topics), default=0.0)
        at_least_ms = max(retention_days * _DAY_MS, int(longest_delay_s * 1000) + _DAY_MS)
        kept_ms = _longest_retention_ms(cluster, theirs, at_least_ms, timeout_s)
        settings = {"cleanup.policy": "delete", "retention.ms": str(kept_ms)}
        outcome = "would be created" if dry_run else _create(cluster, topic, shape, settings, timeout_s)
        rows.append((topic, shape.partitions, shape.replication, kept_ms, outcome))
    show_table(("topic", "partitions", "replication", "retention.ms", ""), sorted(rows, key=str))


def _owners(handlers: Sequence[Declaration], group: str) -> Mapping[str, Sequence[Declaration]]:
    """The topics that go with handlers, and whose they are."""
    owners: dict[str, list[Declaration]] = {}
    for handler in handlers:
        if handler.dead_letter is not None:
            for topic in (handler.dead_letter.topic, handler.dead_letter.keys_topic):
                if topic is not None:
                    owners.setdefault(topic, []).append(handler)
    if not group and any(handler.retry.topics for handler in handlers):
        raise ConfigurationError("kafka.group is missing: retry topics are named after it; give --group")
    for route in RetryRoutes(handlers, group).all:
        owners[route.name] = [handlers[route.handler]]
    if not owners:
        raise ConfigurationError("none of these handlers declares a dead_letter, so there is no topic to create")
    return owners


def _shape(topic: str, sources: Shapes, partitions: int | None, replication: int | None) -> TopicShape:
    """As wide and as safe as the sources, so that a partition's dead letters keep its number."""
    if not sources and not (partitions and replication):
        raise ConfigurationError(
            f"{topic}: none of the topics it is for exists; create them first, or give --partitions and --replication"
        )
    return TopicShape(
        partitions or max(shape.partitions for shape in sources.values()),
        replication or max(shape.replication for shape in sources.values()),
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
