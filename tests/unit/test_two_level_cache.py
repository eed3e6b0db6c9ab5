"""The cache of two levels over a second level in memory: fresh whatever that does, and cheap."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamworker import ConfigurationError
from streamworker.cache.caches import BREAKER, Caches
from streamworker.cache.two_level import CacheOptions, OnWrite, Scope, TwoLevelCache, text_of
from streamworker.config import CacheConfig
from streamworker.resilience.breaker import CircuitBreaker
from streamworker.testing.memory_cache import CacheFault, Later, MemoryCacheServer
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

KEYS = ("a", "b", "c")


class Customer(msgspec.Struct, frozen=True):
    name: str
    version: int


def version_of(customer: Customer) -> int:
    return customer.version


@dataclass
class World:
    """A truth, one server, and some processes with a cache each."""

    processes: int = 2
    options: dict[str, object] = field(default_factory=dict)
    fault: Callable[[str], CacheFault | None] = lambda _: None
    time: VirtualTime = field(default_factory=VirtualTime)
    truth: dict[str, Customer] = field(default_factory=dict)
    loads: list[Sequence[str]] = field(default_factory=list)
    on_load: Callable[[], None] = lambda: None
    writes: int = 0
    flight_s: float = 10.0

    def __post_init__(self) -> None:
        self.server = MemoryCacheServer(self.time, lambda operation: self.fault(operation))
        self.later = Later()
        declared: dict[str, Any] = {"version": version_of, **self.options}
        options: CacheOptions[str, Customer] = CacheOptions(
            name="customers", load_many=self.load, type_=Customer, **declared
        )
        self.caches = [self.server.cache(options, self.later, flight_s=self.flight_s) for _ in range(self.processes)]

    def load(self, keys: Sequence[str]) -> Mapping[str, Customer]:
        self.loads.append(list(keys))
        loaded = {key: self.truth[key] for key in keys if key in self.truth}
        self.on_load()  # after it has read: what happens now is not in it
        return loaded

    def write(self, cache: TwoLevelCache[str, Customer], *keys: str, versioned: bool = True) -> None:
        guard = cache.guard_for(keys)
        self.write_the_truth(*keys)
        cache.written({key: (self.truth[key], self.truth[key].version if versioned else None) for key in keys}, guard)

    def write_the_truth(self, *keys: str) -> None:
        for key in keys:
            self.writes += 1
            self.truth[key] = Customer(f"{key}{self.writes}", self.writes)

    def delete(self, cache: TwoLevelCache[str, Customer], key: str) -> None:
        self.truth.pop(key, None)
        cache.invalidate([key])

    def wait(self, seconds: float) -> None:
        self.time.wait(seconds, lambda: False)


def world(processes: int = 2, **options: object) -> World:
    made = World(processes, options)
    made.write_the_truth(*KEYS)
    return made


def test_a_value_is_loaded_once_for_all_processes() -> None:
    made = world(3)

    found = [cache.get("a") for cache in made.caches for _ in range(2)]

    assert found == [made.truth["a"]] * 6
    assert made.loads == [["a"]]


def test_what_this_process_has_needs_no_redis() -> None:
    made = world()
    made.caches[0].get("a")
    calls = len(made.server.calls)

    made.caches[0].get("a")

    assert len(made.server.calls) == calls


def test_many_keys_are_one_read_and_one_load() -> None:
    made = world()

    assert made.caches[0].get_many([*KEYS, "nobody"]) == made.truth
    assert made.caches[1].get_many([*KEYS, "nobody"]) == made.truth

    assert made.loads == [[*KEYS, "nobody"]]
    assert made.server.calls == ["read", "lease", "fill", "fill", "read"]


def test_what_does_not_exist_is_known_for_a_while_and_no_longer() -> None:
    made = world(negative_ttl_s=5.0)

    first = [cache.get("nobody") for cache in made.caches for _ in range(2)]
    made.wait(5.1)
    made.caches[0].get("nobody")

    assert first == [None] * 4
    assert made.loads == [["nobody"], ["nobody"]]


def test_what_did_not_exist_is_seen_as_soon_as_it_is_written() -> None:
    made = world()
    for cache in made.caches:
        cache.get("new")

    made.write(made.caches[0], "new")

    assert [cache.get("new") for cache in made.caches] == [made.truth["new"]] * 2


@pytest.mark.parametrize("on_write", OnWrite)
@pytest.mark.parametrize("versioned", [True, False])
def test_a_write_is_seen_at_once_by_all(on_write: OnWrite, versioned: bool) -> None:
    made = world(on_write=on_write)
    for cache in made.caches:
        cache.get("a")

    made.write(made.caches[0], "a", versioned=versioned)

    assert [cache.get("a") for cache in made.caches] == [made.truth["a"]] * 2


def test_a_write_with_a_version_replaces_what_is_there_and_costs_no_load() -> None:
    made = world()
    made.caches[0].get("a")

    made.write(made.caches[0], "a")

    assert [cache.get("a") for cache in made.caches] == [made.truth["a"]] * 2
    assert made.loads == [["a"]]


def test_a_write_puts_nothing_where_nothing_is() -> None:
    """Else a late writer's older value could come in after a newer one was evicted."""
    made = world()

    made.write(made.caches[0], "a")

    assert made.server.values == {}


def test_a_write_that_sets_costs_no_load() -> None:
    made = world(on_write=OnWrite.SET)

    made.write(made.caches[0], "a")

    assert [cache.get("a") for cache in made.caches] == [made.truth["a"]] * 2
    assert made.loads == []


def test_a_value_that_was_loaded_without_a_version_is_deleted_by_a_write() -> None:
    """What would be there could be older than the write or newer."""
    made = world(version=None)
    late = made.caches[1].guard_for("a")
    made.write_the_truth("a")
    old = made.truth["a"]
    made.write(made.caches[0], "a")
    made.caches[0].get("a")

    made.caches[1].written({"a": (old, old.version)}, late)

    assert [cache.get("a") for cache in made.caches] == [made.truth["a"]] * 2


def test_the_later_of_two_writes_stays_whoever_comes_to_the_cache_first() -> None:
    made = world()
    first, second = made.caches
    first.get("a")
    guard = first.guard_for("a")
    made.write_the_truth("a")
    old = made.truth["a"]
    made.write(second, "a")

    first.written({"a": (old, old.version)}, guard)

    assert [cache.get("a") for cache in made.caches] == [made.truth["a"]] * 2


@pytest.mark.parametrize("writer", [0, 1])
def test_what_was_loaded_before_a_write_is_kept_nowhere(writer: int) -> None:
    made = world()
    made.on_load = lambda: None if made.writes > len(KEYS) else made.write(made.caches[writer], "a")

    made.caches[0].get("a")

    assert [cache.get("a") for cache in made.caches] == [made.truth["a"]] * 2


def test_who_asks_after_a_write_does_not_wait_for_what_was_asked_before() -> None:
    made = world(1)
    (cache,) = made.caches
    after: list[Customer | None] = []

    def write_and_read() -> None:
        made.on_load = lambda: None
        made.write(cache, "a")
        after.append(cache.get("a"))

    made.on_load = write_and_read
    cache.get("a")

    assert after == [made.truth["a"]]


def test_a_value_is_given_out_for_as_long_as_its_time_to_live_over_both_levels() -> None:
    made = world(ttl_s=20.0, l1_ttl_s=15.0)
    made.caches[0].get("a")
    made.wait(14.0)
    made.caches[1].get("a")  # from Redis, where it has six seconds left
    made.write_the_truth("a")

    made.wait(5.9)
    before = made.caches[1].get("a")
    made.wait(0.2)
    after = made.caches[1].get("a")

    assert before != made.truth["a"]
    assert after == made.truth["a"]


def test_an_old_value_is_given_out_while_it_is_loaded_anew() -> None:
    made = world(1, l1_ttl_s=10.0)
    (cache,) = made.caches
    old = cache.get("a")
    made.write_the_truth("a")
    made.wait(8.1)

    during = cache.get("a")
    made.later.run()

    assert during == old
    assert cache.get("a") == made.truth["a"]
    assert made.loads == [["a"], ["a"]]


def test_a_dear_value_is_loaded_anew_before_it_ends_in_redis() -> None:
    made = world(ttl_s=20.0, l1_ttl_s=1.0)
    made.on_load = lambda: made.wait(2.0)
    made.caches[0].get("a")
    made.on_load = lambda: None
    made.wait(19.0)

    made.caches[1].get("a")
    made.later.run()
    made.wait(1.5)
    made.caches[0].get("a")

    assert made.loads == [["a"], ["a"]]


def test_another_process_that_loads_is_waited_for() -> None:
    made = world()
    made.time.call_in(0.05, lambda: None)
    seen: list[Customer | None] = []

    def look() -> None:
        made.on_load = lambda: None
        made.time.call_in(0.03, lambda: seen.append(made.caches[0].get("b")))
        seen.append(made.caches[1].get("a"))

    made.on_load = look
    made.caches[0].get("a")

    assert seen[-1] == made.truth["a"]
    # It could not wait for a load that it is in: it loaded by itself after a tenth of a second, and kept it nowhere.
    assert made.loads == [["a"], ["b"], ["a"]]
    assert made.caches[1].stats().local.entries == 0


def test_a_loader_that_fails_is_asked_again_and_others_need_not_wait() -> None:
    made = world()

    def fail() -> None:
        made.on_load = lambda: None
        raise ConnectionError("the truth is away")

    made.on_load = fail
    with pytest.raises(ConnectionError):
        made.caches[0].get("a")

    assert made.caches[1].get("a") == made.truth["a"]
    assert made.time.monotonic_s() == 1000.0


def test_a_server_that_is_full_costs_no_waiting_and_no_breaker() -> None:
    made = world(1)
    made.server.full = True

    found = [made.caches[0].get(key) for _ in range(5) for key in KEYS]

    assert found == [made.truth[key] for _ in range(5) for key in KEYS]
    assert made.time.monotonic_s() == 1000.0
    assert made.caches[0].stats().leases == {"full": 3}
    assert made.caches[0].stats().not_asked == 0


def test_a_server_that_hangs_costs_a_call_its_time_and_then_nothing() -> None:
    made = world(1)
    made.fault = lambda _: CacheFault.HANGS
    (cache,) = made.caches

    costs = []
    for number in range(20):
        began_s = made.time.monotonic_s()
        assert cache.get(f"nobody{number}") is None
        costs.append(round(made.time.monotonic_s() - began_s, 6))

    assert costs == [0.05] * 5 + [0.0] * 15
    assert len(made.server.calls) == 5
    assert cache.stats().failed == {"read": 5}
    assert cache.stats().not_asked == 15


def test_without_redis_a_process_keeps_values_for_a_moment_only() -> None:
    made = world(1)
    made.fault = lambda _: CacheFault.REFUSED
    (cache,) = made.caches
    cache.get("a")
    made.wait(0.9)
    cache.get("a")
    made.wait(0.2)
    cache.get("a")

    assert made.loads == [["a"], ["a"]]


def test_what_redis_missed_is_the_first_that_it_hears() -> None:
    made = world()
    for cache in made.caches:
        cache.get_many(KEYS)
    made.fault = lambda _: CacheFault.REFUSED
    made.write(made.caches[0], "a", "b")
    assert made.caches[0].dirty_keys == 2
    made.fault = lambda _: None
    made.server.calls.clear()

    made.caches[0].get("nobody")

    assert made.server.calls[0] == "invalidate"
    assert made.caches[0].dirty_keys == 0
    assert [cache.get(key) for cache in made.caches for key in KEYS] == [made.truth[key] for key in KEYS] * 2


def test_as_long_as_redis_has_something_old_nothing_is_read_from_it() -> None:
    made = world(1)
    (cache,) = made.caches
    cache.get_many(KEYS)
    made.fault = lambda operation: CacheFault.REFUSED if operation in ("write", "invalidate") else None
    made.write(cache, "a")
    made.server.calls.clear()

    assert cache.get("a") == made.truth["a"]

    assert "read" not in made.server.calls


def test_more_dirty_keys_than_are_kept_make_all_unreachable() -> None:
    made = world()
    for cache in made.caches:
        cache.get_many(KEYS)
    made.caches[0]._second._max_dirty = 1  # type: ignore[union-attr]
    made.fault = lambda _: CacheFault.REFUSED
    made.write(made.caches[0], "a", "b")
    made.fault = lambda _: None

    made.caches[0].mend()

    assert made.server.calls[-1] == "bump"
    assert [cache.get(key) for cache in made.caches for key in KEYS] == [made.truth[key] for key in KEYS] * 2
    assert made.caches[0].dirty_keys == 0


def test_flush_makes_all_unreachable_for_all() -> None:
    made = world()
    for cache in made.caches:
        cache.get_many(KEYS)
    made.write_the_truth(*KEYS)

    made.caches[0].flush()

    assert [cache.get_many(KEYS) for cache in made.caches] == [made.truth] * 2


def test_while_invalidations_may_be_missed_values_are_kept_for_a_moment_only() -> None:
    made = world(1)
    (cache,) = made.caches
    cache.get("a")
    made.write_the_truth("a", "b")

    cache.unlinked()
    cache.verified()
    first = cache.get("b")
    made.wait(1.1)
    made.server.evict("b")
    cache.get("b")

    assert first == made.truth["b"]
    assert made.loads == [["a"], ["b"], ["b"]]


def test_nothing_is_read_from_a_server_that_may_be_another_one() -> None:
    made = world(1)
    (cache,) = made.caches
    cache.get("a")
    made.write_the_truth("a")  # and the server that was told of it is gone

    cache.unlinked()
    during = cache.get("a")
    cache.server_changed()
    cache.verified()
    cache.linked()

    assert during == made.truth["a"]
    assert cache.get("a") == made.truth["a"]


def test_what_nobody_can_read_on_the_channel_makes_a_process_forget_all() -> None:
    made = world(1)
    made.caches[0].get("a")

    made.caches[0].heard(b"\x00nonsense")

    assert made.caches[0].stats().local.entries == 0


def test_a_partition_that_goes_takes_its_values_along() -> None:
    made = world(1, scope=Scope.PARTITION)
    (cache,) = made.caches
    in_hand = "orders-0"
    cache._partition = lambda: in_hand
    cache.get("a")
    in_hand = "orders-1"
    cache.get("b")

    cache.drop("orders-0")

    assert cache.stats().local.entries == 1
    assert cache._local.get("b") == made.truth["b"]


def test_a_partition_that_goes_takes_nothing_that_any_process_may_write() -> None:
    made = world(1)
    made.caches[0].get("a")

    made.caches[0].drop("orders-0")

    assert made.caches[0].stats().local.entries == 1


def test_values_of_a_partition_stay_though_nobody_else_is_heard() -> None:
    made = world(1, scope=Scope.PARTITION)
    (cache,) = made.caches
    cache.get("a")

    cache.unlinked()
    made.wait(20)
    cache.get("a")

    assert made.loads == [["a"]]


def test_awaited_reads_give_the_same_and_answer_what_is_near_at_once() -> None:
    made = world(1)
    (cache,) = made.caches
    with ThreadPoolExecutor(2) as executor:
        cache._executor = executor

        found = asyncio.run(both(cache))

    assert found == (made.truth["a"], made.truth)


async def both(cache: TwoLevelCache[str, Customer]) -> tuple[Customer | None, dict[str, Customer]]:
    return await cache.aget("a"), await cache.aget_many(KEYS)


def test_many_threads_that_miss_one_key_load_it_once() -> None:
    """F-73."""
    made = world(1)
    (cache,) = made.caches
    entered = threading.Barrier(21)
    found: list[Customer | None] = []

    def read() -> None:
        entered.wait()
        found.append(cache.get("a"))

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    entered.wait()
    for thread in threads:
        thread.join()

    assert found == [made.truth["a"]] * 20
    assert made.loads == [["a"]]


@pytest.mark.parametrize(
    ("key", "text"), [("Anna", "Anna"), (7, "7"), (b"Anna", "Anna"), (b"\xff", "\0ff"), (b"\0ff", "\x00006666")]
)
def test_keys_have_a_text(key: object, text: str) -> None:
    assert text_of(key) == text


def test_a_key_of_another_type_needs_a_function() -> None:
    with pytest.raises(ConfigurationError, match="give key=… a function to text"):
        text_of(1.5)


def test_a_key_that_is_no_text_is_the_callers_error() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        text_of("\ud800")


# Whatever Redis does, and whatever others do meanwhile.

faults = st.sampled_from([None, None, None, *CacheFault])
poison = st.binary(max_size=40)
step = st.one_of(
    st.tuples(st.just("get"), st.integers(0, 1), st.sampled_from(KEYS)),
    st.tuples(st.just("get_many"), st.integers(0, 1), st.just("")),
    st.tuples(st.just("write"), st.integers(0, 1), st.sampled_from(KEYS)),
    st.tuples(st.just("write without a version"), st.integers(0, 1), st.sampled_from(KEYS)),
    st.tuples(st.just("delete"), st.integers(0, 1), st.sampled_from(KEYS)),
    st.tuples(st.just("evict"), st.just(0), st.sampled_from(KEYS)),
    st.tuples(st.just("forget"), st.just(0), st.just("")),
    st.tuples(st.just("flush"), st.integers(0, 1), st.just("")),
    st.tuples(st.just("server changed"), st.integers(0, 1), st.just("")),
    st.tuples(st.just("link lost"), st.integers(0, 1), st.just("")),
    st.tuples(st.just("refresh"), st.just(0), st.just("")),
    st.tuples(st.just("wait"), st.just(0), st.just("")),
)


def take(made: World, kind: str, process: int, key: str) -> None:
    cache = made.caches[process]
    steps: dict[str, Callable[[], object]] = {
        "get": lambda: cache.get(key),
        "get_many": lambda: cache.get_many(KEYS),
        "write": lambda: made.write(cache, key),
        "write without a version": lambda: made.write(cache, key, versioned=False),
        "delete": lambda: made.delete(cache, key),
        "evict": lambda: made.server.evict(key),
        "forget": made.server.forget,
        "flush": cache.flush,
        "server changed": cache.server_changed,
        "link lost": lambda: [cache.unlinked(), cache.linked(), cache.verified()],
        "refresh": made.later.run,
        "wait": lambda: made.wait(0.6),
    }
    steps[kind]()


@settings(max_examples=300)
@given(
    st.lists(step, max_size=12), st.lists(faults, max_size=40), st.lists(poison, max_size=3), st.sampled_from(OnWrite)
)
def test_a_process_alone_always_reads_the_truth(
    steps: list[tuple[str, int, str]],
    oracle: list[CacheFault | None],
    poisons: list[bytes],
    on_write: OnWrite,
) -> None:
    """M13, F-74. Whatever Redis answers, loses or holds."""
    made = world(1, on_write=on_write)
    made.fault = lambda _: oracle.pop() if oracle else None
    for kind, _, key in steps:
        take(made, kind, 0, key)
        if poisons and key:
            made.server.put(key, poisons.pop(), 100)
        loads = len(made.loads)
        assert made.caches[0].get_many(KEYS) == made.truth
        assert len(made.loads) <= loads + 2  # what is leased, and what another load is waited for in vain


@settings(max_examples=500)
@given(st.lists(step, max_size=8), st.lists(st.none() | step, max_size=20), st.sampled_from(OnWrite))
def test_whatever_happens_in_between_nothing_old_stays(
    steps: list[tuple[str, int, str]], between: list[tuple[str, int, str] | None], on_write: OnWrite
) -> None:
    """Other calls come before each call of Redis and within each load, as those of other threads and processes do."""
    made = World(2, {"on_write": on_write}, flight_s=0.0)  # one thread would wait for itself
    made.write_the_truth(*KEYS)

    def interrupt(_: str = "") -> None:
        if between and (now := between.pop()) is not None:
            take(made, *now)

    made.fault = interrupt
    made.on_load = interrupt
    for one in steps:
        take(made, *one)

    made.fault, made.on_load = lambda _: None, lambda: None
    assert [cache.get_many(KEYS) for cache in made.caches] == [made.truth] * 2


@settings(max_examples=200)
@given(st.lists(step, max_size=12), st.lists(faults, max_size=40))
def test_when_redis_is_well_again_all_processes_read_the_truth(
    steps: list[tuple[str, int, str]], oracle: list[CacheFault | None]
) -> None:
    made = world(2)
    made.fault = lambda _: oracle.pop() if oracle else None
    for one in steps:
        take(made, *one)

    made.fault = lambda _: None
    made.wait(2.1)  # until the breakers let a call through
    for cache in made.caches:
        cache.mend()
    assert [cache.get_many(KEYS) for cache in made.caches] == [made.truth] * 2


# By name.


def caches(**options: object) -> Caches:
    return Caches(CacheConfig(), app="shop", clock=VirtualTime())


def test_a_name_means_the_same_cache() -> None:
    shop = caches()

    first, second = (shop.cache("customers", type_=str, loader=str.upper) for _ in range(2))

    assert first is second
    assert first.get("anna") == "ANNA"


def test_a_name_asked_for_with_other_options_is_an_error() -> None:
    shop = caches()
    shop.cache("customers", type_=str, loader=str.upper)

    with pytest.raises(ConfigurationError, match="'customers': it was asked for before with another ttl_s"):
        shop.cache("customers", type_=str, loader=str.upper, ttl_s=1.0)
    with pytest.raises(ConfigurationError, match="another load_many"):
        shop.cache("customers", type_=str, loader=str.lower)
    with pytest.raises(ConfigurationError, match="another shared"):
        shop.cache("customers", type_=str, loader=str.upper, shared="all")


def test_an_url_that_cannot_be_is_said_at_the_start() -> None:
    gate = CircuitBreaker(BREAKER, clock=VirtualTime())

    with pytest.raises(ConfigurationError, match=r"cache\.redis: expected redis://"):
        Caches(CacheConfig(redis="http://cache"), app="shop", clock=VirtualTime(), gate=gate)


def test_a_cluster_that_is_away_at_the_start_is_no_error() -> None:
    gate = CircuitBreaker(BREAKER, clock=VirtualTime())
    shop = Caches(CacheConfig(redis="redis+cluster://127.0.0.1:1"), app="shop", clock=VirtualTime(), gate=gate)

    found = shop.cache("customers", type_=str, loader=str.upper).get("anna")
    shop.close()

    assert found == "ANNA"


def test_a_cache_has_one_loader() -> None:
    for loaders in ({}, {"loader": str.upper, "load_many": lambda keys: {}}):
        with pytest.raises(ConfigurationError, match="either loader=… or load_many=…"):
            caches().cache("customers", type_=str, **loaders)  # type: ignore[arg-type]


def test_instances_of_a_handler_may_each_give_their_own_method() -> None:
    class Orders:
        def load(self, key: str) -> str:
            return key

    shop = caches()

    assert shop.cache("x", type_=str, loader=Orders().load) is shop.cache("x", type_=str, loader=Orders().load)


def test_without_redis_a_cache_is_this_processs_alone() -> None:
    shop = caches()
    loads: list[str] = []
    cache = shop.cache("customers", type_=str, loader=lambda key: loads.append(key) or "Anna")

    assert [cache.get("a"), cache.get("a")] == ["Anna", "Anna"]
    cache.written({"a": ("Bert", 2)}, cache.guard_for(["a"]))
    cache.get("a")

    assert loads == ["a", "a"]
    assert not shop.dirty
