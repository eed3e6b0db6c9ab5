"""Servers that handlers write to: given by the environment, else started for this run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from missing import obtained
from servers.postgres import Postgres, obtain_postgres
from servers.redis import Redis, obtain_redis

if TYPE_CHECKING:
    from collections.abc import Iterator


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
