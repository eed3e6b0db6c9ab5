"""The cache in memory beside libraries and papers: how often it hits, how long a call takes, how much an entry costs.

The libraries are installed under build/caches when they are first needed. Each figure comes from a process of its own,
with an end set to it: one of the libraries can freeze its interpreter. Of times the least of the rounds counts. Hit
ratios are over caches with room for 1, 5 and 10 % of the keys; in brackets, of the optimum. Needs a quiet machine.

\b
Examples:
  python -m benchmarks.caches
  python -m benchmarks.caches --only streamworker --only cachetools --requests 50000
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from benchmarks.cache_results import OWN, CacheResults
from benchmarks.cache_subject import SUBJECTS
from benchmarks.peers.environments import ROOT, CannotBeInstalled, python_with
from benchmarks.policies import POLICIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIBRARIES = ("cachetools", "lru_dict", "theine", "moka")
_SUBJECT_S = 600.0
_REQUIREMENTS = Path(__file__).parent / "cache_requirements"


class Failed(Exception):
    """With what a subject's process said last."""


@click.command(help=__doc__)
@click.option("--only", multiple=True, type=click.Choice([*SUBJECTS, *POLICIES]), help="This one; may be repeated.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--requests", default=200_000, show_default=True, type=click.IntRange(1000), help="In each trace.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write all figures to this file.")
def main(only: tuple[str, ...], rounds: int, requests: int, json_path: Path | None) -> None:
    asked = [name for name in (*SUBJECTS, *POLICIES) if not only or name in only]
    results = CacheResults()
    with Progress(transient=True) as progress:
        _measure(asked, rounds, requests, results, progress)
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    for line in results.tables():
        say(line)
    if json_path:
        json_path.write_text(json.dumps(results.as_json(), indent=1) + "\n")


def _measure(asked: Sequence[str], rounds: int, requests: int, results: CacheResults, progress: Progress) -> None:
    bar = progress.add_task("environments", total=None)
    pythons = _environments(asked, results)
    asked = [name for name in asked if name in pythons]
    subjects = [name for name in asked if name in SUBJECTS]
    tasks = [(name, "speed") for _ in range(rounds) for name in random.sample(subjects, len(subjects))]
    tasks += [(name, "memory") for name in subjects] + [(OWN, "traced")] * (OWN in subjects)
    tasks += [(name, "ratios") for name in asked if name != "dict"]
    progress.update(bar, total=len(tasks))
    for name, what in tasks:
        progress.update(bar, description=f"{name}: {what}")
        if name not in results.missing:
            try:
                _take(results, name, what, _run(pythons[name], name, what, requests))
            except Failed as error:
                results.missing[name] = str(error)
        progress.advance(bar)


def _take(results: CacheResults, name: str, what: str, answer: Mapping[str, float]) -> None:
    match what:
        case "ratios":
            results.ratios[name] = answer
        case "speed":
            results.add_speed(name, answer)
        case "memory":
            results.memory[name] = answer["resident"]
        case _:
            results.traced = answer["traced"]


def _environments(asked: Sequence[str], results: CacheResults) -> Mapping[str, Path]:
    pythons = {name: Path(sys.executable) for name in asked if name not in LIBRARIES}
    for name in LIBRARIES:
        if name in asked:
            try:
                pythons[name] = python_with(_REQUIREMENTS / f"{name}.txt", ROOT / "build" / "caches" / name)
            except CannotBeInstalled as error:
                results.missing[name] = f"it cannot be installed: {error}"
    return pythons


def _run(python: Path, name: str, what: str, requests: int) -> Mapping[str, float]:
    command = [str(python), "-m", "benchmarks.cache_subject", name, what, str(requests)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_SUBJECT_S)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{what}: hangs, or takes more than {_SUBJECT_S:.0f} s") from error
    if done.returncode:
        raise Failed(f"{what}: {(done.stderr.strip() or f'exit code {done.returncode}').splitlines()[-1]}")
    answer: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    main()
