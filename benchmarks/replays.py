"""`python -m benchmarks.replays`: how fast dead letters are sent again, beside a loop that writes the same records.

Four partitions of our own letters, of 200 bytes of payload each. In each round they are sent to the replay topic of
their group and marked, by a run and by hand, each in a process and with topics of its own; ratios are taken within a
round.
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
from benchmarks.dead_letters import letter
from benchmarks.replays_row import BY_HAND, GROUP, REPLAYED
from benchmarks.topics import PARTITIONS, new_topic
from streamworker.config import KafkaConfig
from streamworker.librdkafka import topic_log_settings
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.states import state_topic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers.kafka import obtain_kafka

if TYPE_CHECKING:
    from collections.abc import Mapping

WANTED = 0.4  # at least, of the rate by hand
_ROW_S, _TIMEOUT_S = 600, 60


@click.command(help=__doc__)
@click.option("--letters", default=100_000, show_default=True, type=click.IntRange(2000))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
def main(letters: int, rounds: int) -> None:
    kafka = obtain_kafka(os.environ.get("STREAMWORKER_TEST_KAFKA"))
    found: list[dict[str, Mapping[str, float]]] = [{} for _ in range(rounds)]
    try:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        beside = [NewTopic(f"orders.replay.{GROUP}", PARTITIONS, 1), NewTopic(AUDIT_TOPIC, 1, 1)]
        for created in admin.create_topics(beside).values():
            created.result(_TIMEOUT_S)
        with Progress(transient=True) as progress:
            task = progress.add_task("measuring", total=2 * rounds)
            for round_ in found:
                for name in random.sample((BY_HAND, REPLAYED), 2):
                    round_[name] = measured(name, kafka.bootstrap_servers, letters // PARTITIONS * PARTITIONS)
                    progress.advance(task)
    finally:
        kafka.close()
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    say("\n| | letters/s | µs of processor |\n|---|---:|---:|")
    for name in (BY_HAND, REPLAYED):
        rate, cpu_us = (median(one[name][figure] for one in found) for figure in ("rate", "cpu_ns"))
        say(f"| {name} | {rate:,.0f} | {cpu_us / 1000:.1f} |")
    ratios = sorted(one[REPLAYED]["rate"] / one[BY_HAND]["rate"] for one in found)
    say(
        f"\n{median(ratios):.2f} of the rate by hand ({ratios[0]:.2f} to {ratios[-1]:.2f}), at least {WANTED} is wanted"
    )


def measured(name: str, bootstrap_servers: str, letters: int) -> Mapping[str, float]:
    """The figures of a row, over letters of its own."""
    asked = Asked(
        row=name,
        bootstrap_servers=bootstrap_servers,
        topic=made(bootstrap_servers, letters),
        records=letters,
        began_ns=time.monotonic_ns(),
        client=topic_log_settings(KafkaConfig(bootstrap_servers=bootstrap_servers)),
    )
    command = [sys.executable, "-m", "benchmarks.replays_row", asked.argument()]
    done = subprocess.run(command, check=True, timeout=_ROW_S, stdout=subprocess.PIPE, text=True)
    figures: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def made(bootstrap_servers: str, letters: int) -> str:
    """A topic with so many letters, and an empty one for their states."""
    topic = new_topic(bootstrap_servers, beside=state_topic(""))
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "enable.idempotence": True})
    now_ms = time.time_ns() // 1_000_000
    for number in range(letters):
        one = letter(topic, number, now_ms - letters + number)
        producer.produce(topic, one.value, one.key, one.partition, headers=one.headers, timestamp=one.timestamp_ms or 0)
        producer.poll(0)
    assert producer.flush(_TIMEOUT_S) == 0
    return topic


if __name__ == "__main__":
    main()
