"""One target, searched for as long as wanted in a process of its own.

The process may crash or hang: it writes down each input before it is checked, so that the parent knows which one it
was. Decided here: what counts as a finding. What is printed of it is `__main__.py`'s business.
"""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import os
import random
import resource
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hypothesis
from fuzz.target import explore

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from multiprocessing.sharedctypes import Synchronized
    from pathlib import Path

    from fuzz.target import Target

HANG_S = 20.0  # of one input; what takes long in proportion to its size is found by the checks themselves
_START_S = 120.0  # to import everything, on a machine that is busy
_MEMORY_BYTES = 8 * 2**30  # a bomb that goes off must not take the machine with it
_BATCH = 1000  # hypothesis remembers all that it has tried in one run
_POLL_S = 0.2
_LIMITS = hypothesis.settings(
    max_examples=_BATCH,
    database=None,
    deadline=None,
    derandomize=False,
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
)


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that shows a bug: what happened, and the file that holds the input as a Python literal."""

    what: str
    case_file: Path


@dataclass(frozen=True, slots=True)
class Search:
    """What came of searching one target; `finding` is the smallest failing input if there was one."""

    examples: int
    finding: Finding | None


class _TimeIsUp(BaseException):
    """Ends a run of hypothesis, which would take an `Exception` for a failing input."""


def search(
    name: str,
    seconds: float,
    folder: Path,
    on_progress: Callable[[int], None] = lambda _examples: None,
    *,
    catalogue: str = "fuzz.targets",
    hang_s: float = HANG_S,
) -> Search:
    """Search until `seconds` are over or something is found; `on_progress` gets the number of inputs so far.

    `catalogue` is the module whose TARGETS have the target `name`; the child imports it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    case_file, report_file = folder / f"{name}.case", folder / f"{name}.report"
    report_file.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    examples = context.Value("Q", 0)
    child = context.Process(
        target=_search_here, args=(catalogue, name, seconds, case_file, report_file, examples), name=f"fuzz-{name}"
    )
    child.start()
    what = _watch(child, examples, on_progress, hang_s) or _what_ended(child, report_file)
    return Search(examples.value, None if what is None else Finding(what, case_file))


def _watch(
    child: BaseProcess, examples: Synchronized[int], on_progress: Callable[[int], None], hang_s: float
) -> str | None:
    """Wait for the end of `child`; what was wrong if it had to be killed."""
    seen, since_s = 0, time.monotonic()
    while child.is_alive():
        child.join(_POLL_S)
        patience_s = hang_s if seen else _START_S
        if examples.value != seen:
            seen, since_s = examples.value, time.monotonic()
            on_progress(seen)
        elif time.monotonic() - since_s > patience_s:
            child.kill()
            child.join()
            return f"one input took more than {hang_s:g} s" if seen else f"no input within {_START_S:g} s"
    return None


def _what_ended(child: BaseProcess, report_file: Path) -> str | None:
    if report_file.exists():
        return report_file.read_text(encoding="utf-8")
    return f"the process ended with exit code {child.exitcode}" if child.exitcode else None


def _search_here(
    catalogue: str, name: str, seconds: float, case_file: Path, report_file: Path, examples: Synchronized[int]
) -> None:
    """Runs in the child, whose last input is in `case_file` when it ends without a word."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    target: Target = importlib.import_module(catalogue).TARGETS[name]
    with case_file.open("wb", buffering=0) as journal, suppress(_TimeIsUp):
        watched = _Watched(target, journal.fileno(), examples, time.monotonic() + seconds)
        try:
            while True:
                explore(dataclasses.replace(target, check=watched.check), _LIMITS, random.getrandbits(64))
        except Exception:  # noqa: BLE001 - whatever a check raises is the finding
            report_file.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")


class _Watched:
    """The check of a target that leaves a trace of each input, and ends the search in time. In the child."""

    def __init__(self, target: Target, journal: int, examples: Synchronized[int], deadline_s: float) -> None:
        self._target = target
        self._journal = journal
        self._examples = examples
        self._deadline_s = deadline_s
        self._failed = False

    def check(self, case: object) -> None:
        if time.monotonic() > self._deadline_s and not self._failed:  # a failing input is made small first
            raise _TimeIsUp
        self._note(case)
        try:
            self._target.check(case)
        except Exception:
            self._failed = True
            raise

    def _note(self, case: object) -> None:
        text = ascii(case).encode()
        os.pwrite(self._journal, text, 0)
        os.ftruncate(self._journal, len(text))
        self._examples.value += 1
