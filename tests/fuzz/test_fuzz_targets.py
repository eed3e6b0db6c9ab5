"""Every target for a moment, and whether a campaign would notice; `python -m fuzz` searches for minutes."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import hypothesis
import pytest
from fuzz.campaign import search
from fuzz.target import explore
from fuzz.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

_EXAMPLES = 25


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_inputs_of_every_target_show_nothing(name: str) -> None:
    limits = hypothesis.settings(
        max_examples=_EXAMPLES, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )

    explore(TARGETS[name], limits)


@pytest.mark.parametrize(
    ("name", "what"),
    [("raises", "AssertionError: too large"), ("crashes", "exit code -11"), ("hangs", "one input took more than 1 s")],
)
def test_a_campaign_finds_what_fails_and_keeps_the_input(name: str, what: str, tmp_path: Path) -> None:
    outcome = search(name, 60, tmp_path, catalogue="fuzz.broken_targets", hang_s=1)

    assert outcome.finding is not None
    assert what in outcome.finding.what
    culprit = ast.literal_eval(outcome.finding.case_file.read_text())
    assert culprit == 1000 if name == "raises" else culprit > 1000


def test_a_campaign_without_a_finding_ends_when_its_time_is_over(tmp_path: Path) -> None:
    outcome = search("is-well", 1, tmp_path, catalogue="fuzz.broken_targets")

    assert outcome.finding is None
    assert outcome.examples > 0
