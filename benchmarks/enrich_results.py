"""What came of the rounds of `benchmarks.enrich`, as tables. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Round

READS = "reads"
BESIDE = "no lookup"
ROWS = {
    "raw": "the bare client: `consume(500)`, decoded, a commit a second",
    "no lookup": "a batch handler that looks nothing up",
    "database": "it asks PostgreSQL for the airports and planes of each batch",
    "cache": "it asks caches in the process, empty at the start",
    "cache, Redis": "the same over Redis, empty at the start as well",
    "sink": "no lookup; the rows go into PostgreSQL, `guard=None`",
    "sink, mark": 'the same with `guard="mark"`',
    "cache, sink, mark": "caches in the process, and the sink with the mark",
}
READS_MUST_MS = 1.0
BATCH, LOCAL = 500, 450  # keys of a read, and how many of these the process has


def tables(rounds: Sequence[Round]) -> str:
    """Markdown: the rates, then the reads of a batch with their target."""
    lines = [
        f"| Row | Records/s | Of {BESIDE} | Lowest to highest | CPU µs per record | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, what in ROWS.items():
        rate, cpu_us = (median(one[name][figure] for one in rounds) for figure in ("rate", "cpu_ns"))
        ratios = sorted(one[name]["rate"] / one[BESIDE]["rate"] for one in rounds)
        lines.append(
            f"| {name} | {rate:,.0f} | {median(ratios):.0%} | {ratios[0]:.0%} to {ratios[-1]:.0%}"
            f" | {cpu_us / 1000:.1f} | {what} |"
        )
    p50_ms, p90_ms = (median(one[READS][figure] for one in rounds) for figure in ("p50_ms", "p90_ms"))
    met = "yes" if p50_ms <= READS_MUST_MS else "no"
    read = f"a read of {BATCH} keys, {LOCAL} of them in the process and the others in Redis"
    lines += [
        "",
        "| Target | Median, ms | 90 of 100 within, ms | Must, ms | Met |",
        "|---|---:|---:|---:|---|",
        f"| {read} | {p50_ms:.2f} | {p90_ms:.2f} | ≤ {READS_MUST_MS:g} | {met} |",
    ]
    return "\n".join(lines)
