"""`python -m benchmarks.dead_letters`: how fast a view of a dead-letter topic is built, what it takes, how it answers.

A topic of four partitions with so many of our own letters, of 200 bytes of payload each, and one in five has been acted
on. In each round it is consumed by the bare client, without headers and with them, and read into a view, each in a
process of its own; ratios are taken within a round.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.progress import Progress

from benchmarks.asked import Asked
from benchmarks.dead_letters_row import CONSUMED, FILTERS, HEADERS, VIEW
from benchmarks.topics import PARTITIONS, VALUE_BYTES, new_topic
from streamworker.config import KafkaConfig
from streamworker.dlq.envelope import Attempt, envelope
from streamworker.librdkafka import topic_log_settings
from streamworker.reason import Reason
from streamworker.record import TopicPartition
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import Disposition, State, digest, encode, key_of, state_topic
from streamworker.testing.memory_broker import MemoryMessage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers.kafka import obtain_kafka

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.record import Letter

BUILT, ANSWER_S, MEMORY_MIB = 0.5, 1.0, 50.0  # at least, of the bare client's rate; at most; at most
_SAID_EVERY = 5
_ROW_S, _TIMEOUT_S = 900, 60
_MOST_QUEUED = 100_000
_MISTAKES = (ValueError, KeyError, TimeoutError, ConnectionError)
_PRODUCER = {"linger.ms": 20, "enable.idempotence": True, "queue.buffering.max.messages": 200_000}


@click.command(help=__doc__)
@click.option("--letters", default=1_000_000, show_default=True, type=click.IntRange(1000))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
def main(letters: int, rounds: int) -> None:
    kafka = obtain_kafka(os.environ.get("STREAMWORKER_TEST_KAFKA"))
    try:
        with Progress(transient=True) as progress:
            task = progress.add_task("writing letters", total=letters)
            topic = made(kafka.bootstrap_servers, letters, lambda count: progress.update(task, completed=count))
            task = progress.add_task("measuring", total=3 * rounds)
            found: list[dict[str, Mapping[str, float]]] = [{} for _ in range(rounds)]
            for round_ in found:
                for name in random.sample((CONSUMED, HEADERS, VIEW), 3):
                    round_[name] = measured(name, kafka.bootstrap_servers, topic, letters)
                    progress.advance(task)
    finally:
        kafka.close()
    show(found)


def made(bootstrap_servers: str, letters: int, tell: Callable[[int], None]) -> str:
    """A topic with so many letters, and the topic of their states beside it."""
    topic = new_topic(bootstrap_servers)
    states = state_topic(topic)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(states, PARTITIONS, 1)])[states].result(_TIMEOUT_S)
    producer = Producer({"bootstrap.servers": bootstrap_servers, **_PRODUCER})
    now_ms = time.time_ns() // 1_000_000
    for number in range(letters):
        one = letter(topic, number, now_ms - letters + number)
        producer.produce(topic, one.value, one.key, one.partition, headers=one.headers, timestamp=one.timestamp_ms or 0)
        if number % _SAID_EVERY == 0:
            place = LetterId(number % PARTITIONS, number // PARTITIONS)
            producer.produce(states, encode(said(number, one)), key_of(place), place.partition)
        if number % 1000 == 0:
            tell(number)
            while len(producer) > _MOST_QUEUED:
                producer.poll(0.1)
    assert producer.flush(_TIMEOUT_S) == 0
    return topic


def letter(topic: str, number: int, at_ms: int) -> Letter:
    """As a worker writes it: of one of six handlers, eight tenants and some mistakes."""
    message = MemoryMessage(
        TopicPartition("orders", number % PARTITIONS),
        number,
        key=b"key-%d" % (number % 50_000),
        value=b'{"order": %d, "text": "%s"}' % (number, b"x" * (VALUE_BYTES - 30)),
        headers=[("tenant", b"tenant-%d" % (number % 8)), ("trace", b"%032x" % number)],
    )
    kind = _MISTAKES[number % len(_MISTAKES)]
    error = kind(f"order {number} was refused by the warehouse: only {number % 10} pieces are left of it")
    forms = envelope(
        message,
        topic=topic,
        group="shop",
        handler=f"Handler{number % 6}",
        reason=Reason.POISON if number % 3 else Reason.EXHAUSTED,
        error=error,
        attempts=3,
        attempt_log=[Attempt.of(at_ms - age_ms, error) for age_ms in (3000, 2000, 0)],
        now_ms=at_ms,
        max_bytes=1_000_000,
    )
    return next(iter(forms.letters(PARTITIONS)))


def said(number: int, one: Letter) -> Disposition:
    """That it was replayed, or discarded."""
    return Disposition(
        state=State.REPLAYED if number % 2 else State.DISCARDED,
        op_id=f"{number // 10_000:012x}",
        actor="anna",
        at_ms=(one.timestamp_ms or 0) + 1000,
        payload_sha256=digest(one.value),
        replay_id=f"{number:032x}",
    )


def measured(name: str, bootstrap_servers: str, topic: str, letters: int) -> Mapping[str, float]:
    """The figures of a row, in a process of its own."""
    asked = Asked(
        row=name,
        bootstrap_servers=bootstrap_servers,
        topic=topic,
        records=letters,
        began_ns=time.monotonic_ns(),
        client=topic_log_settings(KafkaConfig(bootstrap_servers=bootstrap_servers)),
    )
    command = [sys.executable, "-m", "benchmarks.dead_letters_row", asked.argument()]
    done = subprocess.run(command, check=True, timeout=_ROW_S, stdout=subprocess.PIPE, text=True)
    figures: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def show(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Medians over the rounds, and whether they are what was wanted."""
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    say("\n| | letters/s | µs of processor | beside the bare client |\n|---|---:|---:|---:|")
    for name in (CONSUMED, HEADERS, VIEW):
        rate, cpu_us = (median(one[name][figure] for one in rounds) for figure in ("rate", "cpu_ns"))
        say(f"| {name} | {rate:,.0f} | {cpu_us / 1000:.1f} | {ratio(rounds, name):.2f} |")
    of = {name: median(one[VIEW][name] for one in rounds) for name in rounds[0][VIEW]}
    say("\n| of the view | |\n|---|---:|")
    for name, figure in list(of.items())[2:]:  # behind its rate
        say(f"| {name} | {figure:.3g} |")
    built, pages_s = ratio(rounds, VIEW), max(of[f"page s {text}"] for text in FILTERS)
    for what, met in (
        (f"\nbuilt at {built:.2f} of the bare client's rate, at least {BUILT:.2f} was wanted", built >= BUILT),
        (f"the slowest page took {pages_s:.2f} s, at most {ANSWER_S:.2f} was wanted", pages_s <= ANSWER_S),
        (f"{of['MiB']:.0f} MiB, at most {MEMORY_MIB:.0f} was wanted", of["MiB"] <= MEMORY_MIB),
    ):
        say(f"{what}: {'met' if met else 'missed'}")


def ratio(rounds: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> float:
    """Of a row's rate to that of the bare client."""
    return median(one[name]["rate"] / one[CONSUMED]["rate"] for one in rounds)


if __name__ == "__main__":
    main()
