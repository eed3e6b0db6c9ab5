"""`python -m benchmarks`: throughput and latency beside the bare client, on a real Kafka.

All rows of a round run one after the other in shuffled order, each in a process of its own; the
figures are medians over the rounds, and ratios are taken within a round. Needs a quiet machine.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.rows import LATENCY_RATE, send_at_a_steady_rate
from benchmarks.topics import fill, new_topic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers.kafka import obtain_kafka

KEYS = 1000
THROUGHPUT_ROWS = ("raw", "batch", "single", "key", "raw json", "json")
QUEUE_ROWS = ("batch queued 1000", "batch queued 20000", "batch queued 100000")
WAITING_ROWS = ("raw waits", "waits", "raw waits async", "waits async")
HOT_KEYS, WAITING_RECORDS = 100, 20_000
LATENCY_ROWS = ("raw latency", "latency")
LATENCY_S = 12
# What the ratio to the same work by hand must be at least.
MUST = {"batch": 0.70, "single": 0.50, "key": 0.34, "json": 0.75, "waits": 0.97, "waits async": 0.97}
MUST_LATENCY_MS = 0.3


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True)
@click.option("--records", default=1_200_000, show_default=True)
@click.option("--queue-rows/--no-queue-rows", default=True, show_default=True, help="Also compare queued_min_messages.")
@click.option("--rows", "only", multiple=True, help="Only this row and the one beside it; may be repeated.")
def main(rounds: int, records: int, queue_rows: bool, only: tuple[str, ...]) -> None:
    rows = (*THROUGHPUT_ROWS, *(QUEUE_ROWS if queue_rows else ()), *WAITING_ROWS, *LATENCY_ROWS)
    if only:
        wanted = {*only, *map(beside, only)}
        rows = tuple(row for row in rows if row in wanted)
    kafka = obtain_kafka(os.environ.get("STREAMWORKER_TEST_KAFKA"))
    try:
        _measure(kafka.bootstrap_servers, rounds, records, rows)
    finally:
        kafka.close()


def beside(row: str) -> str:
    """The row that does the same work by hand."""
    own = f"raw {row.partition(' queued ')[0]}"
    return own if own in (*THROUGHPUT_ROWS, *WAITING_ROWS, *LATENCY_ROWS) else "raw"


def _measure(bootstrap_servers: str, rounds: int, records: int, rows: tuple[str, ...]) -> None:
    topic, hot = new_topic(bootstrap_servers), new_topic(bootstrap_servers)
    fill(bootstrap_servers, topic, records, KEYS)
    fill(bootstrap_servers, hot, WAITING_RECORDS, HOT_KEYS)
    results: list[dict[str, dict[str, float]]] = []
    with Progress(transient=True) as progress:
        task = progress.add_task("measuring", total=rounds * len(rows))
        for _ in range(rounds):
            result: dict[str, dict[str, float]] = {}
            for row in random.sample(rows, len(rows)):
                progress.update(task, description=row, advance=1)
                waits = row in WAITING_ROWS
                result[row] = _run(
                    row, bootstrap_servers, hot if waits else topic, WAITING_RECORDS if waits else records
                )
            results.append(result)
    _print(results, rows)


def _run(row: str, bootstrap_servers: str, topic: str, records: int) -> dict[str, float]:
    if row not in LATENCY_ROWS:
        return _answer([row, bootstrap_servers, topic, str(records)])
    sent = LATENCY_S * LATENCY_RATE
    topic = new_topic(bootstrap_servers)
    arguments = [row, bootstrap_servers, topic, str(sent)]
    with subprocess.Popen(_command(arguments), stdout=subprocess.PIPE) as process:
        send_at_a_steady_rate(bootstrap_servers, topic, sent)
        output, _ = process.communicate(timeout=60)
    return json.loads(output)


def _answer(arguments: list[str]) -> dict[str, float]:
    return json.loads(subprocess.run(_command(arguments), stdout=subprocess.PIPE, check=True, timeout=300).stdout)


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.rows", *arguments]


def _print(results: list[dict[str, dict[str, float]]], rows: tuple[str, ...]) -> None:
    say = Console(highlight=False, soft_wrap=True).print
    say("| row | records/s | of the same by hand | must | CPU ns per record |\n|---|---|---|---|---|")
    for row in (one for one in rows if one not in LATENCY_ROWS):
        rate = median(result[row]["rate"] for result in results)
        ratio = median(result[row]["rate"] / result[beside(row)]["rate"] for result in results)
        cpu_ns = median(result[row]["cpu_ns"] for result in results)
        told = "" if row.startswith("raw") else f"{ratio:.0%}"
        say(f"| {row} | {rate:,.0f} | {told} | {f'{MUST[row]:.0%}' if row in MUST else ''} | {cpu_ns:,.0f} |")
    if "latency" not in rows:
        return
    say("\n| row | p50 ms | p99 ms |\n|---|---|---|")
    for row in LATENCY_ROWS:
        p50, p99 = (median(result[row][name] for result in results) for name in ("p50_ms", "p99_ms"))
        say(f"| {row} | {p50:.2f} | {p99:.2f} |")
    more = median(result["latency"]["p50_ms"] - result["raw latency"]["p50_ms"] for result in results)
    say(f"\np50 above raw: {more:.2f} ms (at most {MUST_LATENCY_MS})")


if __name__ == "__main__":
    main()
