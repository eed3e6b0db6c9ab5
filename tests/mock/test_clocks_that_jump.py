"""The wall clock of a worker's machine jumps by an hour: nothing that the worker waits for comes sooner or later.

libfaketime gives the process a false wall clock and leaves the monotonic one alone, as the kernel does. It does not
touch a wait that is in progress, so what a true jump does to one is shown by the second test.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet.trial import Trial
from fleet.workers import Fleet, terminate
from missing import unavailable

from streamworker.exit_code import ExitCode
from streamworker.testing import MockKafka

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HOUR_S = 3600
RETRY_AFTER_S = 1.5
STALL_S = 1
LATE_S = 1.0  # how late a busy machine may see the beginning or the end of a wait
PARTITIONS = 4
SOON_EXPELLED = {
    "kafka.group_protocol": "classic",
    "kafka.session_timeout_s": 1,
    "lifecycle.revoke_timeout_s": 0.5,
    "lifecycle.stall_timeout_s": STALL_S,
}

# The client waits by `cnd_timedwait`, which libfaketime does not know: the end of the wait, told by the false clock,
# would be waited for by the true one. This leads it through a function that libfaketime does know. The numbers are
# ETIMEDOUT of the one and thrd_success, thrd_timedout and thrd_error of the other.
_WAITS_C = """
int pthread_cond_timedwait(void *condition, void *mutex, const void *until);

int cnd_timedwait(void *condition, void *mutex, const void *until)
{
    int error = pthread_cond_timedwait(condition, mutex, until);
    return error == 0 ? 0 : error == 110 ? 4 : 2;
}
"""


class WallClock:
    """The wall clock of the processes that are started inside of `of_new_processes`."""

    def __init__(self, folder: Path, libraries: Sequence[Path]) -> None:
        self._offset = folder / "offset"
        self._libraries = libraries
        self.set(0)

    def set(self, seconds: int) -> None:
        """So far beside the true time."""
        written = self._offset.with_suffix(".new")
        written.write_text(f"{seconds:+}s\n")
        written.rename(self._offset)  # nobody reads half of it

    @contextmanager
    def of_new_processes(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LD_PRELOAD", ":".join(map(str, self._libraries)))
            environment.setenv("FAKETIME_TIMESTAMP_FILE", str(self._offset))
            environment.setenv("FAKETIME_NO_CACHE", "1")  # a look costs 3 µs
            environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            yield


@pytest.fixture
def faketime() -> Path:
    found = [path for lib in ("lib/*", "lib64") for path in Path("/usr").glob(f"{lib}/faketime/libfaketimeMT.so.1")]
    return found[0] if found else unavailable("no libfaketime: apt-get install faketime")


@pytest.fixture
def waits(tmp_path: Path) -> Path:
    source, library = tmp_path / "waits.c", tmp_path / "waits.so"
    if shutil.which("cc") is None:
        unavailable("no C compiler for libfaketime's gap: apt-get install gcc")
    source.write_text(_WAITS_C)
    subprocess.run(["cc", "-shared", "-fPIC", "-nostdlib", "-o", library, source], check=True)
    return library


def test_back_off_and_commits_keep_their_time(
    faketime: Path, waits: Path, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-3C. An hour ahead while a record waits for its second call, an hour behind while it waits for its third."""
    clock = WallClock(tmp_path, [faketime, waits])
    waited_s = []

    with (
        MockKafka(topics={"waiting": 1, "in": PARTITIONS}) as kafka,
        Fleet(kafka.bootstrap_servers, "waiting", "waiting", tmp_path) as waiting,
        trial_beside(kafka, tmp_path) as trial,
    ):
        kafka.produce_raw("waiting", 0, b"k", f"later{RETRY_AFTER_S}".encode())
        with clock.of_new_processes():
            trial.fleet.start()
            waiting.start()
        waiting.wait(partial(has_said, waiting, 1), "the first call")
        for attempt, jump_s in ((2, HOUR_S), (3, -HOUR_S)):
            began_s = time.monotonic()
            trial.fleet.strike("clock jumps")
            clock.set(jump_s)
            waiting.wait(partial(has_said, waiting, attempt), f"call {attempt}")
            waited_s.append(time.monotonic() - began_s)
        verdict = trial.verdict()
        at_s = [said(waiting, attempt)[0] for attempt in (1, 2, 3)]

    assert at_s[1] - at_s[0] == pytest.approx(HOUR_S, abs=60)
    assert at_s[2] - at_s[1] == pytest.approx(-2 * HOUR_S, abs=60)
    assert waited_s == pytest.approx([RETRY_AFTER_S] * 2, abs=LATE_S)
    assert verdict.broken() == []
    assert verdict.repeats == 0
    longest_s = round(max(waited_s), 1)
    figures("F-3C", f"clock jumps by ±1 h in waits of {RETRY_AFTER_S} s", waited_s_max=longest_s, **verdict.figures())


def trial_beside(kafka: MockKafka, folder: Path) -> Trial:
    own = folder / "trial"
    own.mkdir()
    return Trial(
        kafka.bootstrap_servers,
        "in",
        "g",
        own,
        partitions=PARTITIONS,
        total=600,
        rate=200,
        deeds={"flaky": 0.1},
    )


def has_said(fleet: Fleet, attempt: int) -> bool:
    return bool(said(fleet, attempt))


def said(fleet: Fleet, attempt: int) -> list[float]:
    """When, by the worker's wall clock, a call with this number failed."""
    lines = [json.loads(line) for line in fleet.logs().splitlines() if line.startswith("{")]
    found = [datetime.fromisoformat(line["timestamp"]) for line in lines if line.get("attempt") == attempt]
    return [one.timestamp() for one in found]


def test_a_client_that_waits_for_an_hour_is_ended_by_the_watchdog(
    faketime: Path, mock_kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-3C. Where the clock goes back, waits of the client that are in progress end as much later."""
    clock = WallClock(tmp_path, [faketime])
    mock_kafka.create_topic("in", 1)

    with Fleet(mock_kafka.bootstrap_servers, "g", "in", tmp_path, options=SOON_EXPELLED) as fleet:
        mock_kafka.produce_raw("in", 0, b"k", b"before")
        with clock.of_new_processes():
            stuck = fleet.start()
        fleet.wait(lambda: len(fleet.effects()) == 1, "the first record")
        clock.set(HOUR_S)
        began_s = time.monotonic()
        code = stuck.wait(STALL_S + 10)
        ended_s = time.monotonic() - began_s
        mock_kafka.produce_raw("in", 0, b"k", b"after")
        heir = fleet.start()
        fleet.wait(lambda: {one.offset for one in fleet.effects()} == {0, 1}, "the second record")
        assert terminate(heir) == 0

    assert code == ExitCode.STALL, fleet.logs()
    figures("F-3C", f"stuck in the client, stall after {STALL_S} s", ended_s=round(ended_s, 1))
