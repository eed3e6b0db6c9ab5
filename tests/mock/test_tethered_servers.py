"""Servers that tests start do not outlive the test run, whoever of the three processes dies first."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from servers.tethered import Tethered

TESTS = Path(__file__).parents[1]
TIMEOUT_S = 20.0

SERVER = (sys.executable, "-c", "import signal; signal.pause()")
RUN = f"""
import sys
from pathlib import Path
from servers.tethered import Tethered
print(Tethered({SERVER!r}, Path(sys.argv[1])).pid, flush=True)
input()
"""


def test_a_killed_run_takes_server_and_folder_along(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        server = int(run.stdout.readline())

        run.send_signal(signal.SIGKILL)

        assert run.stderr.read() == b"", "it closes when the run and the process between have ended"
    assert not alive(server)
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is signalled on Linux only")
def test_a_killed_process_between_takes_the_server_along(tmp_path: Path) -> None:
    tethered = Tethered(SERVER, tmp_path)
    server = os.pidfd_open(tethered.pid)

    os.kill(parent_of(tethered.pid), signal.SIGKILL)

    end = select.poll()  # which takes file descriptors of any number
    end.register(server, select.POLLIN)
    assert end.poll(TIMEOUT_S * 1000)
    os.close(server)
    tethered.close()


def test_closing_ends_the_server_and_removes_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    tethered = Tethered(SERVER, folder)

    tethered.close()

    assert not alive(tethered.pid)
    assert not folder.exists()


def test_a_server_that_a_test_has_killed_leaves_its_folder_for_another_start(tmp_path: Path) -> None:
    tethered = Tethered(SERVER, tmp_path)

    tethered.send(signal.SIGKILL)
    tethered.wait(TIMEOUT_S)
    tethered.close()

    assert not tethered.running
    assert tethered.log.exists()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def parent_of(pid: int) -> int:
    """Second field after the command's name, see proc(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
