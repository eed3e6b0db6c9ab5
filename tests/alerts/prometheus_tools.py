"""`promtool`, and what rules and boards say, as values."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from missing import unavailable

from streamworker.observability.catalogue import Kind, Metric, ObserverMetric, SupervisorMetric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy" / "charts" / "streamworker" / "files"
RULES = sorted((FILES / "rules").glob("*.yaml"))

# Of the target, and what several processes of one target are told apart by.
OF_TARGETS = frozenset({"namespace", "pod", "instance", "job", "worker"})
# What the client library says of a process by itself, and Prometheus of alerts.
OF_OTHERS: Mapping[str, frozenset[str]] = {
    "process_start_time_seconds": frozenset(),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SELECTOR = re.compile(rf"({_NAME})\s*(?:\{{([^}}]*)\}})?(?!\s*\()")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it; a skip, or in CI a failure, where it is missing."""
    if shutil.which("promtool") is None:
        unavailable("no promtool on the PATH (Debian: prometheus)")
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, check=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert or a recording rule, and the file that it is in."""

    file: Path
    name: str
    expr: str
    hold: str = ""  # `for`
    severity: str = ""
    annotations: Mapping[str, str] | None = None

    @property
    def recorded(self) -> bool:
        return self.annotations is None


@cache
def rules() -> Sequence[Rule]:
    """All of them, in the order of the files."""
    return [
        Rule(
            file,
            one.get("alert") or one["record"],
            one["expr"],
            one.get("for", ""),
            one.get("labels", {}).get("severity", ""),
            one["annotations"] if "alert" in one else None,
        )
        for file in RULES
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for one in group["rules"]
    ]


def alerts() -> Sequence[Rule]:
    """Those that tell somebody."""
    return [one for one in rules() if not one.recorded]


@cache
def known() -> Mapping[str, frozenset[str]]:
    """The labels of every series that there is, by its name."""
    labels = dict(OF_OTHERS)
    for one in (*Metric, *SupervisorMetric, *ObserverMetric):
        own = frozenset(one.value.labels)
        labels[one.value.full_name] = own
        if one.value.kind is Kind.HISTOGRAM:
            labels |= {f"{one.value.full_name}{part}": own for part in ("_count", "_sum")}
            labels[f"{one.value.full_name}_bucket"] = own | {"le"}
    for rule in rules():
        if rule.recorded:
            labels[rule.name] = frozenset(_produced(rule.expr))
    return labels


def selectors(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Names of series in an expression, with the labels that are asked of each."""
    for name, matchers in _SELECTOR.findall(_GROUPING.sub(" ", expr)):
        if name.startswith("streamworker_") or ":" in name or name in OF_OTHERS:
            yield name, {label for label, _ in _MATCHER.findall(matchers)}


def groupings(expr: str) -> set[str]:
    """Labels by which an expression puts series together or beside one another."""
    return {label.strip() for found in _GROUPING.findall(expr) for label in found.split(",") if label.strip()}


def mistakes(expr: str) -> list[str]:
    """Series that nobody exports, and labels that these do not have."""
    found, there = [], set(OF_TARGETS)
    for name, labels in selectors(expr):
        own = known().get(name)
        if own is None:
            found.append(f"nobody exports {name}")
            continue
        there |= own
        found += [f"{name} has no label {label}" for label in sorted(labels - own - OF_TARGETS)]
    return found + [f"nothing has the label {label}: {expr}" for label in sorted(groupings(expr) - there)]


def _produced(expr: str) -> set[str]:
    """The labels that a sum of something has: those of its outermost `by`."""
    outermost = re.match(r"\s*\w+ by \(([^)]*)\)", expr)
    return {label.strip() for label in outermost[1].split(",")} if outermost else set()
