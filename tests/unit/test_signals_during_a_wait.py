"""Signals that come while the main thread waits."""

from __future__ import annotations

import signal
import subprocess
import sys

GIVEN_TO_ANOTHER_THREAD = """
import os, select, signal, threading
from streamworker.cli.signals import pass_on_signals, woken_by_signals

stops = []
wakes, waker = os.pipe()
os.set_blocking(waker, False)
pass_on_signals(lambda *told: stops.append(told), lambda number: None)
with woken_by_signals(waker):
    threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
    woken = bool(select.select([wakes], [], [], 30)[0])
print(woken, stops, signal.set_wakeup_fd(-1))
"""

ASKED_FOR_THE_END = """
import select, signal, threading
from streamworker.cli.signals import StopRequest

def send(number):
    other = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), number))
    other.start()
    other.join()

def wait_after_a_signal(*arguments):
    send(signal.SIGTERM)
    return wait(*arguments)

with StopRequest() as stop:
    send(signal.SIGHUP)
    others = stop.came(0.2)
    wait, select.select = select.select, wait_after_a_signal
    print(others, stop.came(30), stop.came(0))
"""


def test_the_main_thread_wakes_up_for_a_signal_that_another_thread_is_given() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_TO_ANOTHER_THREAD], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == f"True [({signal.SIGTERM.value}, 'SIGTERM')] -1"


def test_who_waits_for_the_end_wakes_up_for_it_whichever_thread_is_given_the_signal_and_for_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKED_FOR_THE_END], capture_output=True, text=True, check=True, timeout=15
    )

    assert done.stdout.strip() == "False True True"
