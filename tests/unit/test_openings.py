"""A handler whose `open` fails ends the worker, and the log says which handler and in which line."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from streamworker import Handler
from streamworker.clock import SystemClock
from streamworker.declaration import declaration
from streamworker.errors import ConfigurationError
from streamworker.handler import Context
from streamworker.options import Execution
from streamworker.processing.pools import Pools

if TYPE_CHECKING:
    from streamworker.scheduling.lane import LaneSlice


class Fails(Handler[bytes]):
    topics = ("in",)

    def open(self, context: Context) -> None:
        _ = context.app["dsn"]

    def handle(self, record: object) -> None: ...


class FailsInline(Fails):
    execution = Execution.INLINE


class FailsInAChild(Fails):
    execution = Execution.PROCESS


class FailsAsync(Handler[bytes]):
    topics = ("in",)

    async def open(self, context: Context) -> None:
        _ = context.app["dsn"]

    async def handle(self, record: object) -> None: ...


class Refuses(Fails):
    def open(self, context: Context) -> None:
        raise ConfigurationError("app.dsn is missing")


def pools_of(kind: type[Handler[bytes]]) -> Pools[LaneSlice]:
    context = Context(app={}, group="g", handler=kind.__name__)
    return Pools([declaration(kind)], [context], clock=SystemClock(), max_record_bytes=1000)


@pytest.mark.parametrize("kind", [Fails, FailsInline, FailsInAChild, FailsAsync])
def test_an_open_that_fails_is_logged_with_handler_and_line_and_raised(
    kind: type[Handler[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    pools = pools_of(kind)

    with pytest.raises(KeyError):
        pools.start()

    (line,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    function = FailsAsync.open if kind is FailsAsync else Fails.open
    assert line.getMessage() == "open failed"
    assert vars(line)["handler"] == kind.__name__
    assert (vars(line)["error_type"], vars(line)["error"]) == ("KeyError", "'dsn'")
    assert vars(line)["at"] == f"test_openings.py:{function.__code__.co_firstlineno + 1} in open"
    pools.stop(1.0)


def test_an_open_that_says_itself_what_is_wrong_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    pools = pools_of(Refuses)

    with pytest.raises(ConfigurationError):
        pools.start()

    assert caplog.records == []
    pools.stop(1.0)
