"""The example with caches and sinks keeps what its README says, on the mock cluster and SQLite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 100.0  # 12 s on two idle cores


def test_flights_are_enriched_once_and_never_with_an_old_plane_though_the_worker_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "examples/enrich/demo.py", "--rows", "3000"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "worker-1 is killed" in done.stdout
    assert "all checks passed" in done.stdout
    found = {line[:44].strip(): line[44:].split() for line in done.stdout.splitlines() if line.endswith(" ok")}
    assert found["rows, flights without dead letters"] == ["2,972", "2,972", "ok"]
    assert found["dead letters: the plane is not registered"] == ["23", "23", "ok"]
    assert found["flights that are stored twice"] == ["0", "0", "ok"]
    assert found["flights with an old plane"] == ["0", "0", "ok"]
    assert "hit ratio of cache planes" in found
