"""Fixtures that pytest finds by itself where streamworker is installed.

Imports nothing but pytest at start, since every test run of every project that depends on
streamworker pays for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamworker.testing.mock_kafka import MockKafka


@pytest.fixture
def mock_kafka() -> Iterator[MockKafka]:
    """A fresh mock cluster of one broker without topics, for one test."""
    from streamworker.testing.mock_kafka import MockKafka  # noqa: PLC0415 - see the module's first lines

    with MockKafka() as kafka:
        yield kafka
