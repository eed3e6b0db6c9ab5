"""streamworker with its default settings; for calls that wait `KEY` with 64 threads, or 64 calls of one event loop."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, ClassVar

from benchmarks.pause import pause_s
from benchmarks.peers.task import Task, stopwatch
from streamworker import Handler, Ordering
from streamworker.assembly import assemble
from streamworker.config import Config, HttpConfig, KafkaConfig, LogConfig
from streamworker.observability import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Record

_task = Task.asked()
_handled = stopwatch(_task)


class Nothing(Handler[bytes]):
    """Does nothing with each record."""

    topics: ClassVar[Sequence[str]] = (_task.topic,)

    def handle(self, record: Record[bytes]) -> None:
        _handled()


class Waits(Nothing):
    """Waits as for a service, in key order."""

    ordering = Ordering.KEY
    concurrency = 64

    def handle(self, record: Record[bytes]) -> None:
        time.sleep(pause_s(record.offset))
        _handled()


class WaitsAsync(Waits):
    """The same as `async def`."""

    async def handle(self, record: Record[bytes]) -> None:  # type: ignore[override]  # one of the two kinds
        await asyncio.sleep(pause_s(record.offset))
        _handled()


def main() -> None:
    config = Config(
        kafka=KafkaConfig(bootstrap_servers=_task.bootstrap_servers, group=_task.group),
        http=HttpConfig(host="127.0.0.1", port=0),
        log=LogConfig(level="ERROR"),
    )
    logs.configure(config.log, sys.stderr)
    handler = {"nothing": Nothing, "waits": Waits, "waits, async": WaitsAsync}[_task.row]
    assemble(config, [handler]).run()


if __name__ == "__main__":
    main()
