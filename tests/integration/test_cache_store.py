"""What a second level promises, of Redis and of the one in memory that tests of handlers run on."""

from __future__ import annotations

import struct
import threading
import uuid
from typing import TYPE_CHECKING, Protocol

import pytest

from streamworker.cache.redis import Namespace, RedisStore
from streamworker.redis_client import redis_client
from streamworker.testing.memory_cache import MemoryCacheServer, MemoryStore
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers.redis import Redis

    from streamworker.cache.store import Store

S = 1.0  # seconds that a call may take


class Place(Protocol):
    """Where stores of several processes are."""

    def store(self, new_epoch: Callable[[], None] = ...) -> Store:
        """One more process's."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""


class InRedis:
    def __init__(self, url: str) -> None:
        self.client = redis_client(url, timeout_s=S, connections=4, option="url")
        self.namespace = Namespace("shop", uuid.uuid4().hex)

    def store(self, new_epoch: Callable[[], None] = lambda: None) -> Store:
        return RedisStore(self.namespace, lambda: self.client, origin=uuid.uuid4().hex, new_epoch=new_epoch)

    def wait(self, seconds: float) -> None:
        threading.Event().wait(seconds)


class InMemory:
    def __init__(self) -> None:
        self.time = VirtualTime()
        self.server = MemoryCacheServer(self.time)

    def store(self, new_epoch: Callable[[], None] = lambda: None) -> Store:
        return MemoryStore(self.server, uuid.uuid4().hex, new_epoch)

    def wait(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)


@pytest.fixture(params=["redis", "memory"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "memory":
        return InMemory()
    redis: Redis = request.getfixturevalue("redis")
    return InRedis(redis.url)


def value(version: int, text: str = "") -> bytes:
    return struct.pack(">Q", version) + text.encode()


def filled(store: Store, *versions: int) -> list[str]:
    keys = [f"key{number}" for number in range(len(versions))]
    store.lease(keys, (), "t", 9.0, S)
    store.fill(dict(zip(keys, map(value, versions), strict=True)), 9.0, "t", S)
    return keys


def test_parts_are_of_a_size_that_holds_nobody_up(place: Place) -> None:
    keys = [str(number) for number in range(1201)]

    parts = place.store().parts(keys)

    assert [len(part) for part in parts] == [500, 500, 201]
    assert [key for part in parts for key in part] == keys


def test_a_lease_has_one_holder_who_alone_may_fill(place: Place) -> None:
    one, other = place.store(), place.store()

    first = one.lease(["a", "b"], (), "t1", 9.0, S)
    second = other.lease(["a", "b"], (), "t2", 9.0, S)
    late = other.fill({"a": value(1)}, 9.0, "t2", S)
    done = one.fill({"a": value(1)}, 9.0, "t1", S)

    assert (list(first.granted), list(second.refused)) == (["a", "b"], ["a", "b"])
    assert (list(late), list(done)) == ([], ["a"])
    assert other.read(["a", "b"], S) == {"a": value(1)}


def test_who_asks_for_a_lease_on_what_is_there_gets_it_instead(place: Place) -> None:
    store = place.store()
    filled(store, 1)

    there = store.lease(["key0"], (), "t", 9.0, S)
    anyway = store.lease(["key0"], ["key0"], "t", 9.0, S)

    assert (there.found, list(there.granted)) == ({"key0": value(1)}, [])
    assert (anyway.found, list(anyway.granted)) == ({}, ["key0"])


def test_leases_and_values_end(place: Place) -> None:
    store = place.store()
    store.lease(["a"], (), "t1", 0.03, S)
    filled(store, 1)
    store.lease(["b"], (), "t", 9.0, S)
    store.fill({"b": value(1)}, 0.03, "t", S)

    place.wait(0.05)

    assert list(store.lease(["a"], (), "t2", 9.0, S).granted) == ["a"]
    assert store.read(["key0", "b"], S) == {"key0": value(1)}


def test_a_lease_that_is_given_back_may_be_had_and_one_of_others_stays(place: Place) -> None:
    store = place.store()
    store.lease(["a"], (), "t1", 9.0, S)

    store.release(["a"], "t2", S)
    during = store.lease(["a"], (), "t3", 9.0, S)
    store.release(["a"], "t1", S)

    assert list(during.refused) == ["a"]
    assert list(store.lease(["a"], (), "t3", 9.0, S).granted) == ["a"]


def test_a_write_replaces_what_is_older_and_nothing_else(place: Place) -> None:
    store = place.store()
    older, same, newer, unknown = filled(store, 4, 5, 6, 0)
    keys = [older, same, newer, unknown, "absent"]

    accepted = store.write({key: value(5, "new") for key in keys}, 9.0, dict.fromkeys(keys, 5), S)

    assert list(accepted) == [older]
    assert store.read(keys, S) == {older: value(5, "new"), same: value(5), newer: value(6)}


@pytest.mark.parametrize("operation", ["write", "invalidate"])
def test_a_write_takes_leases_away(place: Place, operation: str) -> None:
    store = place.store()
    store.lease(["a"], (), "t", 9.0, S)

    if operation == "write":
        store.write({"a": value(1)}, 9.0, {"a": 1}, S)
    else:
        store.invalidate(["a"], S)

    assert list(store.fill({"a": value(1)}, 9.0, "t", S)) == []


def test_what_is_invalidated_is_gone(place: Place) -> None:
    store = place.store()
    keys = filled(store, 1, 2)

    store.invalidate(keys[:1], S)

    assert store.read(keys, S) == {keys[1]: value(2)}


def test_a_claim_lets_its_holder_set_and_makes_others_delete(place: Place) -> None:
    store = place.store()
    keys = filled(store, 1, 1)
    store.claim([*keys, "new"], "w1", 9.0, S)
    store.claim(keys[:1], "w2", 9.0, S)

    accepted = store.write_claimed(
        {key: value(2) for key in [*keys, "new"]}, 9.0, "w1", dict.fromkeys([*keys, "new"], 2), S
    )

    assert list(accepted) == [keys[1], "new"]
    assert store.read([*keys, "new"], S) == {keys[1]: value(2), "new": value(2)}


def test_a_claim_takes_the_lease_of_a_reader(place: Place) -> None:
    store = place.store()
    store.lease(["a"], (), "t", 9.0, S)

    store.claim(["a"], "w", 9.0, S)

    assert list(store.fill({"a": value(1)}, 9.0, "t", S)) == []


def test_a_new_epoch_makes_all_unreachable_for_all_and_each_is_told_once(place: Place) -> None:
    told: list[str] = []
    one, other = (place.store(lambda name=name: told.append(name)) for name in ("one", "other"))
    keys = filled(one, 1)
    other.read(keys, S)
    other.lease(["a"], (), "t", 9.0, S)

    one.bump(S, unless_new=False)

    assert [dict(store.read(keys, S)) for store in (one, other, other)] == [{}, {}, {}]
    assert list(other.fill({"a": value(1)}, 9.0, "t", S)) == []
    assert told == ["one", "other"]


def test_several_who_notice_the_same_make_one_epoch(place: Place) -> None:
    one, other = place.store(), place.store()
    keys = filled(one, 1)
    other.read(keys, S)

    one.bump(S, unless_new=True)
    filled(one, 2)
    other.bump(S, unless_new=True)

    assert other.read(keys, S) == {keys[0]: value(2)}
