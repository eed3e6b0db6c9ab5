"""Alerts and boards reach the cluster as their files have them; the whole of two cases is looked at if it changes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from rendered_chart import CHART, case, rendered, with_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

GOLDEN = Path(__file__).parent / "golden"
ASKED_FOR = {"rules": {"enabled": True}, "dashboards": {"enabled": True}}
# Rules with all that the operator takes, and braces that are Prometheus' own.
RULES = """
groups:
  - name: first
    interval: 15s
    rules:
      - record: streamworker:lag:sum
        expr: sum by (group) (streamworker_group_lag_records)
      - alert: StreamWorkerLagHigh
        expr: |
          streamworker:lag:sum > 10000
        for: 2m
        keep_firing_for: 5m
        labels: {severity: warning, team: stream}
        annotations:
          summary: '{{ $labels.group }} is {{ $value | humanize }} behind'
  - name: second
    limit: 3
    rules:
      - alert: StreamWorkerDown
        expr: absent(up)
"""


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with rules and a board of this file."""
    folder = tmp_path_factory.mktemp("chart") / "streamworker"
    shutil.copytree(CHART, folder, ignore=shutil.ignore_patterns("files", "ci"))
    (folder / "files" / "rules").mkdir(parents=True)
    (folder / "files" / "rules" / "some.yaml").write_text(RULES, "utf-8")
    (folder / "files" / "dashboards").mkdir()
    (folder / "files" / "dashboards" / "one.json").write_text('{\n "legend": "{{topic}}"\n}\n', "utf-8")
    return folder


def _groups(found: object) -> list[dict[str, object]]:
    [rule] = found.of("PrometheusRule")
    return rule["spec"]["groups"]


def test_alerts_are_those_of_the_files() -> None:
    files = sorted((CHART / "files" / "rules").glob("*.yaml"))

    groups = _groups(rendered(with_worker({}, **ASKED_FOR)))

    assert groups == [group for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]


def _is_for_grafana(found: Mapping[str, object]) -> bool:
    return found["metadata"].get("labels", {}).get("grafana_dashboard") == "1"


def test_boards_are_those_of_the_files() -> None:
    files = sorted((CHART / "files" / "dashboards").glob("*.json"))

    found = [one for one in rendered(with_worker({}, **ASKED_FOR)).of("ConfigMap") if _is_for_grafana(one)]

    boards = {name: json.loads(text) for one in found for name, text in one["data"].items()}
    assert boards == {file.name: json.loads(file.read_text("utf-8")) for file in files}


def test_rules_stay_as_they_are_where_nothing_is_said(chart: Path) -> None:
    groups = _groups(rendered(with_worker({}, **ASKED_FOR), chart))

    assert groups == yaml.safe_load(RULES)["groups"]


def test_braces_of_a_board_stay_as_they_are(chart: Path) -> None:
    found = rendered(with_worker({}, **ASKED_FOR), chart).one("ConfigMap", "demo-streamworker-dashboards")

    assert json.loads(found["data"]["one.json"]) == {"legend": "{{topic}}"}


def test_what_is_said_of_an_alert_is_laid_over_it_alone(chart: Path) -> None:
    overrides = {
        "StreamWorkerLagHigh": {"for": "5m", "expr": "vector(1)", "severity": "page", "labels": {"owner": "billing"}},
        "StreamWorkerDown": {"enabled": True, "labels": {"severity": "page"}},
    }

    first, second = _groups(rendered(with_worker({}, rules={"enabled": True, "overrides": overrides}), chart))

    recorded, lag = first["rules"]
    assert recorded == yaml.safe_load(RULES)["groups"][0]["rules"][0]
    assert (lag["for"], lag["expr"], lag["keep_firing_for"]) == ("5m", "vector(1)", "5m")
    assert lag["labels"] == {"severity": "page", "team": "stream", "owner": "billing"}
    assert second["rules"][0]["labels"] == {"severity": "page"}


def test_alerts_lead_to_the_runbooks_where_they_are_served() -> None:
    rules = {"enabled": True, "runbooks": "https://wiki.example/runbooks"}

    found = [rule for group in _groups(rendered(with_worker({}, rules=rules))) for rule in group["rules"]]

    links = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in found if "alert" in rule}
    assert links == {alert: f"https://wiki.example/runbooks#{alert.lower()}" for alert in links}
    assert "StreamWorkerLagHigh" in links
    assert all(rule["annotations"]["summary"] for rule in found if "alert" in rule)


def test_an_alert_is_left_out_and_its_group_with_it_if_it_was_the_last(chart: Path) -> None:
    overrides = {"StreamWorkerLagHigh": {"enabled": False}, "StreamWorkerDown": {"enabled": False}}

    groups = _groups(rendered(with_worker({}, rules={"enabled": True, "overrides": overrides}), chart))

    assert [(group["name"], len(group["rules"])) for group in groups] == [("first", 1)]


def _without_files(found: Mapping[str, object]) -> Mapping[str, object]:
    """An object without what stands in the files of alerts, which change by themselves."""
    if found["kind"] == "PrometheusRule":
        return {**found, "spec": {"groups": "those of files/rules"}}
    return found


@pytest.mark.parametrize("name", ["minimal", "full"])
def test_the_whole_of_a_case_is_as_it_was_last_looked_at(name: str) -> None:
    """`STREAMWORKER_TEST_GOLDEN=write` writes them anew; what has changed is then for a person to read."""
    file = GOLDEN / f"{name}.yaml"
    objects = [_without_files(one) for one in case(name).objects if not _is_for_grafana(one)]

    found = "---\n".join(yaml.safe_dump(one, sort_keys=False, width=120, default_flow_style=None) for one in objects)

    if os.environ.get("STREAMWORKER_TEST_GOLDEN") == "write":
        file.write_text(found, "utf-8")
    assert found == file.read_text("utf-8"), "renewed by STREAMWORKER_TEST_GOLDEN=write"


NOTES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data:
  text: |
    {{- include "streamworker.notes" . | nindent 4 }}
"""


@pytest.mark.parametrize("mode", ["hpa", "keda", "none"])
def test_the_notes_have_the_adapters_rule_where_an_hpa_needs_it(mode: str) -> None:
    worker = {"topics": ["orders"], "partitions": 12, "autoscaling": {"mode": mode}}

    notes = rendered(with_worker(worker, extraObjects=[NOTES])).one("ConfigMap", "notes")["data"]["text"]

    rule = "metricsQuery: 'max(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'"
    assert "helm -n flows test demo --logs" in notes
    assert (rule in notes) is (mode == "hpa")


@pytest.mark.parametrize("tls", [True, False])
def test_the_notes_warn_of_credentials_in_the_clear(tls: bool) -> None:
    kafka = {"tls": {"enabled": tls}, "sasl": {"mechanism": "PLAIN", "existingSecret": "kafka"}}

    notes = rendered(with_worker({}, kafka=kafka, extraObjects=[NOTES])).one("ConfigMap", "notes")["data"]["text"]

    assert ("WARNING" in notes) is not tls
