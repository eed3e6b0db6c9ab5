"""The child process of a preview: calls a handler for a few records, and nothing that it returns is written.

Its sink is never opened, changes of caches are only noted, and nothing is claimed. It reads a `Job` from its
standard input and writes a line for each record; what the application prints goes nowhere. `previews.py` starts it, and
ends it. If that is not there any more, its alarm does.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import resource
import signal
import sys
from contextvars import copy_context
from dataclasses import dataclass
from importlib import import_module
from math import ceil
from operator import attrgetter
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from streamworker.cache.caches import BREAKER, Caches
from streamworker.clock import SystemClock
from streamworker.config import CacheConfig
from streamworker.declaration import declaration
from streamworker.handler import Context
from streamworker.options import Preview
from streamworker.processing.executor import guarded_call
from streamworker.record import Record, Records, TopicPartition
from streamworker.replay.previews import Job, Tried
from streamworker.resilience.breaker import CircuitBreaker
from streamworker.resilience.fallback import Degradation
from streamworker.resilience.gate import breakers_of
from streamworker.resilience.guard import guards_of
from streamworker.tally import GONE, Tally
from streamworker.work import InHand, Ownership, Slice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from streamworker.declaration import Declaration
    from streamworker.record import Header
    from streamworker.replay.previews import Sample

_MAX_CHARS = 1000  # of what is shown of an answer
_STANDARD_OUTPUT = 1


def main() -> None:
    """Answer one job."""
    answers = _own_output()
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    signal.alarm(ceil(job.timeout_s) + 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (job.memory_bytes, job.memory_bytes))
    with asyncio.Runner() as loop:
        for tried in _tried(job, loop):
            answers.write(msgspec.json.encode(tried) + b"\n")
            answers.flush()
        os._exit(0)  # what the application has started is not waited for


def _own_output() -> BinaryIO:
    """Where answers go; what anything prints from now on goes nowhere."""
    answers = os.fdopen(os.dup(_STANDARD_OUTPUT), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STANDARD_OUTPUT)
    return answers


def _tried(job: Job, loop: asyncio.Runner) -> Iterator[Tried]:
    """An answer for each record; what keeps the handler from being opened is the answer for all."""
    try:
        handler = _Opened(job, loop)
    except BaseException as error:  # noqa: BLE001 - where an exception of the application's becomes an answer
        yield from [_failed(error)] * len(job.samples)
        return
    for sample in job.samples:
        try:
            yield handler.tried(sample)
        except BaseException as error:  # noqa: BLE001 - likewise
            yield _failed(error)


def _failed(error: BaseException) -> Tried:
    return Tried(passed=False, told=f"it raised {type(error).__name__}", shown=_cut(str(error)))


def _cut(text: str) -> str:
    whole = text[:_MAX_CHARS].encode(errors="backslashreplace").decode()
    return whole if len(text) <= _MAX_CHARS else f"{whole} … ({len(text)} characters)"


class _Opened:
    """The handler's instance. It is opened if `handle` is to be called, and not for a method `preview`."""

    def __init__(self, job: Job, loop: asyncio.Runner) -> None:
        self._loop = loop
        self._declared = declared = declaration(attrgetter(job.qualified_name)(import_module(job.module)))
        self._handler = declared.make()
        self._in_hand = InHand("in_hand", default=None)
        if declared.preview is Preview.HANDLE:
            self._waited_for(self._handler.open(_context(declared, self._in_hand)))
            self._call = guarded_call(declared, self._handler)
        else:
            self._call = self._handler.preview  # type: ignore[assignment]  # the declaration says that it is a method

    def tried(self, sample: Sample) -> Tried:
        """Call it for one record; raises what that raises."""
        declared, message = self._declared, _Sent(sample)
        value: object = sample.value
        if declared.value is not None and sample.value is not None:
            value = declared.value.decode(sample.value, sample.topic)
        key: object = sample.key
        if declared.key is not None and sample.key is not None:
            key = declared.key.decode(sample.key, sample.topic)
        record = Record(message, 1, value, key)
        if declared.preview is not Preview.HANDLE:
            told = self._waited_for(self._call(record))
            return Tried(passed=True, told="it says", shown=_cut(told if isinstance(told, str) else repr(told)))
        is_batch = declared.batch is not None
        tally = self._take(message, is_batch=is_batch)
        returned = self._waited_for(self._call(Records([message], [value], [key], 1) if is_batch else record))
        told = "it returned" if declared.sink is None else f"it would write to {declared.sink.name}"
        changes = [f"{'drop' if one.value is GONE else 'put'} {one.key!r}" for one in tally.intents]
        cached = f"; in its caches it would {', '.join(changes)}" if changes else ""
        return Tried(passed=True, told=told, shown=_cut(f"{returned!r}{cached}"))

    def _take(self, message: _Sent, *, is_batch: bool) -> Tally:
        """What the call's changes of caches are noted in. They take place with a record's effect, and it has none."""
        slice_ = Slice(0, Ownership(TopicPartition(message.topic(), message.partition()), 0), [message], 1)
        slice_.tally = tally = Tally(is_batch=is_batch)
        self._in_hand.set(slice_)
        return tally

    def _waited_for(self, returned: object) -> object:
        return self._loop.run(_awaited(returned), context=copy_context()) if inspect.isawaitable(returned) else returned


async def _awaited(one: Awaitable[object]) -> object:
    return await one


def _context(declared: Declaration, in_hand: InHand) -> Context:
    """What it gets in `open`: no URL of a sink, no cluster, no table [app], and caches of this process alone."""
    clock = SystemClock()
    guards = guards_of(declared, breakers_of([declared], clock), clock)
    return Context(
        app={},
        group="",
        handler=declared.name,
        dependencies=guards,
        reads=Degradation([declared], {}).operations(declared, guards, clock),
        caches=Caches(CacheConfig(), app="preview", clock=clock, gate=CircuitBreaker(BREAKER, clock=clock)),
        in_hand=in_hand,
        timeout_s=declared.timeout_s,
        clock=clock,
    )


@dataclass(frozen=True, slots=True)
class _Sent:
    """A record as a `Message`."""

    sample: Sample

    def topic(self) -> str:
        """As of `Message`."""
        return self.sample.topic

    def partition(self) -> int:
        """As of `Message`."""
        return self.sample.partition

    def offset(self) -> int:
        """As of `Message`."""
        return self.sample.offset

    def key(self) -> bytes | None:
        """As of `Message`."""
        return self.sample.key

    def value(self) -> bytes | None:
        """As of `Message`."""
        return self.sample.value

    def timestamp(self) -> tuple[int, int]:
        """As of `Message`."""
        return (0, -1) if self.sample.timestamp_ms is None else (1, self.sample.timestamp_ms)

    def headers(self) -> list[Header] | None:
        """As of `Message`."""
        return list(self.sample.headers)

    def set_headers(self, headers: list[Header]) -> None:
        """Not called, because these can be read."""

    def __len__(self) -> int:
        return len(self.sample.value or b"")


if __name__ == "__main__":
    main()
