"""Memory of the process against its limit."""

from __future__ import annotations

import sys

import pytest

from streamworker import ConfigurationError
from streamworker.assembly import memory_watch
from streamworker.config import LifecycleConfig
from streamworker.observability.memory import MemoryState, MemoryWatch, resident_bytes

CALM, HIGH, TOO_LONG = MemoryState


def states(*readings: int | None, patience_s: float = 2.0) -> list[MemoryState]:
    """What each look says, one a second, with a limit of 100."""
    left = list(readings)
    watch = MemoryWatch(limit_bytes=100, patience_s=patience_s, read=lambda: left.pop(0))
    return [watch.look(float(second)) for second in range(len(readings))]


def test_at_the_limit_is_calm_and_beyond_it_is_high() -> None:
    assert states(100, 101) == [CALM, HIGH]


def test_it_is_calm_again_only_well_below_the_limit() -> None:
    assert states(101, 91, 90, 95) == [HIGH, HIGH, CALM, CALM]


def test_high_for_longer_than_the_patience_is_too_long() -> None:
    assert states(101, 101, 101, 101) == [HIGH, HIGH, HIGH, TOO_LONG]


def test_each_time_that_it_is_high_has_its_own_patience() -> None:
    assert states(101, 101, 50, 101, 101, 101) == [HIGH, HIGH, CALM, HIGH, HIGH, HIGH]


def test_a_reading_that_fails_changes_nothing() -> None:
    assert states(None, 101, None, None, None) == [CALM, HIGH, HIGH, HIGH, TOO_LONG]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_the_process_takes_and_gives_back_is_seen() -> None:
    before = resident_bytes()

    taken = bytearray(b"x") * (64 << 20)
    during = resident_bytes()
    del taken
    after = resident_bytes()

    assert before is not None
    assert during is not None
    assert after is not None
    assert 60 << 20 < during - before < 80 << 20
    assert during - after > 60 << 20


def test_without_a_limit_nothing_is_watched() -> None:
    assert memory_watch(LifecycleConfig(), lambda: None) is None


def test_a_limit_that_nobody_can_tell_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"lifecycle\.max_rss_bytes: this system does not tell"):
        memory_watch(LifecycleConfig(max_rss_bytes=100), lambda: None)


def test_a_limit_below_what_the_process_has_anyway_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"more than the process has before it does anything \(100\), got 100"):
        memory_watch(LifecycleConfig(max_rss_bytes=100), lambda: 100)
