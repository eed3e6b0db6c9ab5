"""Locks in one Redis. `sw:lock:{NAME}` has the holder's token and ends with its lease, by the server's clock.

`sw:lock:{NAME}:fence` has the last number and no end: with one it would begin anew, below what resources have seen. So
locks belong on a server that evicts nothing (`maxmemory-policy noeviction`). Any thread.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

from streamworker.errors import LockUnavailable
from streamworker.idempotency.claims import Busy
from streamworker.idempotency.lock import Lock
from streamworker.idempotency.redis import ask, escaped, milliseconds
from streamworker.redis_client import Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

    from streamworker.clock import Clock

# Both in one script: a number that was given after the lock could be greater than that of the next holder.
_TAKE = Script("""
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[1] then
  return {0, redis.call('PTTL', KEYS[1])}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local number = redis.call('INCR', KEYS[2])
if number <= tonumber(ARGV[3]) then
  number = tonumber(ARGV[3]) + 1
  redis.call('SET', KEYS[2], string.format('%.0f', number))
end
return {1, number}
""")

_EXTEND = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
""")

_RELEASE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
""")


class RedisLocks:
    """`LockStore` in Redis. `client` is the caller's, who closes it, and says how long a call may take."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def take(self, name: str, token: str, *, lease_s: float, above: int) -> int | Busy:
        """See `LockStore.take`."""
        key = _key(name)
        taken, number = cast(
            "list[int]", self._ask(_TAKE, [key, f"{key}:fence"], [token, milliseconds(lease_s), above])
        )
        return number if taken else Busy(max(number, 0) / 1000)

    def extend(self, name: str, token: str, *, lease_s: float) -> bool:
        """See `LockStore.extend`."""
        return bool(self._ask(_EXTEND, [_key(name)], [token, milliseconds(lease_s)]))

    def release(self, name: str, token: str) -> bool:
        """See `LockStore.release`."""
        return bool(self._ask(_RELEASE, [_key(name)], [token]))

    def _ask(self, script: Script, keys: list[str | bytes], arguments: list[str | bytes | int]) -> object:
        return ask(self._client, script, keys, arguments, unavailable=LockUnavailable)


class RedisLock(Lock):
    """The lock `name` in Redis."""

    def __init__(
        self,
        client: Redis,
        name: str,
        *,
        lease_s: float = 30.0,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(RedisLocks(client), name, lease_s=lease_s, clock=clock, draw=draw)


def _key(name: str) -> str:
    return f"sw:lock:{{{escaped(name)}}}"
