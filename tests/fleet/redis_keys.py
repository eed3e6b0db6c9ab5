"""What happens to keys in a Redis without anybody's asking: their time is over, or they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis


def time_out(client: Redis, pattern: str, *, within_s: float) -> None:
    """Let the time be over of those that end within so many seconds."""
    for key in client.scan_iter(pattern, count=1000):
        if 0 <= client.pttl(key) <= within_s * 1000:
            client.pexpire(key, 0)


def lose_keys(client: Redis, pattern: str) -> None:
    """Remove them all."""
    for key in client.scan_iter(pattern, count=1000):
        client.delete(key)
