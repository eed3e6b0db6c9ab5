"""What lookups, caches and a sink that knows repeats cost, with the handler of `examples/enrich`.

The same flights are read by each row, in a process of its own, in shuffled order; figures are medians over the
rounds, and ratios are taken within a round, to the worker that looks nothing up. On a Kafka, a PostgreSQL and a Redis
of its own, or those of STREAMWORKER_TEST_KAFKA, …_POSTGRES and …_REDIS. A PostgreSQL that is started here does not
wait for its disk. Takes two minutes and needs a quiet machine.

\b
Examples:
  python -m benchmarks.enrich
  python -m benchmarks.enrich --rounds 5 --json build/enrich.json
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import psycopg
from confluent_kafka import Producer
from rich.console import Console
from rich.progress import Progress

from benchmarks.asked import Asked
from benchmarks.enrich_results import READS, ROWS, tables
from benchmarks.enrich_row import WAYS, sink_of
from benchmarks.topics import new_topic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from model import airports_of, flights, planes_of
from reference import Reference
from servers.kafka import obtain_kafka
from servers.postgres import obtain_postgres
from servers.redis import obtain_redis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model import Flight

    from benchmarks.results import Round

_REPEATS = 10  # of the file; a tenth of it is not counted, since the last batches wait to be full
_SCHEMA = "bench_enrich"
_TIMEOUT_S = 300
_FLUSH_S = 60


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write all figures to this file.")
def main(rounds: int, json_path: Path | None) -> None:
    found = _measured(rounds)
    Console(highlight=False, soft_wrap=True).print(tables(found), markup=False)
    if json_path is not None:
        json_path.write_text(json.dumps(found, indent=1))


def _measured(rounds: int) -> Sequence[Round]:
    with ExitStack() as stack:
        kafka = stack.enter_context(closing(obtain_kafka(os.environ.get("STREAMWORKER_TEST_KAFKA"))))
        postgres = stack.enter_context(closing(obtain_postgres(os.environ.get("STREAMWORKER_TEST_POSTGRES"))))
        redis = stack.enter_context(closing(obtain_redis(os.environ.get("STREAMWORKER_TEST_REDIS"))))
        source = list(flights())
        warehouse = _warehouse(postgres.url, source)
        topic = new_topic(kafka.bootstrap_servers)
        records = _fill(kafka.bootstrap_servers, topic, source)
        names = [*ROWS, READS]
        found: list[Round] = []
        with Progress(transient=True) as progress:
            task = progress.add_task("measuring", total=rounds * len(names))
            for _ in range(rounds):
                round_: Round = {}
                for name in random.sample(names, len(names)):
                    progress.update(task, description=name, advance=1)
                    asked = Asked(
                        row=name,
                        bootstrap_servers=kafka.bootstrap_servers,
                        topic=topic,
                        records=records,
                        began_ns=time.monotonic_ns(),
                        client={},
                        redis_url=redis.url,
                    )
                    round_[name] = _answer(asked, warehouse)
                found.append(round_)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {_SCHEMA} CASCADE")
        return found


def _warehouse(url: str, source: Sequence[Flight]) -> str:
    """The URL of a schema with all tables, the reference tables filled."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE; CREATE SCHEMA {_SCHEMA}")
    own = f"{url}?options=-csearch_path%3D{_SCHEMA}"
    sink_of("mark").make(own, sink_of("mark").statements())
    with closing(Reference(own)) as reference:
        planes = "tailnum text PRIMARY KEY, operator text, base text, revision integer, sw_version bigint"
        reference.rows(f"CREATE TABLE planes ({planes})")
        reference.fill(airports_of(source), planes_of(source))
    return own


def _fill(bootstrap_servers: str, topic: str, source: Sequence[Flight]) -> int:
    """Send the flights whose plane is registered; how many of them a row is timed for."""
    registered = {plane.tailnum for plane in planes_of(source)}
    sent = [one for one in source if one.tailnum in registered] * _REPEATS
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": len(sent) + 1}
    )
    for number, one in enumerate(sent):
        producer.produce(topic, msgspec.json.encode(one), (one.tailnum or "").encode())
        if number % 10_000 == 0:
            producer.poll(0)
    producer.flush(_FLUSH_S)
    return len(sent) * 9 // 10


def _answer(asked: Asked, warehouse: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.enrich_row", asked.argument(), warehouse]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise click.ClickException(f"{asked.row} ended with {done.returncode}")
    return json.loads(done.stdout)


assert {*ROWS} == {"raw", *WAYS}


if __name__ == "__main__":
    main()
