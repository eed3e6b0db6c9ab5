"""What the process of a row is asked and how it answers: one argument, one line, both JSON. Standard library only."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A row, and what it runs on."""

    row: str
    bootstrap_servers: str
    topic: str
    records: int
    began_ns: int  # monotonic, when the process was started
    client: Mapping[str, str | int | float | bool]  # the settings that a worker gives its consumer
    redis_url: str | None = None

    def argument(self) -> str:
        """It as the argument of a process."""
        return json.dumps(asdict(self))

    @classmethod
    def here(cls) -> Asked:
        """What this process was asked."""
        return cls(**json.loads(sys.argv[1]))


def answer(figures: Mapping[str, float]) -> None:
    """Print what was measured."""
    sys.stdout.write(json.dumps(figures) + "\n")


def rate(records: int, seconds: float, cpu_s: float) -> Mapping[str, float]:
    """The figures of a row of throughput."""
    return {"rate": records / seconds, "cpu_ns": 1e9 * cpu_s / records}


def percentiles(ages_ns: list[int], warm_up: int) -> Mapping[str, float]:
    """The figures of a row of latency, without the first `warm_up` records, which waited for the group."""
    ages_ns = sorted(ages_ns[warm_up:])
    return {"p50_ms": ages_ns[len(ages_ns) // 2] / 1e6, "p99_ms": ages_ns[len(ages_ns) * 99 // 100] / 1e6}


def peak_mib() -> float:
    """The most memory that this process had resident so far; Linux only."""
    with open("/proc/self/status") as status:  # noqa: PTH123 - nothing is to be imported for it
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
