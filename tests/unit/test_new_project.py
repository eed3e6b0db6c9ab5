"""What `streamworker new` writes works as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_the_tests_of_a_new_project_pass(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    subprocess.run([sys.executable, "-m", "streamworker", "new", "shop"], cwd=tmp_path, env=environment, check=True)

    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "shop",
        env=environment,
        capture_output=True,
        text=True,
        check=False,  # the assertion shows more
    )

    assert "2 passed" in tests.stdout, tests.stdout + tests.stderr
