"""What users may import, and that each of it says what it is."""

from __future__ import annotations

import inspect

import pytest

import streamworker


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
        "CallKilled",
        "CircuitOpen",
        "Config",
        "ConfigurationError",
        "Context",
        "DeadLetter",
        "DecodeError",
        "Defer",
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
        "Json",
        "Listener",
        "OnExhausted",
        "Ordering",
        "Origin",
        "PoisonError",
        "Rate",
        "Read",
        "Reader",
        "Reading",
        "Record",
        "Records",
        "Retry",
        "RetryBudget",
        "RetryTopic",
        "RetryableError",
        "Rule",
        "Serde",
        "StreamworkerError",
        "Text",
        "TopicPartition",
    ]


@pytest.mark.parametrize("name", streamworker.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    public = getattr(streamworker, name)

    assert inspect.isclass(public)
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
