"""What the workers do whose alerts are tested: each record goes to a Redis, and waits while that is away."""

from __future__ import annotations

from fleet.sinks import StoreInRedis

from streamworker import Breaker


class Store(StoreInRedis):
    """Tries again soon, so that a test need not wait for it."""

    breaker = Breaker("redis", open_s=0.5, max_open_s=1.0)
