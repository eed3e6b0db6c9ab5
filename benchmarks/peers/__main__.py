"""Other frameworks beside streamworker: the same work, at least once, each in an environment of its own.

The environments are made under build/peers when they are first needed. All rows of a round run one after the
other in shuffled order, each in a process of its own: from the first record handled on for some seconds, or
until the topic is at its end. The figures are medians over the rounds. Needs a quiet machine.

\b
Examples:
  python -m benchmarks.peers
  python -m benchmarks.peers --only streamworker --only arroyo --rounds 1
  python -m benchmarks.peers --seconds 3 --json build/peers.json
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.peers.catalogue import NOTHING, PEERS, WAITS
from benchmarks.peers.environments import ROOT, CannotBeInstalled, python_of, versions
from benchmarks.peers.results import Failure, Figures, Results, read_answer
from benchmarks.peers.task import Task
from benchmarks.topics import fill, new_topic

sys.path.insert(0, str(ROOT / "tests"))
from servers.kafka import obtain_kafka

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.catalogue import Peer

KEYS, HOT_KEYS = 1000, 100
FASTEST_WAITING_RATE = 64 / 0.005  # records/s: 64 calls at once of 5 ms on average
_START_S = 45.0  # of the slowest peer, joining its group


@click.command(help=__doc__)
@click.option(
    "--only", multiple=True, type=click.Choice([peer.module for peer in PEERS]), help="This peer; may be repeated."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=5.0, show_default=True, help="How long each row is measured at most.")
@click.option("--records", default=2_000_000, show_default=True, help="In the topic of the rows that do nothing.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write all figures to this file.")
def main(only: tuple[str, ...], rounds: int, seconds: float, records: int, json_path: Path | None) -> None:
    peers = [peer for peer in PEERS if not only or peer.module in only]
    kafka = obtain_kafka(os.environ.get("STREAMWORKER_TEST_KAFKA"))
    try:
        results = _measure(kafka.bootstrap_servers, peers, rounds, seconds, records)
    finally:
        kafka.close()
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    for line in results.tables():
        say(line)
    if json_path:
        json_path.write_text(json.dumps(results.as_json(), indent=1) + "\n")


def _measure(bootstrap_servers: str, peers: Sequence[Peer], rounds: int, seconds: float, records: int) -> Results:
    results = Results()
    with Progress(transient=True) as progress:
        pythons = _environments(peers, results, progress)
        bar = progress.add_task("filling topics", total=None)
        waiting_records = round(FASTEST_WAITING_RATE * seconds * 1.5)  # so that nobody reaches the end
        topics = {
            NOTHING: _filled(bootstrap_servers, records, KEYS),
            WAITS: _filled(bootstrap_servers, waiting_records, HOT_KEYS),
        }
        rows = [(peer, row) for peer in peers if peer.module in pythons for row in peer.rows]
        progress.update(bar, total=rounds * len(rows))
        for _ in range(rounds):
            for peer, row in random.sample(rows, len(rows)):
                progress.update(bar, description=f"{peer.name}: {row.name}")
                topic, its_records = topics[row.work]
                task = Task(row.name, bootstrap_servers, topic, f"bench-{uuid.uuid4().hex}", seconds, its_records)
                results.add(peer, row, _run(pythons[peer.module], peer, task))
                progress.advance(bar)
    return results


def _filled(bootstrap_servers: str, records: int, keys: int) -> tuple[str, int]:
    topic = new_topic(bootstrap_servers)
    fill(bootstrap_servers, topic, records, keys)
    return topic, records


def _environments(peers: Sequence[Peer], results: Results, progress: Progress) -> dict[str, Path]:
    """The interpreters of those that can be installed; of the others the reason is a result."""
    pythons = {}
    for peer in progress.track(peers, description="making environments"):
        try:
            pythons[peer.module] = python_of(peer.module)
            results.versions[peer.name] = versions(pythons[peer.module], peer.packages)
        except CannotBeInstalled as error:
            for row in peer.rows:
                results.add(peer, row, Failure(f"cannot be installed: {error}"))
    return pythons


def _run(python: Path, peer: Peer, task: Task) -> Figures | Failure:
    command = [str(python), "-m", f"benchmarks.peers.{peer.module}", *task.arguments()]
    limit_s = task.seconds + _START_S
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return Failure(f"no answer within {limit_s:.0f} s")
    return read_answer(done.returncode, done.stdout, done.stderr)


if __name__ == "__main__":
    main()
