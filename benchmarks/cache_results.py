"""What came of the caches, as tables, and which targets are met. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OWN, PLAIN, BEST = "streamworker", "s3_fifo", "belady"
REAL = "flights"
_NAMES = {
    "streamworker": "`LocalCache`",
    "s3_fifo": "S3-FIFO, simulated",
    "lru": "LRU, simulated",
    "belady": "the optimum",
    "lru_dict": "lru-dict",
    "moka": "moka-py",
}
_CALLS = ("hit", "replace", "miss", "evict")


@dataclass(frozen=True, slots=True)
class Target:
    """What a cache must reach, and whether it does; None if what it is held against could not be measured."""

    name: str
    measured: str
    holds: bool | None


@dataclass(slots=True)
class CacheResults:
    """Figures by subject, and who has none and why."""

    ratios: dict[str, Mapping[str, float]] = field(default_factory=dict)
    speed: dict[str, dict[str, float]] = field(default_factory=dict)  # ns, the least of the rounds
    memory: dict[str, float] = field(default_factory=dict)  # bytes per entry, of the process
    traced: float | None = None  # of our own, as Python's allocator sees it
    missing: dict[str, str] = field(default_factory=dict)

    def add_speed(self, subject: str, round_: Mapping[str, float]) -> None:
        """Another round of `subject`."""
        best = self.speed.setdefault(subject, {})
        for what, ns in round_.items():
            best[what] = min(ns, best.get(what, ns))

    def tables(self) -> Iterator[str]:
        """Markdown, a line each."""
        if self.ratios:
            yield from self._ratios()
        if self.speed:
            yield from self._speed()
        yield ""
        yield "| Target | Measured | Met |"
        yield "| --- | --- | --- |"
        for target in self.targets():
            yield f"| {target.name} | {target.measured} | {_said(holds=target.holds)} |"
        for subject, reason in self.missing.items():
            yield f"\n{_NAMES.get(subject, subject)} is missing: {reason}"

    def targets(self) -> Iterator[Target]:
        """All of them, also where nothing was measured."""
        yield self._as_simulated()
        yield self._beside_lru()
        yield from (self._beside("bursty", other) for other in ("theine", "moka"))
        yield from (self._beside("mixed", other) for other in ("theine", "moka"))
        yield self._hit_beside("dict", 8.0)
        yield self._hit_beside("cachetools", 0.5)
        traced = self.traced
        yield Target(
            "at most 330 bytes per entry, by tracemalloc",
            "" if traced is None else f"{traced:.0f}",
            None if traced is None else traced <= 330,
        )

    def as_json(self) -> dict[str, object]:
        """Everything."""
        return {
            "ratios": self.ratios,
            "ns": self.speed,
            "bytes_per_entry": self.memory,
            "bytes_per_entry_traced": self.traced,
            "missing": self.missing,
            "targets": [{"name": one.name, "measured": one.measured, "met": one.holds} for one in self.targets()],
        }

    def _ratios(self) -> Iterator[str]:
        traces = next(iter(self.ratios.values()))
        best = self.ratios.get(BEST)
        yield f"| Hit ratio | {' | '.join(traces)} |"
        yield f"| --- |{' ---: |' * len(traces)}"
        for subject, found in self.ratios.items():
            cells = [
                f"{found[trace]:.3f}" + (f" ({found[trace] / best[trace]:.0%})" if best and subject != BEST else "")
                for trace in traces
            ]
            yield f"| {_NAMES.get(subject, subject)} | {' | '.join(cells)} |"
        yield ""

    def _speed(self) -> Iterator[str]:
        yield "| Subject | Hit, ns | Replace, ns | Miss, ns | Evict, ns | Bytes per entry |"
        yield "| --- | ---: | ---: | ---: | ---: | ---: |"
        for subject, found in self.speed.items():
            cells = [f"{found[what]:.0f}" if what in found else "" for what in _CALLS]
            held = f"{self.memory[subject]:.0f}" if subject in self.memory else ""
            yield f"| {_NAMES.get(subject, subject)} | {' | '.join(cells)} | {held} |"

    def _as_simulated(self) -> Target:
        name = "hits within 0.5 % of the plain simulation"
        own, plain = self.ratios.get(OWN), self.ratios.get(PLAIN)
        if own is None or plain is None:
            return Target(name, "", None)
        most = max(abs(own[trace] - plain[trace]) / plain[trace] for trace in plain if plain[trace])
        return Target(name, f"{most:.2%} off at most", most <= 0.005)

    def _beside_lru(self) -> Target:
        name = f"hits at least as LRU's in five of six traces, and in {REAL}"
        own, lru = self.ratios.get(OWN), self.ratios.get("lru")
        if own is None or lru is None:
            return Target(name, "", None)
        as_good = [trace for trace in lru if own[trace] >= lru[trace]]
        made = len([trace for trace in as_good if trace != REAL])
        return Target(name, f"{made}{f' and {REAL}' * (REAL in as_good)}", made >= 5 and REAL in as_good)

    def _beside(self, trace: str, other: str) -> Target:
        name = f"hits at least as {_NAMES.get(other, other)}'s, {trace}"
        own, others = self.ratios.get(OWN), self.ratios.get(other)
        if own is None or others is None:
            return Target(name, "", None)
        return Target(name, f"{own[trace]:.3f} beside {others[trace]:.3f}", own[trace] >= others[trace])

    def _hit_beside(self, other: str, must: float) -> Target:
        name = f"a hit in at most {must:g} times that of {_NAMES.get(other, other)}"
        own, others = self.speed.get(OWN), self.speed.get(other)
        if own is None or others is None:
            return Target(name, "", None)
        times = own["hit"] / others["hit"]
        return Target(name, f"{times:.2f}", times <= must)


def _said(*, holds: bool | None) -> str:
    return "not measured" if holds is None else "yes" if holds else "no"
