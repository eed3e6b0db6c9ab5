"""The rules of the chart: what fires them and what does not, and that they ask for what is there."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from alerts.prometheus_tools import (
    OF_TARGETS,
    RULES,
    Rule,
    alerts,
    groupings,
    known,
    mistakes,
    promtool,
    rules,
    selectors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
THE_ALERTS = {
    "LagHigh", "LagSecondsHigh", "LagStalled", "LagRewound", "LagUnknown", "GroupHasUnownedPartitions", "DataLossNear",
    "LatencyP99High", "ErrorRatioHigh", "ErrorBudgetBurn", "BreakerOpen", "PartitionStopped",
    "DLQGrowing", "DLQBurst", "DLQOldestPending", "DLQExpiring", "DLQProduceFailing",
    "Down", "RebalanceStorm", "PollStalled", "CommitFailing", "BrokerThrottled", "MemoryGrowth",
}  # fmt: skip


def outcomes() -> Iterator[tuple[str, bool, set[str]]]:
    """What each case says of an alert: its name, whether it fires, and the names of the series that there are."""
    for file in CASES:
        for case in yaml.safe_load(file.read_text("utf-8"))["tests"]:
            there = {one["series"].partition("{")[0] for one in case["input_series"]}
            for expected in case.get("alert_rule_test", []):
                yield expected["alertname"], bool(expected["exp_alerts"]), there


def asked_of(rule: Rule) -> set[str]:
    """The exported series that a rule goes by, also by way of others."""
    recorded = {one.name: one for one in rules() if one.recorded}
    names = {name for name, _ in selectors(rule.expr)}
    return {one for name in names for one in (asked_of(recorded[name]) if name in recorded else {name})}


def test_prometheus_takes_the_rules() -> None:
    result = promtool("check", "rules", *RULES)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("cases", CASES, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should_and_only_then(cases: Path) -> None:
    result = promtool("test", "rules", cases)

    assert result.returncode == 0, result.stdout + result.stderr


def test_there_are_these_alerts_and_each_once() -> None:
    assert sorted(one.name for one in alerts()) == sorted(f"StreamWorker{name}" for name in THE_ALERTS)


def test_every_alert_has_a_case_that_fires_and_one_with_series_of_its_own_that_does_not() -> None:
    asked = {one.name: asked_of(one) for one in alerts()}
    seen: dict[str, set[bool]] = defaultdict(set)
    for name, fires, there in outcomes():
        if fires or there & asked[name]:
            seen[name].add(fires)

    assert {name: seen[name] for name in asked} == {name: {True, False} for name in asked}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_rules_ask_for_series_and_labels_that_are_there(rule: Rule) -> None:
    assert mistakes(rule.expr) == []


def test_what_is_recorded_is_used_and_named_by_its_labels() -> None:
    recorded = {one.name: one for one in rules() if one.recorded}
    used = {name for one in rules() for name, _ in selectors(one.expr)}

    assert recorded.keys() - used == set()
    assert all(name.partition(":")[0] == "_".join(sorted_labels(one)) for name, one in recorded.items())


def sorted_labels(rule: Rule) -> list[str]:
    """The labels of what is recorded, in the order of its name."""
    return sorted(known()[rule.name], key=rule.name.index)


@pytest.mark.parametrize("alert", alerts(), ids=lambda rule: rule.name)
def test_an_alert_says_how_bad_it_is_what_is_seen_and_where_to_read_on(alert: Rule) -> None:
    notes = alert.annotations or {}
    reachable = groupings(alert.expr).union(OF_TARGETS, *(known()[name] for name, _ in selectors(alert.expr)))

    assert alert.severity in {"warning", "critical"}
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/runbooks.md#{alert.name.lower()}"
    assert len(notes["summary"]) < len(notes["description"])
    assert set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"])) <= reachable


@pytest.mark.parametrize(
    "wrong",
    ["streamworker_lag", 'streamworker_dlq_records_total{topic="a"}', "sum by (key) (streamworker_held_records)"],
)
def test_a_series_or_a_label_that_nobody_exports_is_found(wrong: str) -> None:
    assert len(mistakes(wrong)) == 1
