"""streamworker beside the bare client, on a real Kafka: throughput, latency, memory, start.

All rows of a round run one after the other in shuffled order, each in a process of its own; the figures are medians
over the rounds, and ratios and differences are taken within a round. Needs a quiet machine.

\b
Examples:
  python -m benchmarks
  python -m benchmarks --rows batch --rows single --rounds 7
  python -m benchmarks --json build/bench.json --plot docs/benchmarks.svg
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.asked import Asked
from benchmarks.by_hand import SCHEMA
from benchmarks.catalogue import LADDER, LATENCY_RATE, POISON_EVERY, QUEUES, ROWS, Figure, Source, chosen
from benchmarks.plot import bars
from benchmarks.results import reached, tables
from benchmarks.topics import avro_value, fill, new_topic, poisoned, send_at_a_steady_rate
from streamworker.config import KafkaConfig
from streamworker.librdkafka import consumer_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers.kafka import obtain_kafka
from servers.kafka_jars import ServerUnavailable
from servers.redis import obtain_redis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.catalogue import Row
    from benchmarks.results import Round

_TIMEOUT_S = 300


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--ladder/--no-ladder", default=True, show_default=True, help="Also the steps from the bare client on.")
@click.option("--queues/--no-queues", default=False, show_default=True, help="Also compare kafka.queued_min_messages.")
@click.option("--rows", "only", multiple=True, help="Only this row and the one beside it; may be repeated.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write all figures to this file.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Also draw the ratios into this SVG.")
def main(
    rounds: int, ladder: bool, queues: bool, only: tuple[str, ...], json_path: Path | None, plot_path: Path | None
) -> None:
    every = (*ROWS, *LADDER, *QUEUES)
    known = [row.name for row in every]
    for name in only:
        if name not in known:
            raise click.UsageError(f"there is no row {name!r}; there are {', '.join(known)}")
    rows = chosen(only, every) if only else (*ROWS, *(LADDER if ladder else ()), *(QUEUES if queues else ()))
    found, rows = _measure(rows, rounds)
    Console(highlight=False, soft_wrap=True).print(tables(rows, found), markup=False)
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1))
    if plot_path is not None:
        plot_path.write_text(bars(list(reached(rows, found)), "Rate, as a share of the same work by hand"))


def _measure(rows: Sequence[Row], rounds: int) -> tuple[Sequence[Round], Sequence[Row]]:
    kafka = obtain_kafka(os.environ.get("STREAMWORKER_TEST_KAFKA"))
    try:
        redis = obtain_redis(os.environ.get("STREAMWORKER_TEST_REDIS"))
    except ServerUnavailable as error:
        click.echo(f"left out: the rows of Redis: {error}", err=True)
        redis, rows = None, [row for row in rows if row.source is not Source.FORWARDED]
    try:
        bench = _Bench(kafka.bootstrap_servers, None if redis is None else redis.url)
        bench.fill({row.source for row in rows})
        found: list[Round] = []
        with Progress(transient=True) as progress:
            task = progress.add_task("measuring", total=rounds * len(rows))
            for _ in range(rounds):
                round_: Round = {}
                for row in random.sample(rows, len(rows)):
                    progress.update(task, description=row.name, advance=1)
                    round_[row.name] = bench.run(row)
                found.append(round_)
        return found, rows
    finally:
        kafka.close()
        if redis is not None:
            redis.close()


class _Bench:
    """Runs rows against one Kafka, and a Redis if there is one."""

    def __init__(self, bootstrap_servers: str, redis_url: str | None) -> None:
        self._servers = bootstrap_servers
        self._redis_url = redis_url
        self._topics: dict[Source, str] = {}

    def fill(self, sources: set[Source]) -> None:
        """Make and fill the topics of these."""
        values = {Source.POISONED: poisoned(POISON_EVERY)}
        if Source.AVRO in sources:
            order = avro_value(SCHEMA)
            values[Source.AVRO] = lambda _number: order
        with Progress(transient=True) as progress:
            for source in progress.track(sources, description="filling topics"):
                if source is not Source.STEADY:
                    topic = self._topics[source] = new_topic(self._servers, beside=".dlq")
                    fill(self._servers, topic, source.filled, source.keys, values.get(source))

    def run(self, row: Row) -> dict[str, float]:
        """The figures of a row."""
        steady = row.source is Source.STEADY
        topic = new_topic(self._servers) if steady else self._topics[row.source]
        asked = Asked(
            row=row.name,
            bootstrap_servers=self._servers,
            topic=topic,
            records=row.source.records,
            began_ns=time.monotonic_ns(),
            client=dict(
                consumer_settings(
                    KafkaConfig(bootstrap_servers=self._servers, group=f"{topic}-memory"), end_of_partition=False
                )
            ),
            redis_url=self._redis_url,
        )
        send = partial(send_at_a_steady_rate, self._servers, topic, row.source.records, LATENCY_RATE)
        return _answer(row, asked, send if steady else None)


def _answer(row: Row, asked: Asked, meanwhile: Callable[[], None] | None) -> dict[str, float]:
    environment = {**os.environ, "BENCHMARK_TOPIC": asked.topic, "BENCHMARK_BEGAN_NS": str(asked.began_ns)}
    with subprocess.Popen(_command(row, asked), stdout=subprocess.PIPE, env=environment) as process:
        if meanwhile is not None:
            meanwhile()
        output, _ = process.communicate(timeout=_TIMEOUT_S)
    if process.returncode:
        raise click.ClickException(f"{row.name} ended with {process.returncode}")
    return json.loads(output)


def _command(row: Row, asked: Asked) -> list[str]:
    if row.figure is Figure.START and not row.by_hand:
        settings = [f"kafka.bootstrap_servers={asked.bootstrap_servers}", "http.port=0", "log.level=ERROR"]
        options = [word for one in settings for word in ("--set", one)]
        command = ["-m", "streamworker", "run", "benchmarks.first:First", "--group", f"{asked.topic}-{asked.began_ns}"]
        return [sys.executable, *command, "--max-records", "1", *options]
    module = "by_hand" if row.by_hand else "workers"
    return [sys.executable, "-m", f"benchmarks.{module}", asked.argument()]


if __name__ == "__main__":
    main()
