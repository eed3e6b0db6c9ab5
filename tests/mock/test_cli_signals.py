"""What signals do to a real process: stop in order, leave at once, read the configuration again."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

TIMEOUT_S = 20.0
PROGRAM = """
import sys, threading
from streamworker.cli.signals import stop_on_signals

def stop(reason):
    print("stopped by", reason, flush=True)
    if "{first}" == "ends":
        done.set()

done = threading.Event()
stop_on_signals(stop, lambda: print("asked to read again", flush=True))
print("ready", flush=True)
while not done.wait(0.05):
    pass
print("drained", end="")
"""


def started(first: str) -> subprocess.Popen[str]:
    """A process that ends at the first signal, or never by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{first}", first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert said(process) == "ready\n"
    return process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_the_worker_to_stop(number: signal.Signals) -> None:
    process = started("ends")

    process.send_signal(number)
    output, complaints = process.communicate(timeout=TIMEOUT_S)

    assert output == f"stopped by {number.name}\ndrained"
    assert process.returncode == 0
    assert "KeyboardInterrupt" not in complaints


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_the_second_signal_leaves_at_once(first: signal.Signals, second: signal.Signals, code: int) -> None:
    process = started("goes on")

    process.send_signal(first)
    assert said(process) == f"stopped by {first.name}\n"
    process.send_signal(second)
    output, complaints = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == code
    assert output + complaints == ""


def test_a_hangup_asks_to_read_the_configuration_again_and_stops_nothing() -> None:
    """F-04."""
    process = started("ends")

    process.send_signal(signal.SIGHUP)
    assert said(process) == "asked to read again\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=TIMEOUT_S)

    assert output == "stopped by SIGTERM\ndrained"
    assert process.returncode == 0
