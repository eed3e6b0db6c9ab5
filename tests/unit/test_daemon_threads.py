"""Threads that run what may hang, and keep no process from ending."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from streamworker.daemon_threads import DaemonThreads

PATIENCE_S = 30.0

HANGS = """
import threading
from streamworker.daemon_threads import DaemonThreads

threads, begun = DaemonThreads(2, name="hangs"), threading.Event()
threads.submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
threads.shutdown(wait=False, cancel_futures=True)
"""


def test_a_call_that_hangs_keeps_no_process_from_ending() -> None:
    """The standard library's pool is waited for at the end of the interpreter."""
    ended = subprocess.run([sys.executable, "-c", HANGS], check=False, timeout=PATIENCE_S)

    assert ended.returncode == 0


def test_calls_run_at_once_up_to_so_many_and_their_futures_tell() -> None:
    threads, met = DaemonThreads(2, name="pair"), threading.Barrier(2)

    both = [threads.submit(met.wait, PATIENCE_S) for _ in range(2)]
    fails = threads.submit(int, "x")
    more = [threads.submit(pow, 2, number) for number in range(50)]

    assert {one.result(PATIENCE_S) for one in both} == {0, 1}
    assert isinstance(fails.exception(PATIENCE_S), ValueError)
    assert [one.result(PATIENCE_S) for one in more] == [2**number for number in range(50)]
    threads.shutdown()
    assert sum(thread.name == "pair" for thread in threading.enumerate()) == 0


def test_a_thread_that_waits_is_taken_before_another_is_started() -> None:
    threads = DaemonThreads(50, name="lazy")

    results = [threads.submit(pow, 2, number).result(PATIENCE_S) for number in range(50)]

    assert results == [2**number for number in range(50)]
    assert sum(thread.name == "lazy" for thread in threading.enumerate()) < 10  # one, and now and then another
    threads.shutdown()


def test_what_has_not_begun_is_cancelled_if_that_is_asked_for() -> None:
    threads, begun, goes_on = DaemonThreads(1, name="busy"), threading.Event(), threading.Event()
    first = threads.submit(lambda: (begun.set(), goes_on.wait(PATIENCE_S)))
    second = threads.submit(int)
    assert begun.wait(PATIENCE_S)

    threads.shutdown(wait=False, cancel_futures=True)
    goes_on.set()

    assert second.cancelled()
    assert first.result(PATIENCE_S)


def test_nothing_is_taken_after_the_end() -> None:
    threads = DaemonThreads(1, name="ended")
    threads.shutdown()

    with pytest.raises(RuntimeError, match="ended is shut down"):
        threads.submit(int)
