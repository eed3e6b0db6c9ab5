"""What FastStream is given on either client: the handlers, and an `ack` once a second, since each is a commit.

Nothing is injected into the handlers: the injection of a message costs a change of thread for each record.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from faststream import AckPolicy, FastStream

from benchmarks.pause import pause_s
from benchmarks.peers.task import COMMIT_EVERY_S, stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from benchmarks.peers.task import Task

AT_ONCE = {"nothing, batch": 500, "waits, batch": 10_000}  # records of a batch; the latter is the window by hand
_CALLS = 64


async def undecoded(message: Any) -> object:
    """The bytes of the value. Otherwise each would be parsed as JSON."""
    return message.body


def run(
    broker: Any, task: Task, options: Mapping[str, object], key: Callable[[Any], bytes], offset: Callable[[Any], int]
) -> None:
    """Subscribe with `options` and run; `key` and `offset` read a record of the client."""
    handlers = Handlers(broker, stopwatch(task), key, offset)
    subscriber = broker.subscriber(
        task.topic, group_id=task.group, auto_offset_reset="earliest", ack_policy=AckPolicy.MANUAL, **options
    )
    subscriber(
        {
            "nothing": handlers.one_and_nothing,
            "nothing, batch": handlers.many_and_nothing,
            "waits": handlers.one_that_waits,
            "waits, batch": handlers.many_that_wait,
        }[task.row]
    )
    asyncio.run(FastStream(broker, logger=None).run())


class Handlers:
    """One handler for each row. Belongs to one event loop."""

    def __init__(
        self, broker: Any, handled: Callable[[], None], key: Callable[[Any], bytes], offset: Callable[[Any], int]
    ) -> None:
        self._broker = broker
        self._handled = handled
        self._key = key
        self._offset = offset
        self._calls = asyncio.Semaphore(_CALLS)
        self._acknowledged_s: dict[object, float] = {}  # by consumer, of which there may be several

    async def one_and_nothing(self, _value: bytes) -> None:
        self._handled()
        await self._acknowledge()

    async def many_and_nothing(self, values: list[bytes]) -> None:
        for _value in values:
            self._handled()
        await self._acknowledge()

    async def one_that_waits(self, _value: bytes) -> None:
        await self._wait([self._broker.context.get("message").raw_message])
        await self._acknowledge()

    async def many_that_wait(self, _values: list[bytes]) -> None:
        of_key: defaultdict[bytes, list[Any]] = defaultdict(list)
        for record in self._broker.context.get("message").raw_message:
            of_key[self._key(record)].append(record)
        await asyncio.gather(*map(self._wait, of_key.values()))
        await self._acknowledge()

    async def _wait(self, records: Iterable[Any]) -> None:
        for record in records:
            async with self._calls:
                await asyncio.sleep(pause_s(self._offset(record)))
            self._handled()

    async def _acknowledge(self) -> None:
        message, now_s = self._broker.context.get("message"), time.perf_counter()
        if now_s > self._acknowledged_s.setdefault(message.consumer, now_s) + COMMIT_EVERY_S:
            self._acknowledged_s[message.consumer] = now_s
            await message.ack()
