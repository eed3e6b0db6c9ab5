"""The reference pages say what the code says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def _check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/generate_docs.py", "--check", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_no_reference_page_is_stale() -> None:
    result = _check(REFERENCE)

    assert result.returncode == 0, result.stderr


def test_a_stale_page_is_named_with_the_command_that_renews_it(tmp_path: Path) -> None:
    shutil.copytree(REFERENCE, tmp_path, dirs_exist_ok=True)
    page = tmp_path / "configuration.md"
    page.write_text(page.read_text(encoding="utf-8").replace("45.0", "46.0"), encoding="utf-8")
    (tmp_path / "events.md").unlink()

    result = _check(tmp_path)

    assert result.returncode == 1
    assert "configuration.md is stale" in result.stderr
    assert "events.md is stale" in result.stderr
    assert "python tools/generate_docs.py" in result.stderr
