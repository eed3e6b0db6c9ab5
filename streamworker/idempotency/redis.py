"""Claims in Redis: a key each, and a script for as many as are asked for at once.

A key is `sw:idem:{GROUP}:ID`, its value `P` and the token while it is in work, `D` and the result when it is done. The
braces are a hash tag: in a cluster all claims of a group are in one slot, since a script may only touch one. Leases
and retention are counted by the server. Any thread.
"""

from __future__ import annotations

import random
import secrets
from typing import TYPE_CHECKING, TypeVar, cast

from streamworker.errors import ClaimsUnavailable
from streamworker.idempotency.claims import GRANTED, Claim, Completion, Done, Tokens, busy, refuse_large
from streamworker.redis_client import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis import Redis

    from streamworker.errors import LockUnavailable
    from streamworker.idempotency.claims import Answer

T = TypeVar("T")

# While a script runs nobody else is served: 500 take 2 ms.
_CHUNK = 500
_GRANTED = -1  # among answers that are otherwise what the lease of another has left, in milliseconds
_COMPLETIONS = (Completion.LOST, Completion.COMPLETED, Completion.ALREADY_DONE)

# What is neither `P…` nor `D…` was not written by a script of these: it is no claim. One that never ends gets an end.
_CLAIM = Script("""
local answers = {}
for i, key in ipairs(KEYS) do
  local own = 'P' .. ARGV[i + 1]
  local found = redis.pcall('GET', key)
  local kind = type(found) == 'string' and string.sub(found, 1, 1)
  if kind == 'D' then
    answers[i] = found
  elseif kind == 'P' and found ~= own then
    local left = redis.call('PTTL', key)
    if left < 0 then
      redis.call('PEXPIRE', key, ARGV[1])
      left = tonumber(ARGV[1])
    end
    answers[i] = left
  else
    redis.call('SET', key, own, 'PX', ARGV[1])
    answers[i] = -1
  end
end
return answers
""")

_COMPLETE = Script("""
local answers = {}
for i, key in ipairs(KEYS) do
  local found = redis.pcall('GET', key)
  if found == 'P' .. ARGV[2 * i] then
    redis.call('SET', key, 'D' .. ARGV[2 * i + 1], 'PX', ARGV[1])
    answers[i] = 1
  elseif type(found) == 'string' and string.sub(found, 1, 1) == 'D' then
    answers[i] = 2
  else
    answers[i] = 0
  end
end
return answers
""")

_RELEASE = Script("""
for i, key in ipairs(KEYS) do
  if redis.pcall('GET', key) == 'P' .. ARGV[i] then
    redis.call('DEL', key)
  end
end
return 0
""")

_EXTEND = Script("""
local answers = {}
for i, key in ipairs(KEYS) do
  answers[i] = 0
  if redis.pcall('GET', key) == 'P' .. ARGV[i + 1] then
    answers[i] = redis.call('PEXPIRE', key, ARGV[1])
  end
end
return answers
""")


class RedisClaims:
    """`Claims` of one group. `client` is the caller's, who closes it, and says how long a call may take."""

    def __init__(
        self,
        client: Redis,
        *,
        group: str,
        lease_s: float = 30.0,
        ttl_s: float = 86_400.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._prefix = f"sw:idem:{{{escaped(group)}}}:"
        self.lease_s = lease_s
        self._ttl_s = ttl_s
        self._draw = draw
        self._tokens = Tokens(secrets.token_hex(8))

    def make(self, claim_id: str) -> Claim:
        """See `Claims.make`."""
        return Claim(claim_id, self._tokens.next())

    def claim(self, claims: Sequence[Claim]) -> Sequence[Answer]:
        """See `Claims.claim`."""
        found: list[Answer] = []
        for some in _chunks(claims):
            tokens = [one.token for one in some]
            answers = self._ask(_CLAIM, some, [milliseconds(self.lease_s), *tokens])
            found += [self._answer(one) for one in answers]
        return found

    def complete(self, results: Sequence[tuple[Claim, bytes]]) -> Sequence[Completion]:
        """See `Claims.complete`."""
        refuse_large(results)
        found: list[Completion] = []
        for some in _chunks(results):
            pairs = [part for claim, result in some for part in (claim.token, result)]
            answers = self._ask(_COMPLETE, [claim for claim, _ in some], [milliseconds(self._ttl_s), *pairs])
            found += [_COMPLETIONS[cast("int", one)] for one in answers]
        return found

    def release(self, claims: Sequence[Claim]) -> None:
        """See `Claims.release`."""
        for some in _chunks(claims):
            self._ask(_RELEASE, some, [one.token for one in some])

    def extend(self, claims: Sequence[Claim]) -> Sequence[bool]:
        """See `Claims.extend`."""
        found: list[bool] = []
        for some in _chunks(claims):
            tokens = [one.token for one in some]
            found += map(bool, self._ask(_EXTEND, some, [milliseconds(self.lease_s), *tokens]))
        return found

    def _ask(
        self, script: Script, claims: Sequence[Claim], arguments: Sequence[str | bytes | int]
    ) -> Sequence[int | bytes]:
        keys = [(self._prefix + claim.id).encode("utf-8", "surrogatepass") for claim in claims]
        answers = ask(self._client, script, keys, arguments, unavailable=ClaimsUnavailable)
        return cast("Sequence[int | bytes]", answers)

    def _answer(self, answer: int | bytes) -> Answer:
        if isinstance(answer, bytes):
            return Done(answer[1:])
        return GRANTED if answer == _GRANTED else busy(answer / 1000, self.lease_s, self._draw())


def ask(
    client: Redis,
    script: Script,
    keys: Sequence[str | bytes],
    arguments: Sequence[str | bytes | int],
    *,
    unavailable: type[ClaimsUnavailable | LockUnavailable],
) -> object:
    """What the script returns; any failure of Redis, also one that it reports, as `unavailable`.

    A replica, a full memory, a server that loads its data: each means that nothing can be noted now.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415 - only who uses Redis needs the package

    try:
        return script(client, keys, arguments)
    except (RedisError, OSError) as error:
        raise unavailable(f"Redis: {str(error) or type(error).__name__}") from error


def escaped(name: str) -> str:
    """`name` as it may stand within a hash tag, so that nobody's tag ends too early or is another's."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


def milliseconds(seconds: float) -> int:
    """As the server counts."""
    return max(1, round(seconds * 1000))


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
