"""What a test needs and this machine lacks: a skip, or a failure in CI, where nobody reads of skips."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn, TypeVar

import pytest
from servers.kafka_jars import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

Server = TypeVar("Server")

IN_CI = os.environ.get("CI") == "true"


def unavailable(reason: str, *, asked_for: bool = False) -> NoReturn:
    """Skip the test, or fail it in CI and where what is missing was asked for."""
    if asked_for or IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def obtained(start: Callable[[], Server], *, asked_for: bool = False) -> Server:
    """What `start` returns; a failure, too, if a server that was asked for is unavailable."""
    try:
        return start()
    except ServerUnavailable as error:
        reason = str(error)
    unavailable(reason, asked_for=asked_for)
