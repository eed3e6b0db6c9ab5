"""`streamworker marks`: what the databases of sinks say was applied, and forgetting it.

Forgetting is dry unless --yes is given. It needs no stop of the workers: whoever writes at that moment is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import say, show_json, show_table
from streamworker.cli.findings import MISSING_GROUP
from streamworker.cli.options import TEXT, examples, json_option, settings_options
from streamworker.cli.sinks import driver_errors_told, placed
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.cli.options import Sources
    from streamworker.cli.sinks import Placed
    from streamworker.sinks.sql import Applied

topic_option = click.option("--topic", "topics", type=TEXT, multiple=True, help="Only this topic; may be repeated.")
partition_option = click.option(
    "--partition", "numbers", type=click.IntRange(min=0), multiple=True, help="Only this partition; may be repeated."
)
group_option = click.option("--group", help="Consumer group; as --set kafka.group=….")


@click.group()
def marks() -> None:
    """Show and reset what the databases of sinks have applied."""


@marks.command(
    epilog=examples(
        "streamworker marks show app.handlers:StoreOrders --group orders",
        "streamworker marks show app.handlers:StoreOrders --topic orders --partition 3 --json",
    )
)
@click.argument("handler", metavar="MODULE:CLASS")
@group_option
@topic_option
@partition_option
@json_option
@settings_options
def show(
    sources: Sources, handler: str, group: str | None, topics: Sequence[str], numbers: Sequence[int], as_json: bool
) -> None:
    """What the sink of HANDLER has applied of each lane: all below the next offset, except the open ones.

    Marks of several numbers of lanes stand beside each other for a while after that number was changed.
    """
    one, _group, found = _found(sources, handler, group, topics, numbers)
    if as_json:
        show_json([_plain(mark) for mark in found])
        return
    columns = ("topic", "partition", "lane", "of", "next offset", "open", "epoch", "owner")
    show_table(columns, [_row(mark) for mark in found])
    if not found:
        say(f"{one.sink.name} has no marks of it", to_stderr=True)


@marks.command(
    epilog=examples(
        "streamworker marks reset app.handlers:StoreOrders --group orders --topic orders --partition 3",
        "streamworker marks reset app.handlers:StoreOrders --topic orders --yes",
    )
)
@click.argument("handler", metavar="MODULE:CLASS")
@group_option
@topic_option
@partition_option
@click.option("--yes", is_flag=True, help="Do it; without, it is only shown.")
@settings_options
def reset(
    sources: Sources, handler: str, group: str | None, topics: Sequence[str], numbers: Sequence[int], yes: bool
) -> None:
    """Let the sink of HANDLER forget what it has applied: all that is delivered from now on has its effect.

    For after the group's offsets were moved back on purpose. What was handled and is not committed yet has its effect a
    second time.
    """
    one, group, found = _found(sources, handler, group, topics, numbers)
    partitions = sorted({mark.partition for mark in found})
    if yes and partitions:
        with driver_errors_told(one):
            one.sink.reset_marks(one.url, group, partitions)
    for partition in partitions:
        furthest = max(mark.next_offset for mark in found if mark.partition == partition)
        say(f"{partition}: applied up to {furthest}, {'forgotten' if yes else 'would be forgotten'}")
    if not partitions:
        say(f"{one.sink.name} has no marks of it", to_stderr=True)
    elif not yes:
        say("nothing was changed; add --yes to do it", to_stderr=True)


def _found(
    sources: Sources, handler: str, group: str | None, topics: Sequence[str], numbers: Sequence[int]
) -> tuple[Placed, str, Sequence[Applied]]:
    """The sink, the group, and the marks that were asked for."""
    config = sources.load_aloud(group=group).config
    if not config.kafka.group:
        raise ConfigurationError(MISSING_GROUP)
    [one] = placed(config, [handler])
    if not one.sink.keeps_marks:
        raise ConfigurationError(f"{one.handler.__name__}: its sink keeps no marks (guard={one.sink.guard!r})")
    with driver_errors_told(one):
        all_marks = one.sink.marks(one.url, config.kafka.group)
    wanted = [
        mark
        for mark in all_marks
        if (not topics or mark.partition.topic in topics) and (not numbers or mark.partition.partition in numbers)
    ]
    return one, config.kafka.group, wanted


def _row(mark: Applied) -> Sequence[object]:
    return (*mark.partition, mark.lane.lane, mark.lane.lanes, mark.next_offset, len(mark.holes), mark.epoch, mark.owner)


def _plain(mark: Applied) -> dict[str, object]:
    return {
        "topic": mark.partition.topic,
        "partition": mark.partition.partition,
        "lane": mark.lane.lane,
        "lanes": mark.lane.lanes,
        "next_offset": mark.next_offset,
        "open": list(mark.holes),
        "epoch": mark.epoch,
        "owner": mark.owner,
    }
