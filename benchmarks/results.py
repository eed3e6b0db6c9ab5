"""What came of the rounds, as tables. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.catalogue import AIM_CPU, AIM_P99_MS, MUST_CPU, MUST_P99_MS, STEPS, Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.catalogue import Row

Round = dict[str, dict[str, float]]  # figures by the name of the row


@dataclass(frozen=True, slots=True)
class Reached:
    """A row with a target: `value` is the median over the rounds of what `must` bounds, from below if `more`."""

    name: str
    value: float
    must: float | None
    aim: float | None
    more: bool

    @property
    def holds(self) -> bool | None:
        """Whether what it must reach is reached; None if nothing is asked."""
        if self.must is None:
            return None
        return self.value >= self.must if self.more else self.value <= self.must


def reached(rows: Sequence[Row], rounds: Sequence[Round]) -> Iterator[Reached]:
    """What each row with one beside it has reached; ratios and differences are taken within a round."""
    for row in rows:
        if row.beside is None:
            continue
        of = _compared(row, rounds)
        match row.figure:
            case Figure.RATE:
                yield Reached(row.name, of("rate", _ratio), row.must, row.aim, more=True)
                if row.name == "batch":
                    yield Reached("batch, CPU", of("cpu_ns", _ratio), MUST_CPU, AIM_CPU, more=False)
            case Figure.LATENCY:
                yield Reached("latency, p50 ms", of("p50_ms", _more), row.must, row.aim, more=False)
                yield Reached("latency, p99 ms", of("p99_ms", _more), MUST_P99_MS, AIM_P99_MS, more=False)
            case Figure.MEMORY:
                yield Reached("memory, MiB", of("mib", _more), row.must, row.aim, more=False)
            case Figure.START:
                yield Reached("start, s", of("start_s", _more), row.must, row.aim, more=False)


def tables(rows: Sequence[Row], rounds: Sequence[Round]) -> str:
    """Markdown: what was measured of each kind of row, then what was reached."""
    parts = [_rates(rows, rounds)]
    parts += [
        _table(rows, rounds, figure, columns)
        for figure, columns in (
            (Figure.LATENCY, {"p50_ms": "p50 ms", "p99_ms": "p99 ms"}),
            (Figure.MEMORY, {"mib": "MiB at the most", "grown_mib": "of these since half of the records"}),
            (Figure.START, {"start_s": "s to the first record"}),
        )
    ]
    parts += [_ladder(rows, rounds), _targets(rows, rounds)]
    return "\n\n".join(part for part in parts if part)


def _rates(rows: Sequence[Row], rounds: Sequence[Round]) -> str:
    lines = [
        "| Row | Records/s | Of the row beside it | Lowest to highest | CPU ns per record |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row.figure is not Figure.RATE:
            continue
        rate, cpu_ns = (median(one[row.name][name] for one in rounds) for name in ("rate", "cpu_ns"))
        ratio = spread = ""
        if row.beside is not None:
            ratios = sorted(one[row.name]["rate"] / one[row.beside]["rate"] for one in rounds)
            ratio, spread = f"{median(ratios):.0%}", f"{ratios[0]:.0%} to {ratios[-1]:.0%}"
        lines.append(f"| {row.name} | {rate:,.0f} | {ratio} | {spread} | {cpu_ns:,.0f} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _table(rows: Sequence[Row], rounds: Sequence[Round], figure: Figure, columns: Mapping[str, str]) -> str:
    of_kind = [row for row in rows if row.figure is figure]
    if not of_kind:
        return ""
    lines = [f"| Row | {' | '.join(columns.values())} |", "|---" + "|---:" * len(columns) + "|"]
    for row in of_kind:
        found = (f"{median(one[row.name][name] for one in rounds):.2f}" for name in columns)
        lines.append(f"| {row.name} | {' | '.join(found)} |")
    return "\n".join(lines)


def _ladder(rows: Sequence[Row], rounds: Sequence[Round]) -> str:
    """What each step costs beyond the one before, from the bare client to the whole worker."""
    names = [name for name in STEPS if any(row.name == name for row in rows)]
    if len(names) < len(STEPS):
        return ""
    lines = ["| Step | ns per record | Beyond the one before |", "|---|---:|---:|"]
    before_ns = None
    for name in names:
        ns = median(1e9 / one[name]["rate"] for one in rounds)
        more = "" if before_ns is None else f"{ns - before_ns:+,.0f}"
        lines.append(f"| {STEPS[name]} | {ns:,.0f} | {more} |")
        before_ns = ns
    return "\n".join(lines)


def _targets(rows: Sequence[Row], rounds: Sequence[Round]) -> str:
    lines = ["| Target | Reached | Must | Aim | |", "|---|---:|---:|---:|---|"]
    for one in reached(rows, rounds):
        if one.must is None:
            continue
        say = _percent if one.more or "CPU" in one.name else _number
        sign = "≥" if one.more else "≤"
        aim = "" if one.aim is None else f"{sign} {say(one.aim)}"
        lines.append(
            f"| {one.name} | {say(one.value)} | {sign} {say(one.must)} | {aim} | {'yes' if one.holds else 'no'} |"
        )
    return "\n".join(lines) if len(lines) > 2 else ""


def _compared(row: Row, rounds: Sequence[Round]) -> Callable[[str, Callable[[float, float], float]], float]:
    def of(name: str, compare: Callable[[float, float], float]) -> float:
        return median(compare(one[row.name][name], one[row.beside or ""][name]) for one in rounds)

    return of


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs


def _more(ours: float, theirs: float) -> float:
    return ours - theirs


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _number(value: float) -> str:
    return f"{value:.2f}"
