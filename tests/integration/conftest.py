"""Servers that handlers write to: given by the environment, else started for this run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from missing import obtained
from servers.postgres import Postgres, obtain_postgres
from servers.redis import Redis, obtain_redis

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--recording", type=Path, help="where the metrics of an outage go, for tools/draw_outage.py")


@pytest.fixture
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a test may write what it recorded."""
    # A default again, because the option is not known where pytest starts from a folder above.
    return request.config.getoption("recording", None) or tmp_path / "recording.csv"


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A real Redis: at STREAMWORKER_TEST_REDIS if that is set, else started for this run."""
    given = os.environ.get("STREAMWORKER_TEST_REDIS")
    server = obtained(lambda: obtain_redis(given), asked_for=bool(given))
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL: at STREAMWORKER_TEST_POSTGRES if that is set, else started for this run."""
    given = os.environ.get("STREAMWORKER_TEST_POSTGRES")
    server = obtained(lambda: obtain_postgres(given), asked_for=bool(given))
    yield server
    server.close()
