"""What the clients log: once in a while for each kind of line, and never in the way of a poll."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from streamworker.client_log import ClientLogger

if TYPE_CHECKING:
    from collections.abc import Sequence

REFUSED = (
    "[thrd:{broker}/bootstrap]: {broker}/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused"
    " (after {ms}ms in state CONNECT, {more} identical error(s) suppressed)"
)


class World:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "librdkafka")
        self._caplog = caplog
        self.now_s = 0.0
        self.logger = ClientLogger(lambda: self.now_s)

    def says(self, text: str, kind: str = "FAIL", level: int = logging.ERROR) -> None:
        """As the client does."""
        self.logger.log(level, "%s [%s] %s", kind, "streamworker#consumer-1", text)

    def lines(self) -> Sequence[str]:
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> World:
    return World(caplog)


def test_lines_of_a_kind_are_said_once_in_30_s_and_then_counted(world: World) -> None:
    for second in range(30):
        world.now_s = second
        world.says(REFUSED.format(broker="localhost:9092", ms=second, more=second * 7))
    assert len(world.lines()) == 1

    world.now_s = 30.0
    world.says(REFUSED.format(broker="localhost:9092", ms=3, more=1))

    first, second_line = world.lines()
    assert first.startswith("FAIL [streamworker#consumer-1] [thrd:localhost:9092/bootstrap]")
    assert first.endswith("suppressed)")
    assert second_line.endswith("suppressed) (and 29 like it in 30 s)")


def test_other_brokers_other_kinds_and_other_reasons_are_said_beside_it(world: World) -> None:
    world.says(REFUSED.format(broker="kafka-1:9092", ms=1, more=1))
    world.says(REFUSED.format(broker="kafka-2:9092", ms=1, more=1))
    world.says(REFUSED.format(broker="kafka-1:9092", ms=1, more=1), kind="ERROR")
    world.says("[thrd:kafka-1:9092/bootstrap]: kafka-1:9092/bootstrap: SASL authentication failed (after 5ms)")

    assert len(world.lines()) == 4


def test_debug_lines_are_all_said(world: World) -> None:
    for _ in range(3):
        world.says("[thrd:main]: Sent MetadataRequest", kind="SEND", level=logging.DEBUG)

    assert len(world.lines()) == 3


def test_it_remembers_only_so_many_kinds(world: World) -> None:
    for number in range(10_000):
        world.says(f"[thrd:main]: {chr(97 + number % 26) * (number // 26 + 1)}")

    assert len(world.lines()) < 300


def test_a_log_handler_that_raises_does_not_reach_the_client() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError

    logging.getLogger("librdkafka").addHandler(broken := Broken())
    try:
        ClientLogger().log(logging.ERROR, "%s [%s] %s", "FAIL", "x", "y")
    finally:
        logging.getLogger("librdkafka").removeHandler(broken)
