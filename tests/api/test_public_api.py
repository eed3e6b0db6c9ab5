"""What users may import, and that each of it says what it is."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import streamworker
from streamworker.assembly import Application, assemble

ROOT = Path(__file__).parents[2]


def test_the_public_api_is_this_list_and_nothing_else() -> None:
    assert streamworker.__all__ == [
        "Action",
        "Adaptive",
        "AsyncReader",
        "Avro",
        "Batch",
        "BatchFailed",
        "BatchHandler",
        "Breaker",
        "Bulkhead",
        "BulkheadFull",
        "Bytes",
        "Cache",
        "CallKilled",
        "CircuitOpen",
        "Config",
        "ConfigurationError",
        "Context",
        "DeadLetter",
        "DecodeError",
        "Defer",
        "Delete",
        "Delivery",
        "Dependency",
        "DependencyUnavailable",
        "Ending",
        "Execution",
        "Fallback",
        "FatalError",
        "GroupProtocol",
        "Handler",
        "HandlerTimeout",
        "Headers",
        "HttpSink",
        "Idempotency",
        "Json",
        "KafkaRecord",
        "KafkaSink",
        "Listener",
        "LockBusy",
        "LockLost",
        "LockUnavailable",
        "OnExhausted",
        "Ordering",
        "Origin",
        "PoisonError",
        "PostgresSink",
        "Rate",
        "Read",
        "Reader",
        "Reading",
        "Record",
        "Records",
        "RedisSink",
        "Retry",
        "RetryBudget",
        "RetryTopic",
        "RetryableError",
        "Rule",
        "Serde",
        "Sink",
        "SinkHandler",
        "SqliteSink",
        "StreamworkerError",
        "Text",
        "TopicPartition",
        "TransitionRefused",
        "repair",
    ]


# What the pages and examples import from modules, because not everybody needs what these bring along.
FROM_MODULES = {
    "streamworker.assembly": {"assemble"},
    "streamworker.cache.two_level": {"CacheOptions"},
    "streamworker.config": {"Config", "HttpConfig", "KafkaConfig"},
    "streamworker.idempotency": {"Fence", "Hold", "Leader", "RedisLock", "Transitions"},
    "streamworker.redis_client": {"redis_client"},
    "streamworker.serde": {"Avro", "Text"},
    "streamworker.sinks.fences": {"held_fence"},
    "streamworker.sinks.http": {"HttpSink"},
    "streamworker.sinks.redis": {"RedisSink"},
    "streamworker.testing": {
        "FakeSink",
        "MemoryCacheServer",
        "TestRecord",
        "VirtualTime",
        "VirtualWorld",
        "run_handler",
    },
    "streamworker.testing.memory_claims": {"MemoryLock", "MemoryLocks"},
    "streamworker.testing.mock_kafka": {"MockKafka"},
}


def test_the_pages_import_nothing_else_from_modules() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    found: dict[str, set[str]] = {}
    for page in pages:
        for module, names in re.findall(
            r"^from (streamworker\.[\w.]+) import ([\w, ]+)", page.read_text("utf-8"), re.MULTILINE
        ):
            found.setdefault(module, set()).update(names.split(", "))

    assert found == FROM_MODULES


@pytest.mark.parametrize("module", FROM_MODULES)
def test_what_the_pages_import_says_what_it_is(module: str) -> None:
    assert all(getattr(importlib.import_module(module), name).__doc__ for name in FROM_MODULES[module])


def test_an_application_takes_and_does_what_the_page_says() -> None:
    assert str(inspect.signature(assemble)) == (
        "(config: 'Config', handlers: 'Sequence[type[Handler[object]] | type[BatchHandler[object]]]', *,"
        " until_end: 'bool' = False, max_records: 'int | None' = None, listeners: 'Sequence[Listener]' = ())"
        " -> 'Application'"
    )
    assert {"run", "stop", "switch", "take_credentials"} == {
        name for name in vars(Application) if not name.startswith("_")
    }


@pytest.mark.parametrize("name", streamworker.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    public = getattr(streamworker, name)

    assert inspect.isclass(public) or inspect.isfunction(public)
    # An enum and a dataclass get a docstring from Python if they have none of their own.
    assert public.__doc__
    assert not public.__doc__.startswith(f"{name}(")
    assert public.__doc__ != "An enumeration."


@pytest.mark.parametrize("name", streamworker.__all__)
def test_every_public_method_says_what_it_does(name: str) -> None:
    public = getattr(streamworker, name)

    silent = [
        method
        for method, member in vars(public).items()
        if not method.startswith("_")
        and callable(member)
        and not isinstance(member, type)
        and not inspect.getdoc(member)
    ]

    assert silent == []
