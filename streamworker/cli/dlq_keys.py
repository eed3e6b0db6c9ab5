"""`streamworker dlq keys | release-key`: the keys whose records follow a dead letter, and letting them go on.

Releasing is dry unless --yes is given. It needs no stop of the workers: they read it within moments.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import key_text, say, show_json, show_table
from streamworker.cli.options import TEXT, connect, examples, json_option, settings_options, timeout_option
from streamworker.clock import SystemClock
from streamworker.dlq.key_log import KafkaKeyLog
from streamworker.dlq.key_notes import PARTITION, Note, ParkedKey, letter_of, read_note
from streamworker.dlq.outbox import KafkaOutbox
from streamworker.errors import ClientError, ConfigurationError, nearest
from streamworker.librdkafka import key_log_settings, producer_settings
from streamworker.options import keys_topic
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.cli.options import Sources
    from streamworker.config import Config

    Parked = Mapping[ParkedKey, int]

_POLL_S = 0.1
_AT_ONCE = 1000  # far fewer than the producer's queue takes


@click.command(
    epilog=examples("streamworker dlq keys orders.dlq", "streamworker dlq keys orders.dlq --group shop --json")
)
@click.argument("topic", type=TEXT)
@click.option("--group", type=TEXT, help="Only those of this consumer group.")
@json_option
@timeout_option
@settings_options
def keys(sources: Sources, topic: str, group: str | None, as_json: bool, timeout_s: float) -> None:
    """List the keys that are parked behind a dead letter in TOPIC (on_exhausted="dlq_key"), and from which offset on.

    Keys that are no text are shown as 0x… in hexadecimal digits.
    """
    parked = _parked(sources.load_aloud().config, topic, timeout_s)
    found = sorted((one, first) for one, first in parked.items() if group in (None, one.group))
    if as_json:
        show_json([_plain(one, first) for one, first in found])
        return
    rows = [(one.group, *one.partition, key_text(one.key), first) for one, first in found]
    show_table(("group", "topic", "partition", "key", "from offset"), rows)


@click.command(
    epilog=examples(
        "streamworker dlq release-key orders.dlq customer-17 --group shop",
        "streamworker dlq release-key orders.dlq 0x8a01 --hex --group shop --yes",
        "streamworker dlq release-key orders.dlq --all --group shop --yes",
        "streamworker dlq release-key orders.dlq customer-17 --group shop --in orders.replay.shop --yes",
    )
)
@click.argument("topic", type=TEXT)
@click.argument("key", nargs=-1)
@click.option("--group", type=TEXT, required=True, help="The consumer group for which they are parked.")
@click.option("--hex", "in_hex", is_flag=True, help="KEY is given in hexadecimal digits.")
@click.option("--all", "all_keys", is_flag=True, help="All of the group, instead of KEY.")
@click.option("--in", "parked_in", type=TEXT, help="Only what is parked in this topic, for instance a replay topic.")
@click.option("--yes", is_flag=True, help="Do it; without, it is only shown.")
@timeout_option
@settings_options
def release_key(
    sources: Sources,
    topic: str,
    key: Sequence[str],
    group: str,
    in_hex: bool,
    all_keys: bool,
    parked_in: str | None,
    yes: bool,
    timeout_s: float,
) -> None:
    """Let records of each KEY be handled again that is parked behind a dead letter in TOPIC.

    Its dead letters stay where they are. Written to their topic again while the key is parked, they would come back.
    """
    if bool(key) == all_keys:
        raise click.UsageError("give KEY or --all")
    config = sources.load_aloud().config
    parked = {
        one: first
        for one, first in _parked(config, topic, timeout_s).items()
        if one.group == group and parked_in in (None, one.partition.topic)
    }
    chosen = parked if all_keys else _chosen(parked, [_bytes(one, in_hex=in_hex) for one in key], group)
    if yes:
        _release(config, topic, list(chosen), timeout_s)
    for one in sorted(chosen):
        say(f"{one.partition}: {key_text(one.key)} {'released' if yes else 'would be released'}")
    if not yes and chosen:
        say("nothing was changed; add --yes to do it", to_stderr=True)


def _parked(config: Config, topic: str, timeout_s: float) -> Parked:
    """All that is parked behind dead letters in `topic`, whatever the group."""
    cluster, name = connect(config.kafka), keys_topic(topic)
    if not cluster.partitions(name, timeout_s):
        there = [one.removesuffix(".keys") for one in cluster.topics(timeout_s) if one.endswith(".keys")]
        known = f"; {nearest(topic, there)}" if there else ""
        raise ConfigurationError(f"there is no topic {name!r} with parked keys of {topic!r}{known}")
    end = cluster.end_offsets([TopicPartition(name, PARTITION)], timeout_s)[TopicPartition(name, PARTITION)]
    with closing(KafkaKeyLog(key_log_settings(config.kafka), [name])) as key_log:
        return _read(key_log, name, end, timeout_s)


def _read(key_log: KafkaKeyLog, topic: str, end: int, timeout_s: float) -> Parked:
    parked: dict[ParkedKey, int] = {}
    clock = SystemClock()
    until_s = clock.monotonic_s() + timeout_s
    while key_log.reached(topic) < end:
        notes = key_log.poll(_POLL_S)
        until_s = clock.monotonic_s() + timeout_s if notes else until_s
        if clock.monotonic_s() > until_s:
            raise ClientError(f"{topic} was read to {key_log.reached(topic)} of {end} in time", code="_TIMED_OUT")
        for note in (read_note(key, value) for key, value in notes):
            if note is not None and note.first is not None:
                parked[note.parked] = min(note.first, parked.get(note.parked, note.first))
            elif note is not None:
                parked.pop(note.parked, None)
    return parked


def _chosen(parked: Parked, wanted: Sequence[bytes], group: str) -> Parked:
    for key in wanted:
        if key not in {one.key for one in parked}:
            known = sorted({key_text(one.key) for one in parked})
            told = nearest(key_text(key), known) if known else "none is"
            raise ConfigurationError(f"key {key_text(key)!r} is not parked for group {group!r}; {told}")
    return {one: first for one, first in parked.items() if one.key in wanted}


def _release(config: Config, topic: str, chosen: Sequence[ParkedKey], timeout_s: float) -> None:
    clock = SystemClock()
    outbox = KafkaOutbox(producer_settings(config.kafka, config.dead_letters), clock)
    errors: list[str] = []
    for number, one in enumerate(chosen):
        letter = letter_of(Note(one, None), keys_topic(topic), clock.wall_ms())
        if not number % _AT_ONCE:
            outbox.flush(timeout_s)
        outbox.send(letter, lambda error: errors.append(error) if error is not None else None)
    unanswered = outbox.flush(timeout_s)
    if errors or unanswered:
        refused = f"{len(errors)} refused ({', '.join(sorted(set(errors)))})" if errors else "none refused"
        raise ClientError(
            f"of {len(chosen)} keys {unanswered} are not acknowledged, {refused}; run it again", code="_TIMED_OUT"
        )


def _bytes(key: str, *, in_hex: bool) -> bytes:
    if not in_hex:
        return key.encode("utf-8", "surrogateescape")
    try:
        return bytes.fromhex(key.removeprefix("0x"))
    except ValueError as error:
        raise ConfigurationError(f"--hex: {key!r} is not an even number of hexadecimal digits") from error


def _plain(parked: ParkedKey, first: int) -> dict[str, object]:
    return {
        "group": parked.group,
        "topic": parked.partition.topic,
        "partition": parked.partition.partition,
        "key": key_text(parked.key),
        "key_hex": parked.key.hex(),
        "from_offset": first,
    }
