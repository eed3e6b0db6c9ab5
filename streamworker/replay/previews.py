"""What a handler would make of a letter before it is sent: the steps of a preview.

Decided here: what is said of each step. Decoding is tried in this process. Code of the handler is called in a child
process (`preview_child.py`) that has an environment of its own, no configuration, a few seconds and little memory: a
letter may make it loop, and a console has secrets. Any thread; `try_letters` blocks until the child has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence  # noqa: TC003 - msgspec reads the annotations
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from streamworker.errors import DependencyUnavailable
from streamworker.options import Preview
from streamworker.record import Header  # noqa: TC001 - likewise
from streamworker.replay.desk import Step

if TYPE_CHECKING:
    from streamworker.declaration import Declaration
    from streamworker.replay.dead_record import DeadRecord

TIMEOUT_S = 5.0  # of a child, from its start on, for all its letters
MEMORY_BYTES = 256 * 1024 * 1024  # of its address space
_DYING_S = 1.0  # one that was killed is gone within milliseconds
_CUT = "the process ended with the letter before it"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it would be delivered, from where it was first."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    timestamp_ms: int | None


class Job(msgspec.Struct, frozen=True):
    """What a child is told: the handler's class by its names, and the records to try it with."""

    module: str
    qualified_name: str
    samples: Sequence[Sample]
    timeout_s: float
    memory_bytes: int = MEMORY_BYTES


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one record, as of `Step`. `shown` is what was found, which may hold parts of the record."""

    passed: bool | None
    told: str
    shown: str = ""


def sample_of(letter: DeadRecord, value: bytes | None) -> Sample:
    """The record that would be sent of `letter` with `value`."""
    origin = letter.origin
    return Sample(
        topic=letter.topic if origin is None else origin.topic,
        partition=letter.id.partition if origin is None else origin.partition,
        offset=letter.id.offset if origin is None else origin.offset,
        key=letter.key,
        value=value,
        headers=list(letter.own_headers),
        timestamp_ms=letter.origin_timestamp_ms,
    )


def decoding(declared: Declaration | None, sample: Sample) -> Tried:
    """Whether the handler's serde reads the value, and as what."""
    if declared is None:
        return Tried(passed=None, told="schema unknown, sent as it is: no handler is known that takes it")
    if sample.value is None:
        return Tried(passed=True, told="it has no value: the handler gets None")
    if declared.value is None:
        return Tried(passed=True, told=f"{declared.name} takes the bytes as they are")
    try:
        found = declared.value.decode(sample.value, sample.topic)
    except DependencyUnavailable as error:
        return Tried(passed=None, told="not tried", shown=str(error))
    except Exception as error:  # noqa: BLE001 - any error of a serde says that the bytes do not fit
        return Tried(
            passed=False, told=f"it does not fit the type of {declared.name}: {type(error).__name__}", shown=str(error)
        )
    return Tried(passed=True, told=f"it fits the type of {declared.name}: {type(found).__name__}")


def steps(declared: Declaration | None, decoded: Tried, tried: Tried | None, *, hidden: bool) -> Sequence[Step]:
    """The steps in words, `tried` being what the child said; `hidden` leaves out what may hold parts of the record."""
    found = [_step("decode", decoded, hidden=hidden)]
    if declared is None:
        return found
    untried = "not tried: it does not fit its type" if decoded.passed is False else "not tried"
    for name, kind, how in (
        ("preview", Preview.METHOD, "def preview(self, record)"),
        ("handle", Preview.HANDLE, 'preview = "handle"'),
    ):
        if declared.preview is not kind:
            found.append(Step(name, None, f"not tried: {declared.name} has no {how}"))
        else:
            found.append(_step(name, tried or Tried(passed=None, told=untried), hidden=hidden))
    return found


def _step(name: str, tried: Tried, *, hidden: bool) -> Step:
    if not tried.shown:
        return Step(name, tried.passed, tried.told)
    shown = "not shown, because some of its value is masked" if hidden else tried.shown
    return Step(name, tried.passed, f"{tried.told}: {shown}")


def try_letters(declared: Declaration, samples: Sequence[Sample], *, timeout_s: float = TIMEOUT_S) -> Sequence[Tried]:
    """What the handler's preview says of each, in a child process that is gone when this returns."""
    kind = declared.make
    job = Job(kind.__module__, kind.__qualname__, samples, timeout_s)
    # Nothing of this process's environment: not even what is there by accident.
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",  # each thread's arena would take a quarter of the address space
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "streamworker.replay.preview_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    late = False
    try:
        answers, _ = process.communicate(msgspec.json.encode(job), timeout_s)
    except subprocess.TimeoutExpired:
        late = True
        _kill(process)
        answers = _left_behind(process)
    finally:
        _kill(process)
    ended = (
        f"it did not end within {timeout_s:g} s" if late else f"it ended its process (exit code {process.returncode})"
    )
    return complete(answers, len(samples), ended)


def _left_behind(process: subprocess.Popen[bytes]) -> bytes:
    """What it wrote before it was killed, also where something that has left its session keeps the pipe open."""
    try:
        return process.communicate(timeout=_DYING_S)[0]
    except subprocess.TimeoutExpired as expired:
        return expired.output or b""


def complete(answers: bytes, count: int, ended: str) -> Sequence[Tried]:
    """An answer for each of `count` letters, of the lines that a child wrote until it `ended`."""
    whole = [line for line in answers.splitlines(keepends=True) if line.endswith(b"\n")]
    found = [msgspec.json.decode(line, type=Tried) for line in islice(whole, count)]
    if len(found) < count:
        found.append(Tried(passed=False, told=ended))
    return found + [Tried(passed=None, told=f"not tried: {_CUT}")] * (count - len(found))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started, which is of its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
