"""The dead letters of a run, for whoever wants to work on them: in a terminal beside it, or in the console."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from brokers import Topics

_HERE = Path(__file__).parent


def settings(topics: Topics) -> Mapping[str, str]:
    """The environment in which commands find this run."""
    return {
        "FLIGHTS_TOPIC": topics.flights,
        "STREAMWORKER__KAFKA__BOOTSTRAP_SERVERS": topics.bootstrap_servers,
        "STREAMWORKER__KAFKA__GROUP": topics.group,
    }


def commands(topics: Topics) -> Iterator[str]:
    """What shows, repairs and replays them."""
    letters = topics.dead_letters
    yield f"streamworker dlq stats {letters}"
    yield (
        f"streamworker dlq repair {letters} 'text:\"no air time\"' --function air-time-from-the-clock"
        " --repairs repairs --handlers handlers:StoreFlights --yes"
    )
    yield f"streamworker dlq replay {letters} 'text:\"no arrival time\"' --yes"


def instructions(topics: Topics) -> Iterator[str]:
    """How to come to where they work, and they."""
    yield f"cd {_relative(_HERE)}"
    yield "export " + " ".join(f"{name}={value}" for name, value in settings(topics).items())
    program = _relative(Path(sys.executable).parent / "streamworker", _HERE)
    for command in commands(topics):
        yield command.replace("streamworker", program, 1)


def serve(topics: Topics) -> subprocess.Popen[bytes]:
    """The console over them, which prints where it is; ended by SIGTERM."""
    command = [sys.executable, "-m", "streamworker", "console", "--handlers", "handlers:StoreFlights"]
    return subprocess.Popen(  # noqa: S603 - streamworker in this interpreter
        [*command, "--repairs", "repairs"], cwd=_HERE, env={**os.environ, **settings(topics)}, start_new_session=True
    )


def _relative(path: Path, to: Path | None = None) -> str:
    """As somebody would type it who is at `to`."""
    return os.path.relpath(path, to or Path.cwd())
