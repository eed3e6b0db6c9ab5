"""Signals of a supervisor."""

from __future__ import annotations

import signal
import subprocess
import sys

GIVEN_TO_ANOTHER_THREAD = """
import os, select, signal, threading
from streamworker.cli.signals import pass_on_signals

stops = []
wakes, waker = os.pipe()
os.set_blocking(waker, False)
with pass_on_signals(lambda *told: stops.append(told), lambda number: None, waker):
    threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
    woken = bool(select.select([wakes], [], [], 30)[0])
print(woken, stops, signal.set_wakeup_fd(-1))
"""


def test_the_main_thread_wakes_up_for_a_signal_that_another_thread_is_given() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_TO_ANOTHER_THREAD], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == f"True [({signal.SIGTERM.value}, 'SIGTERM')] -1"
