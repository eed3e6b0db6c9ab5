"""What claims and locks in Redis cost: `python -m benchmarks.claims`, on a Redis that it starts. Some seconds.

Per key, at several keys per request; beside them a lock that is taken and released. Medians over rounds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from streamworker.idempotency import RedisLock
from streamworker.idempotency.redis import RedisClaims
from streamworker.redis_client import redis_client

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers.redis import obtain_redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

SIZES = (1, 100, 500)
ROUNDS = 60


def _took_us(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return (time.perf_counter() - began_s) * 1e6


def claims_us(client: Redis, size: int) -> tuple[float, float, float]:
    """Microseconds per key to claim, to complete, and to claim what is done, once it is warm."""
    claims = RedisClaims(client, group="benchmark", ttl_s=60)
    rounds = []
    for number in range(ROUNDS):
        made = [claims.make(f"orders:{size}:{number}:{offset}") for offset in range(size)]
        claim = _took_us(lambda made=made: claims.claim(made))
        complete = _took_us(lambda made=made: claims.complete([(one, b"") for one in made]))
        again = [claims.make(one.id) for one in made]
        rounds.append((claim, complete, _took_us(lambda again=again: claims.claim(again))))
    first, second, third = (median(column) / size for column in zip(*rounds[ROUNDS // 10 :], strict=True))
    return first, second, third


def lock_us(client: Redis) -> float:
    """Microseconds to take a lock that is free and to release it."""
    lock = RedisLock(client, "benchmark")

    def once() -> None:
        with lock.held(timeout_s=0):
            pass

    found = median(_took_us(once) for _ in range(ROUNDS * 10))
    lock.close()
    return found


def main() -> None:
    """Print a line per size, and one for the lock."""
    server = obtain_redis(None)
    try:
        client = redis_client(server.url, timeout_s=5.0, connections=4, option="benchmark")
        print("| keys per request | claim, µs per key | complete | claim of what is done |\n| --- | --- | --- | --- |")
        for size in SIZES:
            print(f"| {size} | " + " | ".join(f"{one:.1f}" for one in claims_us(client, size)) + " |")
        print(f"a lock, taken and released: {lock_us(client):.0f} µs")
        client.close()
    finally:
        server.close()


if __name__ == "__main__":
    main()
