"""Redis as a sink: one key per value, which never goes back to an older record.

Decided here: what is kept under a key, and what is beside it so that repeats and late records are known. A chunk of
values is one script, so others see all of it or nothing.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, cast

import msgspec

from streamworker.bounds import at_least, one_of
from streamworker.errors import ConfigurationError, PoisonError, RowFailed
from streamworker.interfaces import Written
from streamworker.redis_client import Script, is_refusal, redis_client
from streamworker.sinks.coalescing import last_of_each_key
from streamworker.sinks.values import Delete, Template, fields_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.interfaces import Row, SinkContext
    from streamworker.record import Origin
    from streamworker.work import Place

_MODES = ("set", "hash")
_MARK = "sw-mark:"  # and a key of the user's: a hash of group and partition to the offset that was written last
_DAY_S = 86_400
_CHUNK = 500  # writes of one script: a millisecond or two, in which Redis serves nobody else
_CHUNK_BYTES = 1_048_576  # of it, for the same reason
_REPEATED, _SUPERSEDED = 0, -1  # what the script says of a write; 1 if it was made

# Keys are in pairs, the user's and that of its mark. Of each write: partition, offset, how many parts follow, and the
# parts. One is a text, more are fields and values of a hash in turn, none means that the key is to go.
_WRITE = Script("""
local guarded, ttl_ms, mark_ttl_ms = ARGV[1] == '1', tonumber(ARGV[2]), ARGV[3]
local answers, at = {}, 4
for number = 1, #KEYS / 2 do
  local key, mark = KEYS[2 * number - 1], KEYS[2 * number]
  local partition, offset, parts = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local first = at + 3
  at = first + parts
  local applied = guarded and tonumber(redis.call('HGET', mark, partition) or -1)
  if not applied or applied < tonumber(offset) then
    if parts == 1 then
      redis.call('SET', key, ARGV[first])
    else
      redis.call('DEL', key)
      for part = first, at - 2, 2 do
        redis.call('HSET', key, ARGV[part], ARGV[part + 1])
      end
    end
    if ttl_ms > 0 then
      redis.call('PEXPIRE', key, ttl_ms)
    end
    if guarded then
      redis.call('HSET', mark, partition, offset)
      redis.call('PEXPIRE', mark, mark_ttl_ms)
    end
    answers[number] = 1
  elseif applied == tonumber(offset) then
    answers[number] = 0
  else
    answers[number] = -1
  end
end
return answers
""")


class RedisRefused(ConnectionError):
    """The server answered and did not write: a replica, out of memory, a user that may not. Breakers count it.

    No record is to blame for it, because what the script is given always has the same form.
    """


@dataclass(frozen=True, slots=True)
class RedisSink:
    """Keeps the last value of each key in a Redis; a `Delete` takes the key away.

    With `guard`, beside each key is kept which record of each partition was written last, by group. An older one of
    that partition changes nothing, and neither does the same one again.
    """

    name: str  # of the connection in the configuration's table `sinks`
    _: KW_ONLY
    key: str  # {order_id} is that field of the value
    mode: str = "set"  # the value as JSON; "hash": its fields instead of all before, what is no text as JSON
    ttl_s: float | None = None  # after which a key goes by itself
    guard: bool = True  # False writes whatever comes, and keeps nothing beside it
    mark_ttl_s: float = 7 * _DAY_S  # for how long a key's last record is remembered: longer than records come again
    timeout_s: float = 1.0  # of connecting, and of each chunk of up to 500 values

    def __post_init__(self) -> None:
        where = f"RedisSink({self.name!r})"
        one_of(f"{where}.mode", self.mode, _MODES)
        if not Template(f"{where}.key", self.key).has_fields or self.key.startswith(_MARK):
            raise ConfigurationError(f"{where}.key: expected a name with {{field}}, got {self.key!r}")
        if self.ttl_s is not None:
            at_least(f"{where}.ttl_s", self.ttl_s, 0.001)
        at_least(f"{where}.mark_ttl_s", self.mark_ttl_s, 1)
        at_least(f"{where}.timeout_s", self.timeout_s, 0.001)

    @property
    def knows_repeats(self) -> bool:
        """By the offset that is kept beside each value, as long as Redis keeps it."""
        return True

    @property
    def keeps_marks(self) -> bool:
        """It does not look at `Place`."""
        return False

    def writer(self, context: SinkContext) -> RedisWriter:
        """A writer with a connection of its own, not connected yet.

        Raises ConfigurationError without redis-py, or for a URL that it cannot read.
        """
        return RedisWriter(self, context.connection(self.name))


@dataclass(frozen=True, slots=True)
class _Write:
    row: int
    key: str
    origin: Origin
    parts: Sequence[bytes]

    @property
    def size_bytes(self) -> int:
        """About what it takes of a request."""
        return len(self.key) + sum(map(len, self.parts))


class RedisWriter:
    """A `Writer` over one connection. Its instance's thread only."""

    def __init__(self, sink: RedisSink, url: str) -> None:
        self._sink = sink
        self._client = redis_client(url, timeout_s=sink.timeout_s, connections=1, option=f"sinks.{sink.name}")
        self._key = Template(f"RedisSink({sink.name!r}).key", sink.key)

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        """As `Writer.write`.

        A row that a later one of this write goes over counts as written. What fails on the way to Redis is raised as it
        is: the chunks before it are durable, and known again when they are written again.
        """
        writes: list[_Write] = []
        for index, row in enumerate(rows):
            try:
                writes += [self._write_of(index, row, value) for value in row.values]
            except Exception as error:  # whatever is wrong with it is this row's
                raise RowFailed(index, error, self._written(place, writes)) from error
        return self._written(place, writes)

    def close(self) -> None:
        """Let go of its connection. Idempotent."""
        self._client.connection_pool.disconnect()

    def _write_of(self, index: int, row: Row, value: object) -> _Write:
        inner = value.value if isinstance(value, Delete) else value
        key = self._key.filled(inner)
        if key.startswith(_MARK):
            raise PoisonError(f"RedisSink({self._sink.name!r}): a key must not begin with {_MARK}")
        return _Write(index, key, row.origin, () if isinstance(value, Delete) else self._parts_of(inner))

    def _parts_of(self, value: object) -> Sequence[bytes]:
        try:
            if self._sink.mode == "set":
                return (msgspec.json.encode(value),)
            filled = {name: held for name, held in fields_of(value).items() if held is not None}
            return [part for name, held in filled.items() for part in (str(name).encode(), _as_text(held))]
        except (TypeError, ValueError, OverflowError) as error:
            raise PoisonError(
                f"RedisSink({self._sink.name!r}): the value cannot be written as JSON: {error}"
            ) from error

    def _written(self, place: Place, writes: Sequence[_Write]) -> Written:
        left = [
            writes[index] for index in last_of_each_key([one.key for one in writes], [one.origin for one in writes])
        ]
        answers: dict[int, int] = {}  # by row: the most that became of its values
        for chunk in _chunks(left):
            for write, answer in zip(chunk, self._answers(place.group, chunk), strict=True):
                answers[write.row] = max(answer, answers.get(write.row, _SUPERSEDED))
        return Written(
            repeated=tuple(row for row, answer in answers.items() if answer == _REPEATED),
            superseded=tuple(row for row, answer in answers.items() if answer == _SUPERSEDED),
        )

    def _answers(self, group: str, chunk: Sequence[_Write]) -> Sequence[int]:
        sink = self._sink
        keys = [name for write in chunk for name in (write.key, f"{_MARK}{write.key}")]
        arguments: list[str | bytes | int] = [int(sink.guard), _ms(sink.ttl_s or 0.0), _ms(sink.mark_ttl_s)]
        for write in chunk:
            origin = write.origin
            # A topic has no colon in its name.
            arguments += [f"{origin.topic}:{origin.partition}:{group}", origin.offset, len(write.parts), *write.parts]
        try:
            return cast("Sequence[int]", _WRITE(self._client, keys, arguments))
        except Exception as error:  # of redis-py, whose classes are known behind its door
            if not is_refusal(error):
                raise
            # The server behind the name may be another one now, and only who connects anew comes to it.
            self._client.connection_pool.disconnect()
            raise RedisRefused(f"{sink.name}: {error}") from error


def _chunks(writes: Sequence[_Write]) -> Iterator[Sequence[_Write]]:
    """In order, each within the bounds of a script, or of one write."""
    chunk: list[_Write] = []
    size_bytes = 0
    for write in writes:
        if chunk and (len(chunk) == _CHUNK or size_bytes + write.size_bytes > _CHUNK_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(write)
        size_bytes += write.size_bytes
    if chunk:
        yield chunk


def _as_text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    plain = msgspec.to_builtins(value)
    return plain.encode() if isinstance(plain, str) else msgspec.json.encode(plain)


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1) if seconds else 0
