"""The flights demo on a real Kafka."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servers.kafka import SharedKafka

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 100.0  # 20 s on two idle cores


def test_the_demo_loses_nothing_and_leaves_no_topic_behind(kafka: SharedKafka) -> None:
    demo = [sys.executable, "examples/flights/demo.py", "--rows", "3000", "--rate", "1000"]
    done = subprocess.run(
        [*demo, "--kafka", kafka.bootstrap_servers],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "all checks passed" in done.stdout
    topic = done.stdout.split()[3]
    assert topic.startswith("demo-flights-")
    assert not [name for name in kafka.admin.list_topics(timeout=TIMEOUT_S).topics if name.startswith(topic)]
