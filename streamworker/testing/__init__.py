"""The test kit for handlers and workers.

`run_handler` is the short way: records in, what became of them out. `VirtualWorld` runs whole workers over a
`MemoryBroker` in `VirtualTime`; `MockKafka` is a mock cluster for a real client. `FakeSink` is a sink that can be away.
Each is imported when it is first asked for, since this package is imported by every test run that has the fixtures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamworker.testing.fake_sink import FakeSink
    from streamworker.testing.handler_run import HandlerRun, TestRecord, run_handler
    from streamworker.testing.memory_broker import MemoryBroker
    from streamworker.testing.memory_cache import MemoryCacheServer
    from streamworker.testing.mock_kafka import MockKafka
    from streamworker.testing.virtual_time import VirtualTime
    from streamworker.testing.virtual_world import VirtualWorld

__all__ = [
    "FakeSink",
    "HandlerRun",
    "MemoryBroker",
    "MemoryCacheServer",
    "MockKafka",
    "TestRecord",
    "VirtualTime",
    "VirtualWorld",
    "run_handler",
]

_HOMES = {
    "FakeSink": "fake_sink",
    "HandlerRun": "handler_run",
    "MemoryBroker": "memory_broker",
    "MemoryCacheServer": "memory_cache",
    "MockKafka": "mock_kafka",
    "TestRecord": "handler_run",
    "VirtualTime": "virtual_time",
    "VirtualWorld": "virtual_world",
    "run_handler": "handler_run",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
