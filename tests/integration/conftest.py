"""Where the tests with servers that handlers write to leave what they have recorded."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--recording", type=Path, help="where the metrics of an outage go, for tools/draw_outage.py")


@pytest.fixture
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a test may write what it recorded."""
    # A default again, because the option is not known where pytest starts from a folder above.
    return request.config.getoption("recording", None) or tmp_path / "recording.csv"
