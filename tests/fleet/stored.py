"""What the handlers of `fleet.sinks` leave behind: rows, keys, and when each call began."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from redis import Redis

if TYPE_CHECKING:
    from pathlib import Path

_TABLE = """
CREATE TABLE IF NOT EXISTS handled (
    topic text, partition integer, at bigint, uid text, calls integer DEFAULT 1, PRIMARY KEY (topic, partition, at)
)
"""


def make_table(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TABLE)


def rows(url: str, topic: str) -> int:
    """Different records of a topic in PostgreSQL."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(DISTINCT uid) FROM handled WHERE topic = %s", (topic,)).fetchone()
    assert row is not None
    return int(row[0])


def keys(url: str, topic: str) -> int:
    """Records of a topic in Redis."""
    with Redis.from_url(url) as client:
        return sum(1 for _ in client.scan_iter(f"{topic}/*", count=1000))


def calls_of(ledger: Path) -> Path:
    """Where the handlers of a ledger note when each call began."""
    return ledger.with_name("calls")


def calls_between(ledger: Path, since_s: float, until_s: float) -> int:
    """How many calls began between two times of the monotonic clock."""
    return sum(since_s < float(line) < until_s for line in calls_of(ledger).read_text().splitlines())
