"""The pages about alerts know all of them, and only those."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml
from alerts.prometheus_tools import ROOT, alerts, groupings, known, mistakes, promtool, selectors

if TYPE_CHECKING:
    from pathlib import Path

    from alerts.prometheus_tools import Rule

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text("utf-8")
MONITORING = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
PARTS = ["Means.", "How bad.", "Look at.", "Do.", "Ends."]


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert sorted(re.findall(r"^## (.*)$", RUNBOOKS, re.MULTILINE)) == sorted(one.name for one in alerts())


def test_every_section_says_what_it_means_how_bad_it_is_and_what_to_do() -> None:
    _, *sections = re.split(r"^## ", RUNBOOKS, flags=re.MULTILINE)
    parts = {section.partition("\n")[0]: re.findall(r"^\*\*(.+?)\*\*", section, re.MULTILINE) for section in sections}

    assert parts == dict.fromkeys(parts, PARTS)


def test_the_table_of_alerts_says_what_the_rules_say() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks\.md#(\w+)\) \| (\w+) \| (\w*) ?\| .+ \|$", MONITORING, re.MULTILINE)

    assert sorted(rows) == sorted((one.name, one.name.lower(), one.severity, one.hold) for one in alerts())


def examples(begins_with: str) -> list[dict]:
    """The YAML of the page whose first key is that."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", MONITORING, re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(block) for block in blocks if block.startswith(begins_with)]


def test_prometheus_takes_the_configurations_of_the_page(tmp_path: Path) -> None:
    configurations = examples("scrape_configs:")
    file = tmp_path / "prometheus.yaml"
    for one in configurations:
        for job in one["scrape_configs"]:
            job.pop("kubernetes_sd_configs", None)  # Debian's Prometheus is built without it
        file.write_text(yaml.safe_dump(one), "utf-8")

        result = promtool("check", "config", file)

        assert result.returncode == 0, result.stdout + result.stderr
    assert len(configurations) == 2


def test_overrides_of_the_page_are_of_alerts_that_there_are() -> None:
    [example] = examples("rules:")
    overrides = example["rules"]["overrides"]

    assert overrides.keys() <= {one.name for one in alerts()}
    assert [mistakes(one["expr"]) for one in overrides.values() if "expr" in one] == [[]]


def test_what_is_left_out_beside_another_alert_has_the_labels_for_it() -> None:
    [example] = examples("inhibit_rules:")
    [rule] = example["inhibit_rules"]
    [first, kind] = rule["source_matchers"]
    [pattern] = re.findall(r'"(.*)"', rule["target_matchers"][0])
    quiet = [one for one in alerts() if re.fullmatch(pattern, one.name)]

    assert first.removeprefix("alertname = ") in {one.name for one in alerts()}
    assert kind == "kind = sink"
    assert len(quiet) == 3
    assert all(set(rule["equal"]) <= groupings(one.expr) | _recorded(one) for one in quiet)


def _recorded(rule: Rule) -> set[str]:
    """Labels of the recorded series that a rule asks for."""
    return {label for name, _ in selectors(rule.expr) if ":" in name for label in known()[name]}
