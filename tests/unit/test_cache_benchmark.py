"""The cache in memory keeps just what a plain simulation of its policy keeps, and the figures beside others add up."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cache_results import CacheResults
from benchmarks.caches import LIBRARIES
from benchmarks.policies import belady, lru, s3_fifo
from benchmarks.traces import TRACES, bursty, loop, shifting, with_scan, zipf
from streamworker.cache.local import LocalCache
from streamworker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUESTS = 5000
REQUIREMENTS = Path(__file__).parents[2] / "benchmarks" / "cache_requirements"


def hits_of_the_cache(keys: Sequence[int], size: int) -> int:
    kept: LocalCache[int, bool] = LocalCache(max_entries=size, ttl_s=1e6, clock=SystemClock())
    hits = 0
    for key in keys:
        if kept.get(key) is None:
            kept.put(key, value=True)
        else:
            hits += 1
    return hits


def most_hits(keys: Sequence[int], size: int) -> int:
    """By trying everything."""

    @cache
    def best(number: int, kept: frozenset[int]) -> int:
        if number == len(keys):
            return 0
        key = keys[number]
        if key in kept:
            return 1 + best(number + 1, kept)
        if len(kept) < size:
            return best(number + 1, kept | {key})
        return max(best(number + 1, kept - {victim} | {key}) for victim in kept)

    return best(0, frozenset())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 50, 200])
@pytest.mark.parametrize("trace", [name for name in TRACES if name != "flights"])
def test_the_cache_hits_as_often_as_a_plain_simulation_of_its_policy(trace: str, size: int) -> None:
    keys = TRACES[trace][0](REQUESTS)

    assert hits_of_the_cache(keys, size) == s3_fifo(keys, size)


@given(keys=st.lists(st.integers(0, 12), max_size=200), size=st.integers(1, 9))
def test_it_does_so_for_any_keys(keys: list[int], size: int) -> None:
    assert hits_of_the_cache(keys, size) == s3_fifo(keys, size)


@given(keys=st.lists(st.integers(0, 6), max_size=14), size=st.integers(1, 4))
def test_the_optimum_is_the_best_that_can_be(keys: list[int], size: int) -> None:
    assert belady(keys, size) == most_hits(tuple(keys), size)


@given(keys=st.lists(st.integers(0, 20), max_size=200), size=st.integers(1, 9))
def test_no_policy_is_better_than_the_optimum(keys: list[int], size: int) -> None:
    assert max(lru(keys, size), s3_fifo(keys, size)) <= belady(keys, size)


def test_lru_keeps_what_was_read_last() -> None:
    assert [lru(order * 2, 3) for order in permutations((1, 2, 3))] == [3] * 6
    assert lru((1, 2, 3, 1, 4, 1, 2), 3) == 2


def test_a_trace_is_the_same_each_time_and_of_the_length_that_was_asked_for() -> None:
    for variants in TRACES.values():
        for variant in variants:
            keys = variant(REQUESTS)
            assert keys == variant(REQUESTS)
            assert len(keys) in {REQUESTS, 100_000}


def test_traces_are_what_their_names_say() -> None:
    once = Counter(with_scan(REQUESTS))
    first, last = zipf(1.0, REQUESTS)[:500], shifting(REQUESTS)[-500:]
    bursts = bursty(REQUESTS)

    assert Counter(zipf(1.1, REQUESTS)).most_common(1)[0][0] == 0
    assert sum(count for key, count in once.items() if key >= 10**9) == pytest.approx(REQUESTS / 3, rel=0.1)
    assert max(count for key, count in once.items() if key >= 10**9) == 1
    assert Counter(first).most_common(1) != Counter(last).most_common(1)
    assert max(bursts) + 1 == pytest.approx(REQUESTS * 0.23, rel=0.1)
    assert loop(1000)[:40] == [*range(20), *range(20)]


def measured() -> CacheResults:
    """All targets met, by a little."""
    draw = random.Random(1)
    found = CacheResults(traced=330.0)
    for subject in ("streamworker", "s3_fifo", "lru", "theine", "moka"):
        found.ratios[subject] = dict.fromkeys(TRACES, 0.5)
    found.ratios["belady"] = {trace: 0.6 + draw.random() / 10 for trace in TRACES}
    for subject, ns in (("streamworker", 800.0), ("dict", 100.0), ("cachetools", 1600.0)):
        found.add_speed(subject, {"hit": ns + 50})
        found.add_speed(subject, {"hit": ns})
        found.add_speed(subject, {"hit": ns + 10})
    return found


def test_targets_are_met_at_their_limits() -> None:
    assert [one.name for one in measured().targets() if one.holds is not True] == []


@pytest.mark.parametrize(
    ("subject", "trace", "ratio", "missed"),
    [
        ("s3_fifo", "loop", 0.51, "plain simulation"),
        ("lru", "flights", 0.51, "LRU"),
        ("theine", "bursty", 0.51, "theine's, bursty"),
        ("moka", "mixed", 0.51, "moka-py's, mixed"),
    ],
)
def test_a_hit_ratio_that_is_not_reached_is_told(subject: str, trace: str, ratio: float, missed: str) -> None:
    found = measured()
    found.ratios[subject] = {**found.ratios[subject], trace: ratio}

    (target,) = [one for one in found.targets() if not one.holds]

    assert missed in target.name


def test_one_trace_may_be_better_under_lru_and_two_may_not() -> None:
    found = measured()
    held = []

    for trace in ("loop", "bursty"):
        found.ratios["lru"] = {**found.ratios["lru"], trace: 0.51}
        held += [one.holds for one in found.targets() if "LRU" in one.name]

    assert held == [True, False]


def test_a_hit_that_takes_too_long_and_too_many_bytes_are_told() -> None:
    found = measured()
    found.speed["streamworker"]["hit"] = 801.0
    found.traced = 331.0

    assert [one.measured for one in found.targets() if not one.holds] == ["8.01", "0.50", "331"]


def test_what_could_not_be_measured_is_told_and_no_target_is_missed_for_it() -> None:
    found = CacheResults(missing={"moka": "it cannot be installed: no wheel"})

    lines = list(found.tables())

    assert {one.holds for one in found.targets()} == {None}
    assert "\nmoka-py is missing: it cannot be installed: no wheel" in lines
    assert found.as_json()["missing"] == found.missing


def test_a_ratio_is_shown_with_its_share_of_the_optimum() -> None:
    found = measured()
    found.ratios["belady"] = dict.fromkeys(TRACES, 0.625)

    lines = list(found.tables())

    assert next(line for line in lines if line.startswith("| `LocalCache` | 0.")).count("0.500 (80%)") == len(TRACES)
    assert "| `LocalCache` | 800 |  |  |  |  |" in lines


@pytest.mark.parametrize("library", LIBRARIES)
def test_all_that_is_installed_for_a_library_is_pinned_with_its_hashes(library: str) -> None:
    pins = (REQUIREMENTS / f"{library}.txt").read_text()
    asked_for = (REQUIREMENTS / f"{library}.in").read_text().strip()

    pinned = re.findall(r"^([\w-]+)==[\d.]+ (.*)\\\n    --hash=sha256:", pins, re.MULTILINE)

    assert asked_for in {name for name, _ in pinned}
    assert len(pinned) == len(re.findall(r"^\w", pins, re.MULTILINE))
