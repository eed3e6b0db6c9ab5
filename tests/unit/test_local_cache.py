"""What is kept in memory, for how long, and which late value is refused. A model keeps all that may be given out."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sizes import SOAK

from streamworker.cache import local
from streamworker.cache.local import Entry, Guard, LocalCache, RemovalCause
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WAIT_S = 30.0  # for what comes at once, unless it never does


class Time:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        raise AssertionError("nothing is decided by the wall clock")


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(params=[False, True], ids=["lock-free reads", "locked reads"])
def reads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the interpreter's lock, and as without."""
    monkeypatch.setattr(local, "_READS_NEED_LOCK", request.param)


def removals(cache: LocalCache[str, int]) -> dict[RemovalCause, int]:
    return {cause: count for cause, count in cache.stats().removals.items() if count}


def never(*_: object) -> dict[str, int]:
    raise AssertionError("it is there, so nobody has to load it")


@pytest.mark.usefixtures("reads")
def test_a_value_is_given_out_until_its_time_is_over(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(ttl_s=10.0, clock=time)
    cache.put("a", 1)
    cache.put("b", 2, ttl_s=20.0)

    time.now_s += 9.99
    before = cache.get("a"), cache.get("b")
    time.now_s += 0.01
    after = cache.get("a"), cache.get("b")

    assert (before, after) == ((1, 2), (None, 2))
    assert cache.entry("a") is None
    assert (cache.stats().hits, cache.stats().misses) == (3, 1)


def test_without_a_time_to_live_a_value_stays(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(clock=time)
    cache.put("a", 1)

    time.now_s += 1e9

    assert cache.get("a") == 1


def test_an_entry_says_all_that_was_put(time: Time) -> None:
    cache: LocalCache[str, int | None] = LocalCache(ttl_s=10.0, clock=time)
    cache.put("a", None, version=7, scope=("t", 3), negative=True)

    entry = cache.entry("a")

    assert entry is not None
    assert (entry.value, entry.version, entry.scope, entry.negative) == (None, 7, ("t", 3), True)
    assert (entry.expires_s, entry.refresh_s) == (1010.0, 1010.0)


def test_a_put_under_a_guard_that_an_invalidation_has_broken_is_refused(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(clock=time)
    guard = cache.guard("a")
    cache.invalidate("a")

    kept = cache.put("a", 1, guard=guard)

    assert not kept
    assert cache.get("a") is None
    assert cache.stats().rejected_by_guard == 1
    assert cache.put("a", 1, guard=cache.guard("a"))


@pytest.mark.parametrize("breaks", [lambda cache: cache.flush(), lambda cache: cache.drop("another scope")])
def test_a_flush_and_a_drop_break_the_guards_of_all_keys(
    time: Time, breaks: Callable[[LocalCache[str, int]], object]
) -> None:
    cache: LocalCache[str, int] = LocalCache(clock=time)
    guards = {key: cache.guard(key) for key in "abc"}

    breaks(cache)

    assert [cache.put(key, 1, guard=guard) for key, guard in guards.items()] == [False] * 3


def test_an_invalidation_of_an_older_version_drops_nothing_and_still_breaks_the_guard(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(clock=time)
    cache.put("a", 1, version=5)
    guard = cache.guard("a")

    dropped = cache.invalidate("a", 4), cache.invalidate("a", 5)

    assert dropped == (False, False)
    assert cache.get("a") == 1
    assert not cache.put("a", 2, version=6, guard=guard)
    assert cache.invalidate("a", 6)
    assert cache.get("a") is None


def test_an_older_version_does_not_replace_a_newer_one_unless_that_has_expired(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(ttl_s=1.0, clock=time)
    cache.put("a", 5, version=5)

    refused = cache.put("a", 4, version=4)
    again = cache.put("a", 50, version=5)
    time.now_s += 1.0
    later = cache.put("a", 4, version=4)

    assert (refused, again, later) == (False, True, True)
    assert cache.get("a") == 4
    assert cache.stats().rejected_by_version == 1
    assert removals(cache) == {RemovalCause.REPLACED: 1, RemovalCause.EXPIRED: 1}


def test_a_drop_takes_the_entries_of_its_scope_and_no_others(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(clock=time)
    for number, key in enumerate("abcdef"):
        cache.put(key, number, scope=("t", number % 2))

    dropped = cache.drop(("t", 1))

    assert dropped == 3
    assert [cache.get(key) for key in "abcdef"] == [0, None, 2, None, 4, None]
    assert removals(cache) == {RemovalCause.SCOPE: 3}


def test_a_flush_takes_everything(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(max_entries=3, clock=time)
    for number, key in enumerate("abcdefghij"):
        cache.put(key, number)

    cache.flush()

    assert len(cache) == 0
    assert cache.stats().weight == 0
    assert removals(cache) == {RemovalCause.FLUSHED: 3, RemovalCause.SIZE: 7}
    assert len(cache._ghosts) == 0


def test_who_has_an_entry_in_hand_sees_no_mixture_when_it_becomes_negative_or_another_scope(time: Time) -> None:
    cache: LocalCache[str, int | None] = LocalCache(clock=time)
    cache.put("a", 1, scope="s")
    entry = cache.entry("a")

    cache.put("a", None, scope="s", negative=True)

    assert entry is not None
    assert (entry.value, entry.negative) == (1, False)


def test_what_was_read_once_outlives_a_flood_of_what_is_not(time: Time) -> None:
    cache: LocalCache[int, int] = LocalCache(max_entries=100, clock=time)
    for key in range(20):
        cache.put(key, key)
        cache.get(key)

    for key in range(1000, 2000):
        cache.put(key, key)

    assert [key for key in range(20) if cache.get(key) is None] == []


def test_what_left_the_small_queue_unread_and_comes_back_stays_longer(time: Time) -> None:
    cache: LocalCache[int, int] = LocalCache(max_entries=100, clock=time)
    for key in range(120):
        cache.put(key, key)
    gone = next(key for key in range(120) if cache.get(key) is None)

    cache.put(gone, gone)
    for key in range(1000, 1100):
        cache.put(key, key)

    assert cache.get(gone) == gone


def test_a_heavy_entry_makes_room_for_itself_and_one_that_is_too_heavy_does_not_come_in(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(max_weight=10, weigher=lambda _, value: value, clock=time)
    for key in "abcde":
        cache.put(key, 2)
    cache.put("a", 2)

    fits = cache.put("f", 9)
    grows = cache.put("f", 10)
    too_heavy = cache.put("f", 11)

    assert (fits, grows, too_heavy) == (True, True, False)
    assert len(cache) == 0
    assert cache.stats().weight == 0


def test_an_entry_that_becomes_heavier_makes_room_where_it_is(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(max_weight=10, weigher=lambda _, value: value, clock=time)
    for key in "abcde":
        cache.put(key, 2)

    cache.put("e", 7)

    assert cache.get("e") == 7
    assert cache.stats().weight <= 10


def test_one_refresh_is_asked_for_and_the_stale_value_served_until_it_expires(time: Time) -> None:
    asked: list[str] = []
    cache: LocalCache[str, int] = LocalCache(ttl_s=10.0, refresh_after_s=4.0, refresh=asked.append, clock=time)
    cache.put("a", 1)

    time.now_s += 3.99
    early = cache.get("a"), list(asked)
    time.now_s += 0.01
    late = [cache.get("a") for _ in range(3)], list(asked)
    time.now_s += 4.0
    later = cache.get("a"), list(asked)
    time.now_s += 2.0

    assert early == (1, [])
    assert late == ([1, 1, 1], ["a"])
    assert later == (1, ["a", "a"])
    assert cache.get("a") is None
    assert len(asked) == 2


def test_a_refreshed_value_is_not_refreshed_again_before_its_time(time: Time) -> None:
    asked: list[str] = []
    cache: LocalCache[str, int] = LocalCache(ttl_s=10.0, refresh_after_s=4.0, refresh=asked.append, clock=time)
    cache.put("a", 1)
    time.now_s += 5.0
    cache.get("a")

    cache.put("a", 2)
    time.now_s += 3.0

    assert cache.get("a") == 2
    assert asked == ["a"]


def test_what_is_missing_is_loaded_by_one_call_and_kept(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(clock=time)
    cache.put("a", 1)
    calls: list[Sequence[str]] = []

    def load(keys: Sequence[str]) -> Mapping[str, int]:
        calls.append(keys)
        return {key: ord(key) for key in keys if key != "x"}

    found = cache.get_many(["a", "b", "x", "b", "c"], load)
    again = cache.get_many(["a", "b", "c"], never)

    assert found == again == {"a": 1, "b": 98, "c": 99}
    assert calls == [["b", "x", "c"]]
    assert (cache.stats().hits, cache.stats().misses) == (4, 3)


def test_a_negative_entry_is_an_answer(time: Time) -> None:
    cache: LocalCache[str, int | None] = LocalCache(clock=time)
    cache.put("a", None, negative=True)

    found = cache.get_many(["a"], never), cache.get_or_load("a", never)

    assert found == ({}, None)


def test_what_a_loader_raises_is_not_remembered(time: Time) -> None:
    cache: LocalCache[str, int] = LocalCache(clock=time)

    def away(_: object) -> int:
        raise LookupError("away")

    with pytest.raises(LookupError, match="away"):
        cache.get_or_load("a", away)

    assert cache.get_or_load("a", lambda _: 7) == 7
    assert cache.get_or_load("a", never) == 7


@pytest.mark.parametrize("breaks", [lambda cache: cache.invalidate("a"), lambda cache: cache.flush()])
def test_a_value_that_was_being_loaded_when_its_key_was_invalidated_is_given_out_and_not_kept(
    time: Time, breaks: Callable[[LocalCache[str, int]], object]
) -> None:
    cache: LocalCache[str, int] = LocalCache(clock=time)

    def load(_: str) -> int:
        breaks(cache)
        return 1

    assert cache.get_or_load("a", load) == 1
    assert cache.get("a") is None


class Held:
    """A loader that is under way from `began` on, until `goes_on`."""

    def __init__(self, value: int | Exception) -> None:
        self.began, self.goes_on = threading.Event(), threading.Event()
        self.calls = 0
        self._value = value

    def __call__(self, _: str) -> int:
        self.calls += 1
        self.began.set()
        assert self.goes_on.wait(WAIT_S)
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


class Watched(LocalCache[str, int]):
    """Tells when so many readers have found nothing: what they do next is to lead or to wait."""

    def __init__(self, time: Time, readers: int = 0, *, wait_s: float = WAIT_S) -> None:
        super().__init__(clock=time, wait_s=wait_s)
        self.readers, self.have_asked = readers, threading.Event()

    def guard(self, key: str) -> Guard:
        self.readers -= 1
        if self.readers == 0:
            self.have_asked.set()
        return super().guard(key)


@pytest.mark.parametrize("outcome", [7, LookupError("away")], ids=["a value", "an error"])
def test_all_threads_that_want_a_key_get_what_one_of_them_loads(
    time: Time, pool: ThreadPoolExecutor, outcome: int | Exception
) -> None:
    cache, load = Watched(time, readers=5), Held(outcome)
    readers = [pool.submit(cache.get_or_load, "a", load) for _ in range(5)]
    assert load.began.wait(WAIT_S)
    assert cache.have_asked.wait(WAIT_S)

    load.goes_on.set()
    ends = [reader.exception(WAIT_S) or reader.result(WAIT_S) for reader in readers]

    # Who asks when it has just ended asks for itself, or finds it.
    assert ends == [outcome] * 5
    assert load.calls == 1 if isinstance(outcome, int) else load.calls >= 1


def test_who_asks_after_an_invalidation_does_not_get_what_was_asked_for_before(
    time: Time, pool: ThreadPoolExecutor
) -> None:
    cache, load = Watched(time), Held(1)
    before = pool.submit(cache.get_or_load, "a", load)
    assert load.began.wait(WAIT_S)
    cache.invalidate("a")

    after = cache.get_or_load("a", lambda _: 2)
    load.goes_on.set()

    assert (before.result(WAIT_S), after) == (1, 2)
    assert cache.get("a") == 2


def test_who_has_waited_long_enough_for_another_loads_by_itself(time: Time, pool: ThreadPoolExecutor) -> None:
    cache, load = Watched(time, wait_s=0.0), Held(1)
    other = pool.submit(cache.get_or_load, "a", load)
    assert load.began.wait(WAIT_S)

    own = cache.get_or_load("a", lambda _: 2)
    load.goes_on.set()

    assert (own, other.result(WAIT_S)) == (2, 1)


def test_what_came_between_the_look_and_the_election_is_not_loaded_again(time: Time) -> None:
    class Overtaken(LocalCache[str, int]):
        """Its guard is taken between the two, and just then another thread has loaded."""

        def guard(self, key: str) -> Guard:
            self.put(key, 7)
            return super().guard(key)

    assert Overtaken(clock=time).get_many(["a", "b"], never) == {"a": 7, "b": 7}


def test_two_bulk_loads_that_overlap_crosswise_both_end(time: Time, pool: ThreadPoolExecutor) -> None:
    cache = Watched(time)
    both_load = threading.Barrier(2)

    def load(keys: Sequence[str]) -> Mapping[str, int]:
        both_load.wait(WAIT_S)
        return {key: ord(key) for key in keys}

    one = pool.submit(cache.get_many, "abc", load)
    two = pool.submit(cache.get_many, "cbd", load)

    assert one.result(WAIT_S) == {"a": 97, "b": 98, "c": 99}
    assert two.result(WAIT_S) == {"b": 98, "c": 99, "d": 100}


def test_putting_and_deleting_in_turns_does_not_grow_what_the_cache_keeps(time: Time) -> None:
    cache: LocalCache[int, int] = LocalCache(max_entries=100, clock=time)

    for number in range(10_000):
        cache.put(number, number)
        cache.invalidate(number)

    assert len(cache) == 0
    assert slots(cache) < 50


def slots(cache: LocalCache[int, int]) -> int:
    return len(cache._small.slots) + len(cache._main.slots)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_entries": 0}, "max_entries"),
        ({"max_weight": 0, "weigher": lambda *_: 1}, "max_weight"),
        ({"max_weight": 10}, "weigher"),
        ({"stripes": 0}, "stripes"),
        ({"refresh_after_s": 1.0}, "refresh"),
    ],
)
def test_what_cannot_work_is_refused(time: Time, wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        LocalCache(clock=time, **wrong)  # type: ignore[arg-type]


@dataclass
class Known:
    """What the model knows of a key."""

    value: int
    version: int
    expires_s: float
    scope: int
    weight: int


class CacheMachine(RuleBasedStateMachine):
    """Puts under old and new guards, of any version; a miss is right if something had to make room."""

    KEYS = st.integers(0, 30)
    VERSIONS = st.integers(0, 5)

    @initialize(max_entries=st.sampled_from([1, 2, 5, 20, 1000]), max_weight=st.sampled_from([None, 1, 7, 40, 1000]))
    def begin(self, max_entries: int, max_weight: int | None) -> None:
        self.time = Time()
        self.max_entries, self.max_weight = max_entries, max_weight
        self.cache: LocalCache[int, int] = LocalCache(
            max_entries=max_entries,
            max_weight=max_weight,
            weigher=lambda _, value: value % 10,
            ttl_s=10.0,
            stripes=8,
            clock=self.time,
        )
        self.known: dict[int, Known] = {}
        self.guards: list[tuple[int, Guard, bool]] = []  # key, guard, and whether it still holds
        self.values = 0

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 9.5]))
    def pass_time(self, seconds: float) -> None:
        self.time.now_s += seconds

    @rule(key=KEYS)
    def take_a_guard(self, key: int) -> None:
        self.guards.append((key, self.cache.guard(key), True))

    @rule(key=KEYS, version=VERSIONS, scope=st.integers(0, 2), ttl_s=st.sampled_from([None, 0.0, 1.0, 100.0]))
    def put(self, key: int, version: int, scope: int, ttl_s: float | None) -> None:
        self._put(key, version, scope, ttl_s, None, holds=True)

    @precondition(lambda self: self.guards)
    @rule(data=st.data(), version=VERSIONS, scope=st.integers(0, 2))
    def put_under_a_guard(self, data: st.DataObject, version: int, scope: int) -> None:
        key, guard, holds = data.draw(st.sampled_from(self.guards))
        self._put(key, version, scope, None, guard, holds=holds)

    def _put(
        self, key: int, version: int, scope: int, ttl_s: float | None, guard: Guard | None, *, holds: bool
    ) -> None:
        self.values += 1
        value = self.values
        before = self._live(key)
        kept = self.cache.put(key, value, version=version, scope=scope, ttl_s=ttl_s, guard=guard)
        if not holds or (
            before is not None and before.version > version and self.cache.stats().removals[RemovalCause.SIZE] == 0
        ):
            assert not kept
        elif self.max_weight is not None and value % 10 > self.max_weight:
            assert not kept
            if self.cache._entries.get(key) is None:  # it was refused for its version, or for its weight
                self.known.pop(key, None)
        elif kept:
            expires_s = self.time.now_s + (10.0 if ttl_s is None else ttl_s)
            self.known[key] = Known(value, version, expires_s, scope, value % 10)
        else:
            assert before is not None
            assert before.version > version

    @rule(key=KEYS, version=st.none() | VERSIONS)
    def invalidate(self, key: int, version: int | None) -> None:
        self.cache.invalidate(key, version)
        known = self.known.get(key)
        if known is not None and (version is None or known.version < version):
            del self.known[key]
        self.guards = [(of, guard, holds and of % 8 != key % 8) for of, guard, holds in self.guards]

    @rule(scope=st.integers(0, 2))
    def drop(self, scope: int) -> None:
        self.cache.drop(scope)
        self.known = {key: known for key, known in self.known.items() if known.scope != scope}
        self._break_all()

    @rule()
    def flush(self) -> None:
        self.cache.flush()
        self.known.clear()
        self._break_all()

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        found, known = self.cache.get(key), self._live(key)
        if known is None:
            assert found is None
        elif self.cache.stats().removals[RemovalCause.SIZE] == 0:
            assert found == known.value
        else:
            assert found in {None, known.value}

    @rule(keys=st.lists(KEYS, max_size=5))
    def get_many(self, keys: list[int]) -> None:
        missing = {key for key in keys if self.cache.entry(key) is None}
        before = {key: known.value for key in keys if (known := self._live(key)) is not None and key not in missing}

        found = self.cache.get_many(keys, lambda asked: {key: -1 for key in asked if key % 2})

        assert found == before | {key: -1 for key in missing if key % 2}
        for key in missing:
            self.known.pop(key, None)
            if key % 2 and (self.max_weight is None or self.max_weight >= -1 % 10):
                self.known[key] = Known(-1, 0, self.time.now_s + 10.0, -1, -1 % 10)

    @invariant()
    def it_is_never_too_large(self) -> None:
        stats = self.cache.stats()
        assert stats.entries == len(self.cache) <= self.max_entries
        assert stats.weight <= (inf if self.max_weight is None else self.max_weight)
        assert stats.weight == sum(entry.value % 10 for entry in self.cache._entries.values())

    @invariant()
    def its_books_add_up(self) -> None:
        cache = self.cache
        stats = cache.stats()
        assert stats.puts == stats.entries + sum(stats.removals.values())
        assert cache._small.count + cache._main.count == stats.entries
        assert slots(cache) <= 1.5 * stats.entries + 32
        assert len(cache._ghosts) <= self.max_entries
        for key, entry in cache._entries.items():
            assert isinstance(entry, Entry)
            assert entry.key == key
            assert entry.refresh_s <= entry.expires_s

    def _live(self, key: int) -> Known | None:
        known = self.known.get(key)
        return known if known is not None and known.expires_s > self.time.now_s else None

    def _break_all(self) -> None:
        self.guards = [(key, guard, False) for key, guard, _ in self.guards]


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60 * SOAK, stateful_step_count=60)


def test_eight_threads_lose_and_mix_no_value(time: Time, pool: ThreadPoolExecutor) -> None:
    """Each value names its key and the version it was put with; versions of a key only grow."""
    cache: LocalCache[int, tuple[int, int]] = LocalCache(max_entries=200, ttl_s=1e9, stripes=16, clock=time)
    together = threading.Barrier(8)

    def work(seed: int) -> list[str]:
        draw, wrong = random.Random(seed), []
        together.wait(WAIT_S)
        for step in range(4000 * SOAK):
            key, chance = int(400 * draw.random() ** 2), draw.random()
            version = step * 8 + seed
            if chance < 0.2:
                cache.put(key, (key, version), version=version, guard=cache.guard(key))
            elif chance < 0.25:
                cache.invalidate(key, version)
            elif chance < 0.26:
                cache.drop(key)
            elif chance < 0.5:
                some = range(key, key + 5)
                found = cache.get_many(some, lambda keys: {one: (one, 0) for one in keys})
                wrong += [f"{one}: {found[one]}" for one in some if found[one][0] != one]
            else:
                entry = cache.entry(key)
                if entry is not None:
                    at_least, value = entry.version, entry.value
                    if value[0] != key or value[1] < at_least:
                        wrong.append(f"{key}: {value} of version {at_least}")
        return wrong

    wrong = [one for made in [pool.submit(work, seed) for seed in range(8)] for one in made.result(120)]

    assert wrong == []
    assert len(cache) <= 200
    stats = cache.stats()
    assert stats.puts == stats.entries + sum(stats.removals.values())
    assert cache._small.count + cache._main.count == stats.entries
