"""A RedisSink and a real Redis: repeats, late records, expiry, and a server that is killed, halted or refuses."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import pytest
import redis as redis_py

from streamworker.errors import ConfigurationError, PoisonError, RowFailed
from streamworker.interfaces import Row, Written
from streamworker.record import Origin, TopicPartition
from streamworker.resilience.verdict import is_of_a_dependency
from streamworker.sinks.redis import RedisSink, RedisWriter
from streamworker.sinks.values import Delete
from streamworker.work import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.redis import Redis

PARTITION = TopicPartition("orders", 0)
SINK = RedisSink("cachedb", key="order:{id}", timeout_s=5.0)


class Context:
    group = "g"
    handler = "Store"

    def __init__(self, url: str) -> None:
        self._url = url

    def connection(self, name: str) -> str:
        return self._url

    def shared(self, name: str, factory: Callable[[], object]) -> object:
        return factory()

    def remaining_s(self, most_s: float) -> float:
        return most_s


def place(group: str = "g") -> Place:
    return Place(group=group, partition=PARTITION, lanes=1, lane=0, owner="o", done_below=0)


def row(offset: int, *values: object, partition: int = 0) -> Row:
    return Row(offset=offset, origin=Origin("orders", partition, offset), key=None, values=values)


def order(name: str, cents: int) -> dict[str, object]:
    return {"id": name, "cents": cents}


@pytest.fixture
def client(redis: Redis) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(redis.url, decode_responses=True) as connected:
        connected.flushdb()
        yield connected


@pytest.fixture
def writer(redis: Redis) -> Iterator[RedisWriter]:
    opened = SINK.writer(Context(redis.url))
    yield opened
    opened.close()


def cents(client: redis_py.Redis, name: str) -> int:
    return msgspec.json.decode(client.get(f"order:{name}"))["cents"]


def test_the_last_of_several_values_of_a_key_is_kept(client: redis_py.Redis, writer: RedisWriter) -> None:
    rows = [row(1, order("a", 1), order("b", 1)), row(2), row(3, order("a", 2), order("a", 3))]

    assert writer.write(place(), rows) == Written()

    assert (cents(client, "a"), cents(client, "b")) == (3, 1)


def test_a_write_of_thousands_of_keys_is_whole(client: redis_py.Redis, writer: RedisWriter) -> None:
    """Both bounds of a script: 500 values, and a mebibyte, which each of the last three goes over."""
    rows = [row(offset, order(str(offset), offset)) for offset in range(2501)]
    rows += [row(offset, {"id": str(offset), "cents": offset, "x": "y" * 1_100_000}) for offset in range(2501, 2504)]

    assert writer.write(place(), rows) == Written()
    client.config_resetstat()
    again = writer.write(place(), rows)
    scripts = client.info("commandstats")["cmdstat_evalsha"]["calls"]

    assert [cents(client, str(offset)) for offset in range(2504)] == list(range(2504))
    assert scripts == 6 + 3
    assert again == Written(repeated=tuple(range(2504)))


def test_a_repeat_changes_nothing_and_is_said_to_be_one(client: redis_py.Redis, writer: RedisWriter) -> None:
    writer.write(place(), [row(1, order("a", 1))])
    client.set("order:a", '{"cents":999}')

    assert writer.write(place(), [row(1, order("a", 1)), row(2, order("b", 2))]) == Written(repeated=(0,))

    assert cents(client, "a") == 999


def test_a_late_record_changes_nothing_and_is_said_to_be_superseded(
    client: redis_py.Redis, writer: RedisWriter
) -> None:
    writer.write(place(), [row(9, order("a", 9))])

    assert writer.write(place(), [row(8, order("a", 8)), row(10, order("b", 10))]) == Written(superseded=(0,))

    assert cents(client, "a") == 9


def test_a_row_is_only_superseded_when_all_of_it_is(client: redis_py.Redis, writer: RedisWriter) -> None:
    writer.write(place(), [row(9, order("a", 9))])
    writer.write(place(), [row(8, order("b", 8))])

    assert writer.write(place(), [row(8, order("a", 8), order("b", 8))]) == Written(repeated=(0,))
    assert writer.write(place(), [row(8, order("c", 8), order("a", 8))]) == Written()

    assert [cents(client, name) for name in "abc"] == [9, 8, 8]


def test_records_that_come_back_in_another_order_leave_the_newest(client: redis_py.Redis, writer: RedisWriter) -> None:
    written = writer.write(place(), [row(7, order("a", 7)), row(5, order("a", 5))])

    assert written == Written(superseded=(1,))
    assert cents(client, "a") == 7


@pytest.mark.parametrize(
    ("other", "group"), [(row(1, order("a", 11), partition=1), "g"), (row(1, order("a", 11)), "another")]
)
def test_another_partition_or_group_has_an_order_of_its_own(
    client: redis_py.Redis, writer: RedisWriter, other: Row, group: str
) -> None:
    writer.write(place(), [row(9, order("a", 9))])

    assert writer.write(place(group), [other]) == Written()
    assert cents(client, "a") == 11
    assert writer.write(place(), [row(9, order("a", 9))]) == Written(repeated=(0,))
    assert writer.write(place(), [row(10, order("a", 10))]) == Written()
    assert cents(client, "a") == 10


def test_a_deletion_takes_the_key_away_and_a_late_record_does_not_bring_it_back(
    client: redis_py.Redis, writer: RedisWriter
) -> None:
    writer.write(place(), [row(1, order("a", 1))])

    assert writer.write(place(), [row(3, Delete({"id": "a"}))]) == Written()
    assert writer.write(place(), [row(2, order("a", 2)), row(3, Delete({"id": "a"}))]) == Written(repeated=(1,))
    assert client.exists("order:a") == 0
    writer.write(place(), [row(4, order("a", 4))])
    assert cents(client, "a") == 4


def test_without_a_guard_everything_is_written_and_nothing_kept_beside_it(redis: Redis, client: redis_py.Redis) -> None:
    writer = RedisSink("cachedb", key="order:{id}", guard=False).writer(Context(redis.url))

    writer.write(place(), [row(9, order("a", 9))])
    written = writer.write(place(), [row(8, order("a", 8))])
    writer.close()

    assert written == Written()
    assert client.keys() == ["order:a"]
    assert cents(client, "a") == 8


def test_keys_and_marks_expire(redis: Redis, client: redis_py.Redis) -> None:
    writer = RedisSink("cachedb", key="order:{id}", ttl_s=100, mark_ttl_s=200).writer(Context(redis.url))

    writer.write(place(), [row(1, order("a", 1))])
    client.persist("order:a")
    client.persist("sw-mark:order:a")
    writer.write(place(), [row(2, order("a", 2))])
    writer.close()

    assert 90_000 < client.pttl("order:a") <= 100_000
    assert 190_000 < client.pttl("sw-mark:order:a") <= 200_000


def test_without_a_time_to_live_a_key_stays(client: redis_py.Redis, writer: RedisWriter) -> None:
    writer.write(place(), [row(1, order("a", 1))])

    assert client.pttl("order:a") == -1
    assert 6 * 86_400 < client.ttl("sw-mark:order:a") <= 7 * 86_400


@dataclass
class Line:
    id: UUID
    what: str | None
    tags: list[str]
    paid: bool = True
    raw: bytes = b"\x00\xff"


def test_a_hash_has_the_fields_of_the_last_value_and_no_others(redis: Redis, client: redis_py.Redis) -> None:
    writer = RedisSink("cachedb", key="line:{id}", mode="hash", ttl_s=100).writer(Context(redis.url))
    name = UUID(int=7)

    writer.write(place(), [row(1, {"id": str(name), "old": 1, 7: 7})])
    writer.write(place(), [row(2, Line(name, "ä", ["x", "y"]))])
    with redis_py.Redis.from_url(redis.url) as binary:
        found = binary.hgetall(f"line:{name}")
    ttl_s = client.ttl(f"line:{name}")
    writer.write(place(), [row(3, Line(name, None, []))])
    writer.close()

    assert found == {
        b"id": str(name).encode(),
        b"what": "ä".encode(),
        b"tags": b'["x","y"]',
        b"paid": b"true",
        b"raw": b"\x00\xff",
    }
    assert 90 < ttl_s <= 100
    assert client.hexists(f"line:{name}", "what") is False


def test_a_key_of_another_type_is_written_over(redis: Redis, client: redis_py.Redis, writer: RedisWriter) -> None:
    client.rpush("order:a", "x")

    writer.write(place(), [row(1, order("a", 1))])

    assert cents(client, "a") == 1


@pytest.mark.parametrize("value", [{"cents": 1}, {"id": ""}, b"bytes", {"id": "b", "what": object()}])
def test_the_rows_before_one_that_cannot_be_written_are_durable(
    client: redis_py.Redis, writer: RedisWriter, value: object
) -> None:
    writer.write(place(), [row(1, order("a", 1))])

    with pytest.raises(RowFailed) as raised:
        writer.write(place(), [row(1, order("a", 1)), row(2, order("c", 2)), row(3, value), row(4, order("d", 4))])

    assert raised.value.index == 2
    assert isinstance(raised.value.cause, PoisonError)
    assert raised.value.written == Written(repeated=(0,))
    assert cents(client, "c") == 2
    assert client.exists("order:d") == 0


def test_a_value_cannot_name_the_mark_of_another_key(redis: Redis, client: redis_py.Redis) -> None:
    writer = RedisSink("cachedb", key="{id}").writer(Context(redis.url))

    with pytest.raises(RowFailed, match="must not begin with sw-mark:"):
        writer.write(place(), [row(1, {"id": "sw-mark:x"})])
    writer.close()

    assert client.keys() == []


def test_a_server_that_is_killed_is_away_and_knows_what_it_had_when_it_is_back(
    redis: Redis, client: redis_py.Redis, writer: RedisWriter
) -> None:
    if redis.program is None:
        pytest.skip("a server was given, so it is not stopped")
    writer.write(place(), [row(1, order("a", 1))])

    redis.program.end()
    with pytest.raises(redis_py.ConnectionError) as raised:
        writer.write(place(), [row(1, order("a", 1)), row(2, order("b", 2))])
    redis.program.restart()
    written = writer.write(place(), [row(1, order("a", 1)), row(2, order("b", 2))])

    assert is_of_a_dependency(raised.value, None)
    assert written == Written(repeated=(0,))
    assert cents(client, "b") == 2


def test_a_server_that_hangs_is_away_after_the_timeout_and_does_late_work_no_harm(
    redis: Redis, client: redis_py.Redis, writer: RedisWriter
) -> None:
    """What it was sent while it hung is done when it goes on, after what came later."""
    if redis.program is None:
        pytest.skip("a server was given, so it is not stopped")
    impatient = RedisSink("cachedb", key="order:{id}", timeout_s=0.2).writer(Context(redis.url))
    impatient.write(place(), [row(1, order("a", 1))])

    redis.program.halt()
    began_s = time.monotonic()
    try:
        with pytest.raises(redis_py.TimeoutError) as raised:
            impatient.write(place(), [row(2, order("a", 2))])
        took_s = time.monotonic() - began_s
    finally:
        redis.program.resume()
    writer.write(place(), [row(3, order("a", 3))])
    impatient.close()

    assert is_of_a_dependency(raised.value, None)
    assert took_s < 2
    assert cents(client, "a") == 3
    assert writer.write(place(), [row(2, order("a", 2))]) == Written(superseded=(0,))


@pytest.mark.parametrize(
    ("setting", "refusing", "usual"), [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")]
)
def test_a_server_that_refuses_to_write_is_away_and_no_record_is_at_fault(
    client: redis_py.Redis, writer: RedisWriter, setting: str, refusing: str, usual: str
) -> None:
    client.config_set(setting, refusing)
    try:
        with pytest.raises(ConnectionError, match="cachedb: ") as raised:
            writer.write(place(), [row(1, order("a", 1))])
    finally:
        client.config_set(setting, usual)
    written = writer.write(place(), [row(1, order("a", 1))])

    assert is_of_a_dependency(raised.value, None)
    assert written == Written()


def test_a_replica_is_left_for_the_server_that_is_behind_the_name_now(
    client: redis_py.Redis, writer: RedisWriter
) -> None:
    writer.write(place(), [row(1, order("a", 1))])
    before = {one["id"] for one in client.client_list()}

    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(ConnectionError, match="read only replica"):
            writer.write(place(), [row(2, order("a", 2))])
    finally:
        client.replicaof("NO", "ONE")
    writer.write(place(), [row(2, order("a", 2))])

    assert {one["id"] for one in client.client_list()} != before
    assert cents(client, "a") == 2


def test_a_server_that_does_not_know_the_user_is_away(redis: Redis) -> None:
    url = redis.url.replace("redis://", "redis://nobody:s3cret@")
    writer = SINK.writer(Context(url))

    with pytest.raises(redis_py.RedisError) as raised:
        writer.write(place(), [row(1, order("a", 1))])
    writer.close()
    writer.close()

    assert is_of_a_dependency(raised.value, None)
    assert "s3cret" not in repr(raised.value)


def test_a_user_needs_no_more_than_the_page_says(redis: Redis, client: redis_py.Redis) -> None:
    [rights] = re.findall(r"`(~order:.*?)`", (Path(__file__).parents[2] / "docs" / "sinks.md").read_text("utf-8"))
    client.execute_command("ACL", "SETUSER", "sink", "on", ">s3cret", "resetkeys", "nocommands", *rights.split())
    client.script_flush()
    writer = SINK.writer(Context(redis.url.replace("redis://", "redis://sink:s3cret@")))

    written = writer.write(place(), [row(1, order("a", 1)), row(2, Delete({"id": "b"}))])
    writer.close()
    client.acl_deluser("sink")

    assert written == Written()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "order"}, "key: expected a name with {field}"),
        ({"key": "sw-mark:{id}"}, "key: expected a name with {field}"),
        ({"key": "order:{id:03}"}, "plain name in braces"),
        ({"key": "order:{id}", "mode": "list"}, "mode: expected one of set, hash"),
        ({"key": "order:{id}", "ttl_s": 0}, "ttl_s: expected at least"),
        ({"key": "order:{id}", "mark_ttl_s": 0}, "mark_ttl_s: expected at least"),
        ({"key": "order:{id}", "timeout_s": 0}, "timeout_s: expected at least"),
    ],
)
def test_options_that_cannot_work_are_refused_where_they_are_written(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RedisSink("cachedb", **options)


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"sinks\.cachedb: expected redis://"):
        SINK.writer(Context("http://localhost"))
