"""What the peers' processes answered, and the tables of it. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.peers.catalogue import NOTHING, PEERS, WAITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.peers.catalogue import Peer, Row

_TITLES = {NOTHING: "A handler that does nothing", WAITS: "A handler that waits 2 to 8 ms, 100 keys"}
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run: records a second, and microseconds of CPU for each record, the client's threads included."""

    rate: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there are no figures."""

    reason: str


def read_answer(exit_code: int, output: str, errors: str) -> Figures | Failure:
    """What a process that has ended found: its last line of output, if it ended well."""
    if exit_code:
        return Failure((errors.strip() or f"exit code {exit_code}").splitlines()[-1].strip())
    try:
        return Figures(**json.loads(output.strip().splitlines()[-1]))
    except (IndexError, TypeError, ValueError):
        return Failure("it ended without an answer")


@dataclass
class Results:
    """All runs so far, by peer and row, and what is installed. A peer that cannot be installed has failures only."""

    runs: dict[tuple[str, str], list[Figures | Failure]] = field(default_factory=dict)
    versions: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def add(self, peer: Peer, row: Row, run: Figures | Failure) -> None:
        self.runs.setdefault((peer.name, row.name), []).append(run)

    def as_json(self) -> list[dict[str, object]]:
        """For each row what it is and all that was measured."""
        return [
            {
                "peer": peer.name,
                "versions": dict(self.versions.get(peer.name, {})),
                "row": row.name,
                "order": row.order,
                "how": row.how,
                "cannot": peer.cannot,
                "rates": [run.rate for run in runs if isinstance(run, Figures)],
                "cpu_us": [run.cpu_us for run in runs if isinstance(run, Figures)],
                "failures": [run.reason for run in runs if isinstance(run, Failure)],
            }
            for peer, row, runs in self._rows()
        ]

    def tables(self) -> Iterator[str]:
        """In Markdown, line by line: a table for each work, and one of the peers."""
        for work, title in _TITLES.items():
            yield f"{title}:\n"
            yield "| Peer | Row | Records/s | Lowest to highest | Order | CPU µs per record | How |"
            yield "| --- | --- | ---: | ---: | --- | ---: | --- |"
            for peer, row, runs in self._rows():
                if row.work == work:
                    rate, spread, cpu_us = _cells(runs)
                    yield f"| {peer.name} | {row.name} | {rate} | {spread} | {row.order} | {cpu_us} | {row.how} |"
            yield ""
        yield "| Peer | Versions | What it cannot do |\n| --- | --- | --- |"
        for peer in dict.fromkeys(peer for peer, _, _ in self._rows()):
            versions = ", ".join(f"{name} {one}" for name, one in self.versions.get(peer.name, {}).items())
            yield f"| {peer.name} | {versions or 'none'} | {peer.cannot} |"

    def _rows(self) -> Iterator[tuple[Peer, Row, list[Figures | Failure]]]:
        """What was run, in the order of the catalogue."""
        for peer in PEERS:
            for row in peer.rows:
                if runs := self.runs.get((peer.name, row.name)):
                    yield peer, row, runs


def _cells(runs: list[Figures | Failure]) -> tuple[str, str, str]:
    """Rate, spread and CPU of one row; where a run failed, its reason."""
    figures = [run for run in runs if isinstance(run, Figures)]
    reasons = [run.reason for run in runs if isinstance(run, Failure)]
    failed = f"{len(reasons)} of {len(runs)} failed: {_in_a_cell(reasons[-1])}" if reasons else ""
    if not figures:
        return failed, "", ""
    rates = [run.rate for run in figures]
    rate = f"{median(rates):,.0f}" + (f" ({failed})" if failed else "")
    return rate, f"{min(rates):,.0f} to {max(rates):,.0f}", f"{median(run.cpu_us for run in figures):,.1f}"


def _in_a_cell(reason: str) -> str:
    return reason.replace("|", "\\|")[:_LONGEST_REASON]
