"""The harness finds planted bugs on a real Kafka as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fleet.misfortunes import TOTAL, finds, options
from fleet.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

    from servers.kafka import SharedKafka

PARTITIONS = 2


@pytest.mark.parametrize("bug", ["commit_polled", "reuse_offset_after_revoke"])
def test_a_planted_bug_is_found_on_kafka(kafka: SharedKafka, tmp_path: Path, bug: str) -> None:
    topic = kafka.topic("planted", partitions=PARTITIONS)

    with Trial(
        kafka.bootstrap_servers,
        topic,
        kafka.group("planted"),
        tmp_path,
        partitions=PARTITIONS,
        total=TOTAL,
        options=options(bug),
    ) as trial:
        found = finds(bug, trial)

    assert found
