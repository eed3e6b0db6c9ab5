"""What a supervisor does with real processes, which here are small ones that know nothing of Kafka."""

from __future__ import annotations

import logging
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from streamworker.clock import SystemClock
from streamworker.config import Config, DeadLetterConfig, HttpConfig, LifecycleConfig
from streamworker.errors import ConfigurationError
from streamworker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TERM, HUP = 15, 1
TIMEOUT_S = 20.0
FOLLOWS = "head -c1 <&$TETHER >/dev/null"  # until it is told, or its supervisor is gone
OUTLASTS = "exec sleep 60"


class World:
    """A supervisor of shell scripts, by the number of the worker; what follows the first one of each is `then`."""

    def __init__(self, *scripts: str, then: str = FOLLOWS, bounded: bool = False, **http: object) -> None:
        self.scripts = dict(enumerate(scripts))
        self.then = then
        self.launched: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.all_there = threading.Event()
        self.expected = len(scripts)
        self.refuses = 0
        config = Config(
            lifecycle=LifecycleConfig(drain_timeout_s=0.2, close_timeout_s=0.1),
            dead_letters=DeadLetterConfig(delivery_timeout_s=0.1),
            http=HttpConfig(**{"enabled": False, **http}),  # type: ignore[arg-type]
        )
        self.supervisor = Supervisor(
            config, self._launch, processes=len(scripts), bounded=bounded, clock=SystemClock(), chance=lambda: 0.0
        )

    def _launch(self, number: int, *, tether: int, socket: Path) -> subprocess.Popen[bytes]:
        if self.refuses:
            self.refuses -= 1
            raise OSError("no more processes")
        self.launched.append(number)
        script = self.scripts.pop(number, self.then).replace("$TETHER", str(tether)).replace("$SOCKET", str(socket))
        process = subprocess.Popen(["bash", "-c", script], pass_fds=[tether])
        self.processes.append(process)
        if len(self.launched) == self.expected:
            self.all_there.set()
        return process

    @contextmanager
    def running(self) -> Iterator[list[int]]:
        """Runs on a thread until the block ends, then for as long as it takes; the exit code is in the list."""
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(self.supervisor.run()))
        thread.start()
        assert self.all_there.wait(TIMEOUT_S)
        try:
            yield codes
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
        finally:
            for process in self.processes:
                process.kill()


def test_workers_that_follow_end_the_whole_well() -> None:
    world = World(FOLLOWS, FOLLOWS)

    with world.running() as codes:
        world.supervisor.stop(TERM, "SIGTERM")

    assert codes == [0]
    assert world.launched == [0, 1]


def test_each_worker_is_told_the_number_of_each_signal(tmp_path: Path) -> None:
    world = World(*(f"head -c2 <&$TETHER >{tmp_path}/{number}" for number in range(2)))

    with world.running():
        world.supervisor.reload(HUP)
        world.supervisor.stop(TERM, "SIGTERM")

    assert [(tmp_path / str(number)).read_bytes() for number in range(2)] == [bytes([HUP, TERM])] * 2


def test_one_that_ends_unasked_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(FOLLOWS, "exit 1")
    world.expected = 3

    with world.running() as codes:
        world.supervisor.stop(TERM, "SIGTERM")

    assert world.launched == [0, 1, 1]
    assert codes == [0]
    said = [(one.getMessage(), one.__dict__.get("exit_code"), one.__dict__.get("in_s")) for one in caplog.records]
    assert ("worker ended, started again", 1, 0.8) in said


def test_what_one_leaves_behind_is_not_in_the_way_of_the_next() -> None:
    world = World(
        "[[ ! -e $SOCKET ]] && touch $SOCKET && exit 1", then=f"[[ ! -e $SOCKET ]] && touch $SOCKET && {FOLLOWS}"
    )
    world.expected = 2

    with world.running() as codes:
        world.supervisor.stop(TERM, "SIGTERM")

    assert codes == [0]


def test_one_that_cannot_be_started_is_tried_again_later() -> None:
    world = World(FOLLOWS, FOLLOWS)
    world.refuses = 1

    with world.running() as codes:
        world.supervisor.stop(TERM, "SIGTERM")

    assert world.launched == [1, 0]
    assert codes == [0]


def test_one_that_waits_for_its_start_is_not_started_during_a_stop() -> None:
    world = World("exit 1", FOLLOWS)
    with world.running() as codes:
        assert world.processes[0].wait(TIMEOUT_S) == 1

        world.supervisor.stop(TERM, "SIGTERM")

    assert world.launched == [0, 1]
    assert codes == [1]


def test_a_wrong_configuration_ends_all_in_order() -> None:
    world = World(FOLLOWS, "exit 2", FOLLOWS)

    with world.running() as codes:
        pass

    assert codes == [2]
    assert [process.returncode for process in world.processes] == [0, 2, 0]


def test_a_bounded_run_ends_when_all_have_reached_their_bound() -> None:
    world = World("exit 0", "exit 3", bounded=True)

    with world.running() as codes:
        pass

    assert world.launched == [0, 1]
    assert codes == [3]


def test_what_outlasts_a_stop_is_killed_once_its_time_is_over() -> None:
    world = World(FOLLOWS, OUTLASTS)

    with world.running() as codes:
        began_s = time.monotonic()
        world.supervisor.stop(TERM, "SIGTERM")

    assert codes == [3]
    assert [process.returncode for process in world.processes] == [0, -9]
    assert 0.7 <= time.monotonic() - began_s < 5.0


@pytest.mark.parametrize(("second", "name", "code"), [(15, "SIGTERM", 143), (2, "SIGINT", 130)])
def test_the_second_signal_leaves_at_once(second: int, name: str, code: int) -> None:
    world = World("head -c2 <&$TETHER >/dev/null; exit 143")

    with world.running() as codes:
        world.supervisor.stop(TERM, "SIGTERM")
        world.supervisor.stop(second, name)

    assert codes == [code]
    assert world.processes[0].returncode == 143


def test_the_first_signal_stops_in_order_also_while_all_stop_for_another_reason() -> None:
    world = World("exit 2", "head -c1 <&$TETHER >/dev/null; head -c1 <&$TETHER >/dev/null; exit 143")
    with world.running() as codes:
        assert world.processes[0].wait(TIMEOUT_S) == 2

        world.supervisor.stop(TERM, "SIGTERM")

    assert codes == [2]
    assert world.processes[1].returncode == -9


def test_without_its_port_nothing_is_started() -> None:
    world = World(FOLLOWS, FOLLOWS, enabled=True, host="192.0.2.1")

    with pytest.raises(ConfigurationError, match=r"http\.host"):
        world.supervisor.run()

    assert world.launched == []


def test_a_folder_that_is_too_long_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    with pytest.raises(ConfigurationError, match="expected a shorter TMPDIR"):
        World(FOLLOWS, FOLLOWS).supervisor.run()
