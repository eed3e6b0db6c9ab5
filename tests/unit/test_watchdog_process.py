from __future__ import annotations

import subprocess
import sys
import threading
from typing import Never

import pytest

from streamworker.observability.watchdog import Watchdog


class HandClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0


class World:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.codes: list[int] = []
        self.notes: list[str] = []
        self.watchdog = Watchdog(clock=self.clock, stall_timeout_s=60.0, die=self.codes.append, note=self.notes.append)

    def watch(self, seconds: int, *, beating: bool = False) -> bool:
        for _ in range(seconds):
            self.clock.now_s += 1.0
            if beating:
                self.watchdog.beat()
            if not self.watchdog.check():
                return False
        return True


def test_a_loop_that_beats_lives() -> None:
    world = World()

    assert world.watch(600, beating=True)


def test_a_loop_that_is_silent_for_the_stall_timeout_ends_the_process_with_code_4() -> None:
    world = World()

    assert world.watch(60)
    assert not world.watch(1)
    assert world.codes == [4]
    assert world.notes == ["the loop has not moved for 61 s; exit code 4"]


def test_a_process_that_was_frozen_as_a_whole_gets_its_full_time_again() -> None:
    world = World()

    world.clock.now_s += 3_600.0

    assert world.watch(59)
    assert world.codes == []


def test_a_block_beyond_its_deadline_ends_the_process_with_its_code() -> None:
    world = World()

    with world.watchdog.deadline("leaving the group", 4.0, 5):
        in_time = world.watch(4)
        late = world.watch(1)

    assert (in_time, late) == (True, False)
    assert world.codes == [5]
    assert world.notes == ["leaving the group took longer than 4 s; exit code 5"]


def test_no_beat_is_expected_inside_a_deadline_and_the_full_time_follows_it() -> None:
    world = World()

    with world.watchdog.deadline("leaving the group", 100.0, 5):
        inside = world.watch(90)

    assert inside
    assert world.watch(60)


def test_the_outer_deadline_holds_again_after_an_inner_one() -> None:
    world = World()

    with world.watchdog.deadline("outer", 10.0, 5):
        with world.watchdog.deadline("inner", 30.0, 6):
            world.watch(15)
        world.watch(1)

    assert world.codes == [5]


def test_a_note_that_cannot_be_written_does_not_keep_the_process_alive() -> None:
    codes: list[int] = []
    clock = HandClock()

    def broken(_reason: str) -> Never:
        raise OSError(28, "No space left on device")

    watchdog = Watchdog(clock=clock, stall_timeout_s=1.0, die=codes.append, note=broken)
    clock.now_s += 1.5

    with pytest.raises(OSError, match="No space"):
        watchdog.check()

    assert codes == [4]


def test_the_thread_looks_by_itself_and_stops_when_told() -> None:
    dead = threading.Event()
    clock = HandClock()
    watchdog = Watchdog(clock=clock, stall_timeout_s=1.0, die=lambda _code: dead.set(), note=lambda _reason: None)

    watchdog.start()
    clock.now_s += 1.5

    assert dead.wait(5.0)
    watchdog.stop()


_HANGING = """
import os, threading
from streamworker.clock import SystemClock
from streamworker.observability.watchdog import Watchdog
watchdog = Watchdog(clock=SystemClock(), stall_timeout_s=0.1, die=os._exit)
watchdog.start()
def hanging_loop(): threading.Event().wait()
hanging_loop()
"""


def test_a_hanging_process_leaves_its_stacks_and_code_4() -> None:
    ended = subprocess.run([sys.executable, "-c", _HANGING], capture_output=True, text=True, timeout=30, check=False)

    assert ended.returncode == 4
    assert "streamworker watchdog: the loop has not moved" in ended.stderr
    assert "hanging_loop" in ended.stderr
