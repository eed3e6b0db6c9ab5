"""A signal that comes while the loop waits for outcomes: the wait still ends in time, and the stop is heeded."""

from __future__ import annotations

import subprocess
import sys

TIMEOUT_S = 10.0
# The handler takes longer than is left of the wait, as any handler may on a busy machine.
PROGRAM = """
import signal, time
from streamworker.clock import SystemClock
from streamworker.processing.pools import Pools

def on_signal(number, frame):
    until_s = time.monotonic() + 0.005
    while time.monotonic() < until_s:
        pass
    signals.append(number)

signals = []
signal.signal(signal.SIGALRM, on_signal)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
pools = Pools([], [], clock=SystemClock(), max_record_bytes=1)
while len(signals) < 5:
    pools.collect(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
print("stopped waiting")
"""


def test_a_wait_for_outcomes_ends_in_time_though_a_signal_comes() -> None:
    """Edge cases 93, 94: `queue.SimpleQueue` of Python 3.11 and 3.12 waits for ever then.

    With a call that never returned, a worker did not notice SIGTERM any more.
    """
    worker = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    try:
        output, _ = worker.communicate(timeout=TIMEOUT_S)
    finally:
        worker.kill()
        worker.communicate()

    assert output == "stopped waiting\n"
