"""The second level of a cache in Redis: keys, scripts, and what is told to other processes.

    sw:<app>:<cache>:<bucket>:e                 the epoch
    sw:<app>:<cache>:<bucket>:<epoch>:<key>     an envelope
    sw:<app>:<cache>:<bucket>:<epoch>l:<key>    the lease on it
    sw:<app>:<cache>:inv                        the channel

An epoch is a time of the server in microseconds. It is part of every key, so that a new one makes all values
unreachable at once, and it is never used again. Every script is told which one the caller means, and does nothing if
there is another; then the caller asks for it and repeats. A process never goes back to a lower one: a server that has
lost an epoch gets a new one.

A script serves many keys in one round trip, which costs a third of a pipeline of commands, and tells the other
processes in the same step in which it changes something. On a Redis Cluster one call can only have keys of one slot, so
there the keys of a cache are spread over 64 buckets, elsewhere there is one.
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import quote

import msgspec

from streamworker.cache.store import Leases, Message, StoreFailed
from streamworker.redis_client import Script, within

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from streamworker.redis_client import Client


R = TypeVar("R")

# About 2 ms of the server's time, in which it answers nobody else.
PART = 500
CLUSTER_BUCKETS = 64
_TRIES = 3  # of a call that meets a new epoch each time
_OTHER_EPOCH = -1

_SAME_EPOCH = "if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return -1 end local out = {} "

# KEYS: epoch, then value and lease of each. Reads are pcalls: a key of another type counts as no value.
_LEASE = Script(
    _SAME_EPOCH
    + """
for i = 1, (#KEYS - 1) / 2 do
  local value = nil
  if string.sub(ARGV[4], i, i) == '0' then value = redis.pcall('GET', KEYS[2 * i]) end
  if type(value) == 'string' then
    out[i] = value
  else
    local set = redis.pcall('SET', KEYS[2 * i + 1], ARGV[2], 'NX', 'PX', ARGV[3])
    if not set then out[i] = 0 elseif set.err then out[i] = 2 else out[i] = 1 end
  end
end
return out
"""
)
# A server that is full takes no SET: then there is no value, which is right, too.
_FILL = Script(
    _SAME_EPOCH
    + """
for i = 1, (#KEYS - 1) / 2 do
  out[i] = 0
  if redis.pcall('GET', KEYS[2 * i + 1]) == ARGV[2] then
    redis.call('DEL', KEYS[2 * i + 1])
    if not redis.pcall('SET', KEYS[2 * i], ARGV[3 + i], 'PX', ARGV[3]).err then out[i] = 1 end
  end
end
return out
"""
)
_RELEASE = Script(
    _SAME_EPOCH
    + """
for i = 1, (#KEYS - 1) / 2 do
  if redis.pcall('GET', KEYS[2 * i + 1]) == ARGV[2] then redis.call('DEL', KEYS[2 * i + 1]) end
end
return out
"""
)
_WRITE = Script(
    _SAME_EPOCH
    + """
for i = 1, (#KEYS - 1) / 2 do
  out[i] = 0
  redis.call('DEL', KEYS[2 * i + 1])
  local head = redis.pcall('GETRANGE', KEYS[2 * i], 0, 7)
  if head ~= '' then
    local present = type(head) == 'string' and #head == 8 and struct.unpack('>I8', head) or 0
    if present == 0 then
      redis.call('DEL', KEYS[2 * i])
    elseif present < struct.unpack('>I8', ARGV[4 + i]) then
      if redis.pcall('SET', KEYS[2 * i], ARGV[4 + i], 'PX', ARGV[2]).err then
        redis.call('DEL', KEYS[2 * i])
      else
        out[i] = 1
      end
    end
  end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return out
"""
)
_CLAIM = Script(
    _SAME_EPOCH
    + """
for i = 1, (#KEYS - 1) / 2 do redis.call('SET', KEYS[2 * i + 1], ARGV[2], 'PX', ARGV[3]) end
return out
"""
)
_WRITE_CLAIMED = Script(
    _SAME_EPOCH
    + """
for i = 1, (#KEYS - 1) / 2 do
  out[i] = 0
  local mine = redis.pcall('GET', KEYS[2 * i + 1]) == ARGV[5]
  redis.call('DEL', KEYS[2 * i + 1])
  if mine and not redis.pcall('SET', KEYS[2 * i], ARGV[5 + i], 'PX', ARGV[2]).err then
    out[i] = 1
  else
    redis.call('DEL', KEYS[2 * i])
  end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return out
"""
)
_INVALIDATE = Script(
    _SAME_EPOCH
    + """
for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return out
"""
)
# KEYS: epoch. ARGV: the lowest that may be, one that may not be, the channel, the message. Returns the one in force.
_EPOCH = Script(
    """
local found = redis.pcall('GET', KEYS[1])
local present = type(found) == 'string' and tonumber(found) or 0
if string.format('%.0f', present) ~= found or not (present < 2 ^ 53) then present = 0 end
if present > 0 and present >= tonumber(ARGV[1]) and ARGV[2] ~= 'any' and found ~= ARGV[2] then return found end
local now = redis.call('TIME')
local fresh = string.format('%.0f', math.max(now[1] * 1000000 + now[2], present + 1, tonumber(ARGV[1]) + 1))
redis.call('SET', KEYS[1], fresh)
redis.call('PUBLISH', ARGV[3], ARGV[4])
return fresh
"""
)


class Namespace:
    """The names of one cache in Redis. Values of another app are found under its name only."""

    def __init__(self, app: str, cache: str, *, cluster: bool = False) -> None:
        # Neither a colon nor a brace of theirs may look like one of ours.
        self.prefix = f"{prefix_of(app)}{quote(cache, safe='')}"
        self.channel = f"{self.prefix}:inv"
        self.buckets = CLUSTER_BUCKETS if cluster else 1

    def bucket(self, key: str) -> int:
        """Which bucket `key` is in."""
        return zlib.crc32(key.encode()) % self.buckets if self.buckets > 1 else 0

    def start(self, bucket: int) -> str:
        """What all names of a bucket begin with; `:e`, `:<epoch>:<key>` or `:<epoch>l:<key>` follow."""
        return f"{self.prefix}:0" if self.buckets == 1 else f"{self.prefix}:{{{bucket}}}"


def prefix_of(app: str) -> str:
    """What all names of an app begin with."""
    return f"sw:{quote(app, safe='')}:"


class RedisStore:
    """A `Store` in Redis. `connect` gives the client, and may raise what its calls raise."""

    def __init__(
        self,
        namespace: Namespace,
        connect: Callable[[], Client],
        *,
        origin: str,  # of this process, so that it passes over what it has said itself
        new_epoch: Callable[[], None] = lambda: None,  # called when values of before must not be believed any more
    ) -> None:
        self._names = namespace
        self._channel = namespace.channel
        self._connect = connect
        self._origin = origin
        self._new_epoch = new_epoch
        # Of each bucket. Replaced item by item, by any thread; a thread that reads an old one is told so by the server.
        self._epochs = [0] * namespace.buckets

    def parts(self, keys: Collection[str]) -> Sequence[Sequence[str]]:
        """The keys by bucket, at most 500 at a time."""
        if self._names.buckets == 1:
            wanted = list(keys)
            return [wanted[start : start + PART] for start in range(0, len(wanted), PART)]
        buckets: dict[int, list[str]] = {}
        for key in keys:
            buckets.setdefault(self._names.bucket(key), []).append(key)
        return [one[start : start + PART] for one in buckets.values() for start in range(0, len(one), PART)]

    def read(self, keys: Sequence[str], timeout_s: float) -> Mapping[str, bytes]:
        """As of `Store`; one MGET, with the epoch among the keys."""

        def ask(client: Client, bucket: int, epoch: int) -> object:
            start = self._names.start(bucket)
            found = cast("list[bytes | None]", client.mget([f"{start}:e", *(f"{start}:{epoch}:{key}" for key in keys)]))
            return found[1:] if found[0] == str(epoch).encode() else _OTHER_EPOCH

        found = cast("list[bytes | None]", self._in_one_epoch(keys, timeout_s, ask))
        return {key: value for key, value in zip(keys, found, strict=True) if value is not None}

    def lease(
        self, keys: Sequence[str], anyway: Collection[str], token: str, lease_s: float, timeout_s: float
    ) -> Leases:
        """As of `Store`."""
        flags = "".join("1" if key in anyway else "0" for key in keys)
        answers = self._run(_LEASE, keys, timeout_s, token, _ms(lease_s), flags)
        found: dict[str, bytes] = {}
        granted: list[str] = []
        refused: list[str] = []
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, bytes):
                found[key] = answer
            elif answer != 2:
                (granted if answer else refused).append(key)
        return Leases(found, granted, refused)

    def fill(self, values: Mapping[str, bytes], ttl_s: float, token: str, timeout_s: float) -> Collection[str]:
        """As of `Store`."""
        return self._accepted(values, self._run(_FILL, list(values), timeout_s, token, _ms(ttl_s), *values.values()))

    def release(self, keys: Sequence[str], token: str, timeout_s: float) -> None:
        """As of `Store`."""
        self._run(_RELEASE, keys, timeout_s, token)

    def write(
        self, values: Mapping[str, bytes], ttl_s: float, versions: Mapping[str, int], timeout_s: float
    ) -> Collection[str]:
        """As of `Store`."""
        told = self._message(versions)
        return self._accepted(
            values, self._run(_WRITE, list(values), timeout_s, _ms(ttl_s), self._channel, told, *values.values())
        )

    def claim(self, keys: Sequence[str], token: str, lease_s: float, timeout_s: float) -> None:
        """As of `Store`."""
        self._run(_CLAIM, keys, timeout_s, token, _ms(lease_s))

    def write_claimed(
        self, values: Mapping[str, bytes], ttl_s: float, token: str, versions: Mapping[str, int], timeout_s: float
    ) -> Collection[str]:
        """As of `Store`."""
        told = self._message(versions)
        answers = self._run(
            _WRITE_CLAIMED, list(values), timeout_s, _ms(ttl_s), self._channel, told, token, *values.values()
        )
        return self._accepted(values, answers)

    def invalidate(self, keys: Sequence[str], timeout_s: float) -> None:
        """As of `Store`."""
        self._run(_INVALIDATE, keys, timeout_s, self._channel, self._message(dict.fromkeys(keys, 0)))

    def bump(self, timeout_s: float, *, unless_new: bool) -> None:
        """As of `Store`; one round trip for each bucket."""
        with translated(), within(timeout_s):
            client = self._connect()
            for bucket, known in enumerate(self._epochs):
                self._ask_epoch(client, bucket, str(known) if unless_new else "any")

    def _run(
        self, script: Script, keys: Sequence[str], timeout_s: float, *arguments: str | bytes | int
    ) -> list[object]:
        def ask(client: Client, bucket: int, epoch: int) -> object:
            start = self._names.start(bucket)
            names = [f"{start}:e"]
            for key in keys:
                names += (f"{start}:{epoch}:{key}", f"{start}:{epoch}l:{key}")
            return script(client, names, [epoch, *arguments])

        return cast("list[object]", self._in_one_epoch(keys, timeout_s, ask))

    def _in_one_epoch(self, keys: Sequence[str], timeout_s: float, ask: Callable[[Client, int, int], object]) -> object:
        bucket = self._names.bucket(keys[0])
        with translated(), within(timeout_s):
            client = self._connect()
            for _ in range(_TRIES):
                epoch = self._epochs[bucket] or self._ask_epoch(client, bucket, "")
                answer = ask(client, bucket, epoch)
                if answer != _OTHER_EPOCH:
                    return answer
                self._ask_epoch(client, bucket, "")
        raise StoreFailed("the epoch changes all the time")

    def _ask_epoch(self, client: Client, bucket: int, may_not_be: str) -> int:
        """The epoch in force, which is not `may_not_be`."""
        known = self._epochs[bucket]
        told = msgspec.msgpack.encode(Message(self._origin, None))
        answer = _EPOCH(client, [f"{self._names.start(bucket)}:e"], [known, may_not_be, self._channel, told])
        epoch = int(cast("bytes", answer))
        self._epochs[bucket] = epoch
        if known:  # with the first one nothing of the server's is in the process yet
            self._new_epoch()
        return epoch

    def _message(self, versions: Mapping[str, int]) -> bytes:
        return msgspec.msgpack.encode(Message(self._origin, list(versions.items())))

    @staticmethod
    def _accepted(values: Mapping[str, bytes], answers: Sequence[object]) -> Collection[str]:
        return [key for key, answer in zip(values, answers, strict=True) if answer == 1]


@contextmanager
def translated() -> Iterator[None]:
    """Turn what redis-py raises into StoreFailed. A cluster without nodes, for one, makes it raise AttributeError."""
    try:
        yield
    except StoreFailed:
        raise
    except Exception as error:  # as said: it is no reason for a handler to fail
        raise StoreFailed(f"{type(error).__name__}: {error}") from error


def _ms(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
