"""The example with caches and sinks, on a real Kafka, PostgreSQL and Redis: two workers share what they know."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from servers.kafka import SharedKafka
    from servers.postgres import Postgres
    from servers.redis import Redis

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 100.0  # 15 s on two idle cores


def test_flights_are_enriched_once_and_never_with_an_old_plane_though_one_of_two_workers_is_killed(
    kafka: SharedKafka, postgres: Postgres, redis: Redis
) -> None:
    demo = [sys.executable, "examples/enrich/demo.py", "--rows", "6000"]
    done = subprocess.run(
        [*demo, "--kafka", kafka.bootstrap_servers, "--database", postgres.url, "--redis", redis.url],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "worker-2 is killed" in done.stdout
    assert "all checks passed" in done.stdout
    assert "planes, l2, hit" in done.stdout
    run = done.stdout.split()[3].removeprefix("demo-enrich-")
    assert not [name for name in kafka.admin.list_topics(timeout=TIMEOUT_S).topics if run in name]
    with psycopg.connect(postgres.url) as connection:
        left = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'demo_enrich%'").fetchall()
    assert left == []
