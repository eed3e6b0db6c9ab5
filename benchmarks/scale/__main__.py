"""`python -m benchmarks.scale`: what a record costs the loop, against partitions, topics, keys and lanes.

In memory, without a client and without threads: what is measured is the loop thread's CPU time for all that happens to
a record between the fetch and the commit, metrics and status included, and how much memory the process has grown by.
The making of the records is not in it. Each size runs in processes of its own, in shuffled order; the figures are the
least of the rounds, because what disturbs a process only adds to its CPU time.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.scale.loads import TABLES


@click.command(help=__doc__)
@click.option("--table", "only", multiple=True, type=click.Choice(list(TABLES)), help="Only this; may be repeated.")
@click.option("--rounds", default=5, show_default=True)
def main(only: tuple[str, ...], rounds: int) -> None:
    tables = only or tuple(TABLES)
    tasks = [(table, size) for table in tables for size in TABLES[table].sizes]
    found: dict[tuple[str, int], list[dict[str, float]]] = {task: [] for task in tasks}
    with Progress(transient=True) as progress:
        bar = progress.add_task("measuring", total=rounds * len(tasks))
        for _ in range(rounds):
            for table, size in random.sample(tasks, len(tasks)):
                progress.update(bar, description=f"{table} {size}", advance=1)
                command = [sys.executable, "-m", "benchmarks.scale.loop", table, str(size)]
                answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=600).stdout
                found[table, size].append(json.loads(answer))
    say = Console(highlight=False, soft_wrap=True).print
    for table in tables:
        say(f"\n| {TABLES[table].what} | ns a record | beside the first | grown by, MiB | assigned and revoked in, s |")
        say("| ---: | ---: | ---: | ---: | ---: |")
        first_ns = None
        for size in TABLES[table].sizes:
            ns, mib, rebalance_s = (
                min(one[name] for one in found[table, size]) for name in ("ns", "mib", "rebalance_s")
            )
            first_ns = first_ns or ns
            say(f"| {size:,} | {ns:.0f} | {ns / first_ns - 1:+.0%} | {mib:.1f} | {rebalance_s:.3f} |")


if __name__ == "__main__":
    main()
