"""One cache, measured in a process of its own: `python -m benchmarks.cache_subject NAME WHAT REQUESTS`.

The last line is a JSON object. Run by the interpreter of the environment that has the library, so this imports nothing
but the standard library before it knows which.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.policies import POLICIES
from benchmarks.traces import REQUESTS_PER_KEY, TRACES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Get = Callable[[object], object]
    Put = Callable[[object, object], object]

PERCENT = (1, 5, 10)  # of the keys, how many a cache has room for
TTL_S = 3600
_ENTRIES = 100_000
_ROUNDS = 7
_PAGE_BYTES = 4096
_VALUE = "a value"


def streamworker(size: int) -> tuple[Get, Put]:
    from streamworker.cache.local import LocalCache
    from streamworker.clock import SystemClock

    cache: LocalCache[object, object] = LocalCache(max_entries=size, ttl_s=TTL_S, clock=SystemClock())
    return cache.get, cache.put


def plain_dict(_: int) -> tuple[Get, Put]:
    kept: dict[object, object] = {}
    return kept.get, kept.__setitem__


def cachetools(size: int) -> tuple[Get, Put]:
    from cachetools import TTLCache

    cache = TTLCache(size, ttl=TTL_S)
    return cache.get, cache.__setitem__


def lru_dict(size: int) -> tuple[Get, Put]:
    from lru import LRU

    cache = LRU(size)
    return cache.get, cache.__setitem__


def theine(size: int) -> tuple[Get, Put]:
    from theine import Cache

    cache, ttl = Cache(size), timedelta(seconds=TTL_S)
    return lambda key: cache.get(key)[0], lambda key, value: cache.set(key, value, ttl)


def moka(size: int) -> tuple[Get, Put]:
    """Not `get_with` and no listener: with either it freezes the interpreter when there are two threads."""
    from moka_py import Moka

    cache = Moka(size, ttl=TTL_S)
    return cache.get, cache.set


SUBJECTS: Mapping[str, Callable[[int], tuple[Get, Put]]] = {
    "streamworker": streamworker,
    "dict": plain_dict,
    "cachetools": cachetools,
    "lru_dict": lru_dict,
    "theine": theine,
    "moka": moka,
}


def ratios(name: str, requests: int) -> dict[str, float]:
    """The share of hits in each trace, over its variants and the sizes of a cache."""
    found = {}
    for trace, variants in TRACES.items():
        shares = []
        for variant in variants:
            keys = variant(requests)
            room = len(set(keys)) if trace == "flights" else requests // REQUESTS_PER_KEY
            shares += [_hits(name, keys, max(room * percent // 100, 1)) / len(keys) for percent in PERCENT]
        found[trace] = sum(shares) / len(shares)
    return found


def _hits(name: str, keys: Sequence[int], size: int) -> int:
    if name in POLICIES:
        return POLICIES[name](keys, size)
    get, put = SUBJECTS[name](size)
    hits = 0
    for key in keys:
        if get(key) is None:
            put(key, _VALUE)
        else:
            hits += 1
    return hits


def speed(name: str) -> dict[str, float]:
    """Nanoseconds of each kind of call, the least of the rounds: keys are strings, in random order."""
    keys = [f"key-{number:08}" for number in range(_ENTRIES)]
    others = [f"other-{number:08}" for number in range(_ENTRIES * _ROUNDS)]
    get, put = SUBJECTS[name](_ENTRIES + 1)
    for key in keys:
        put(key, object())  # as in life: a read also has to fetch the value's own memory
    shuffled = random.Random(1).sample(keys, len(keys))
    absent = random.Random(2).sample(others, len(keys))
    rounds = [
        {"hit": _ns(get, shuffled), "replace": _ns_put(put, shuffled), "miss": _ns(get, absent)} for _ in range(_ROUNDS)
    ]
    if name != "dict":
        for number, one in enumerate(rounds):
            one["evict"] = _ns_put(put, others[number * _ENTRIES : (number + 1) * _ENTRIES])
    return {what: min(one[what] for one in rounds) for what in rounds[0]}


def _ns(get: Get, keys: Sequence[str]) -> float:
    began = time.perf_counter_ns()
    for key in keys:
        get(key)
    return (time.perf_counter_ns() - began) / len(keys)


def _ns_put(put: Put, keys: Sequence[str]) -> float:
    pairs = [(key, object()) for key in keys]
    began = time.perf_counter_ns()
    for key, value in pairs:
        put(key, value)
    return (time.perf_counter_ns() - began) / len(keys)


def memory(name: str) -> dict[str, float]:
    """Bytes for each entry, without key and value, by which the process grows; filled, then churned by four times."""
    put_all = _churn(name)
    gc.collect()
    before = _resident()
    kept = put_all()
    gc.collect()
    return {"resident": (_resident() - before) / _ENTRIES} if kept else {}


def traced(name: str) -> dict[str, float]:
    """The same as Python's allocator sees it: nothing for a library that has its own."""
    put_all = _churn(name)
    tracemalloc.start()
    kept = put_all()
    gc.collect()
    return {"traced": tracemalloc.get_traced_memory()[0] / _ENTRIES} if kept else {}


def _churn(name: str) -> Callable[[], object]:
    """What makes a cache and puts entries, with all it needs at hand; the cache lives as long as what it returns."""
    keys = [f"key-{number:08}" for number in range(3 * _ENTRIES)]
    draw = random.Random(3)
    asked = [keys[int(len(keys) * draw.random() ** 2)] for _ in range(4 * _ENTRIES)]
    SUBJECTS[name](1)  # what it imports is not an entry

    def put_all() -> object:
        get, put = SUBJECTS[name](_ENTRIES)
        for key in keys[:_ENTRIES]:
            put(key, _VALUE)
        for key in asked if name != "dict" else ():
            if get(key) is None:
                put(key, _VALUE)
        return get

    return put_all


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


if __name__ == "__main__":
    subject, what, requests = sys.argv[1:]
    match what:
        case "ratios":
            answer = ratios(subject, int(requests))
        case "speed":
            answer = speed(subject)
        case "memory":
            answer = memory(subject)
        case _:
            answer = traced(subject)
    print(json.dumps(answer))
