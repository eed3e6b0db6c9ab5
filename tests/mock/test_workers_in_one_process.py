"""Workers that follow each other in one process, as in tests of applications."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet.in_process import config

from streamworker import Handler
from streamworker.assembly import assemble

if TYPE_CHECKING:
    from streamworker import Record
    from streamworker.testing import MockKafka

OPEN_FILES = Path("/proc/self/fd")


class Nothing(Handler[bytes]):
    topics = ("in",)
    concurrency = 1

    def handle(self, record: Record[bytes]) -> None:
        pass


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="open files are counted on Linux only")
def test_a_worker_that_has_ended_keeps_no_client_and_no_file(mock_kafka: MockKafka) -> None:
    """Its objects refer to one another, so a collection frees them, unless they were put out of its reach."""
    mock_kafka.create_topic("in", 1)
    counts, thresholds = [], gc.get_threshold()
    for _ in range(4):
        assert assemble(config(mock_kafka.bootstrap_servers), [Nothing], until_end=True).run() == 0
        gc.collect()
        counts.append(sum(1 for _ in OPEN_FILES.iterdir()))

    assert counts[-1] <= counts[0]
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, thresholds)
