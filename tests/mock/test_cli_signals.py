"""What signals do to a real process, its own or its supervisor's: stop, leave at once, read the configuration again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, BinaryIO

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 20.0
PROGRAM = """
import sys, threading
from streamworker.cli.signals import follow_supervisor, stop_on_signals

def stop(reason):
    print("stopped by", reason, flush=True)
    if "{first}" == "ends":
        done.set()

done = threading.Event()
reload = lambda: print("asked to read again", flush=True)
stop_on_signals(stop, reload)
if len(sys.argv) > 1:
    follow_supervisor(int(sys.argv[1]), stop, reload, lambda: print("tidy", flush=True))
print("ready", flush=True)
while not done.wait(0.05):
    pass
print("drained", end="")
"""


def started(first: str, *tether: int) -> subprocess.Popen[str]:
    """A process that ends at the first signal, or never by itself; it may have a supervisor at a tether."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("{first}", first), *map(str, tether)],
        pass_fds=tether,
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


@pytest.fixture
def tether() -> Iterator[tuple[int, BinaryIO]]:
    """The worker's end and the supervisor's, of which the worker has no copy."""
    theirs, ours = os.pipe()
    with os.fdopen(ours, "wb", buffering=0) as supervisor:
        yield theirs, supervisor
    os.close(theirs)


def test_a_worker_does_what_its_supervisor_passes_on(tether: tuple[int, BinaryIO]) -> None:
    theirs, supervisor = tether
    process = started("goes on", theirs)

    supervisor.write(bytes([signal.SIGHUP]))
    assert said(process) == "asked to read again\n"
    supervisor.write(bytes([signal.SIGTERM]))
    assert said(process) == "stopped by SIGTERM\n"
    supervisor.write(bytes([signal.SIGINT]))
    output, complaints = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 130
    assert output + complaints == ""


def test_a_signal_that_worker_and_supervisor_have_both_got_is_no_second_one(tether: tuple[int, BinaryIO]) -> None:
    theirs, supervisor = tether
    process = started("goes on", theirs)

    process.terminate()
    assert said(process) == "stopped by SIGTERM\n"
    supervisor.write(bytes([signal.SIGTERM]))
    assert said(process) == "stopped by SIGTERM\n"
    process.terminate()
    process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 143


def test_a_worker_stops_in_order_when_its_supervisor_is_gone(tether: tuple[int, BinaryIO]) -> None:
    theirs, supervisor = tether
    process = started("ends", theirs)

    supervisor.close()
    output, _ = process.communicate(timeout=TIMEOUT_S)

    assert output == "tidy\nstopped by the supervisor is gone\ndrained"
    assert process.returncode == 0
