"""Calls of the desk on threads of their own, so many at once and no more, each for so long and no longer.

Decides nothing. The event loop asks; a call that is given up goes on until it ends by itself and keeps its thread.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from streamworker.daemon_threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Busy(Exception):
    """As many calls wait as may."""


class Readers:
    """At most `most` calls at once; `waiting` more have to wait."""

    def __init__(self, most: int, waiting: int) -> None:
        self._threads = DaemonThreads(most, name="streamworker-console")
        self._room = most + waiting

    async def ask(self, call: Callable[[], T], timeout_s: float) -> T:
        """What `call` returns or raises; raises Busy, and TimeoutError."""
        if self._room <= 0:
            raise Busy
        self._room -= 1
        loop = asyncio.get_running_loop()
        future = self._threads.submit(call)
        future.add_done_callback(lambda _: self._ended(loop))
        return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)

    def close(self) -> None:
        """Calls that have not begun are cancelled; nobody waits for the others."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._make_room)

    def _make_room(self) -> None:
        self._room += 1
