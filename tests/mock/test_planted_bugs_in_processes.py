"""The harness finds bugs that are planted in a real worker process: else its green says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.misfortunes import FOUND_BY, TOTAL, finds, options
from fleet.trial import Trial
from planted.bugs import BUGS

from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTITIONS = 2
QUICK = {"kafka.group_protocol": "classic", "kafka.session_timeout_s": 1, "lifecycle.revoke_timeout_s": 0.5}


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka(topics={"in": PARTITIONS, "in.dlq": 2}) as cluster:
        yield cluster


def trial_on(kafka: MockKafka, folder: Path, bug: str) -> Trial:
    return Trial(
        kafka.bootstrap_servers,
        "in",
        "g",
        folder,
        partitions=PARTITIONS,
        total=TOTAL,
        deeds={"poison": 0.05},
        handler="fleet.apps:LedgerWithDeadLetters",
        letter_partitions=2,
        options={**options(bug), **QUICK},
    )


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(kafka: MockKafka, tmp_path: Path, bug: str) -> None:
    with trial_on(kafka, tmp_path, bug) as trial:
        found = finds(bug, trial, answer_after_ms=lambda delay_ms: kafka.broker_rtt(1, delay_ms))

    assert found


def test_every_planted_bug_says_what_finds_it() -> None:
    assert FOUND_BY.keys() == BUGS.keys()
