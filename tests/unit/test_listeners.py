"""Several listeners as one."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING

import pytest

from streamworker.events import EVENTS, Listener, Listeners
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Sequence

P0 = TopicPartition("t", 0)


class Hears(Listener):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.heard.append(f"assigned {len(partitions)}")

    def stalled(self, what: str, detail: str) -> None:
        self.heard.append(f"stalled {what}: {detail}")


class Fails(Listener):
    """Fails at every event that it listens to."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        raise ZeroDivisionError("of the listener")

    def stalled(self, what: str, detail: str) -> None:
        raise ZeroDivisionError("of the listener")


def test_every_listener_hears_every_event_that_it_asks_for() -> None:
    first, second = Hears(), Hears()
    both = Listeners([first, second])

    both.assigned([P0])
    both.stalled("loop", "nothing moves")
    both.mended(P0, "nobody listens to this")

    assert first.heard == second.heard == ["assigned 1", "stalled loop: nothing moves"]


def test_an_error_in_one_reaches_neither_the_others_nor_the_caller() -> None:
    hears = Hears()
    listeners = Listeners([Fails(), hears, Fails()])

    listeners.assigned([P0])

    assert hears.heard == ["assigned 1"]


def test_an_error_is_logged_once_per_event(caplog: pytest.LogCaptureFixture) -> None:
    listeners = Listeners([Fails()])

    for _ in range(3):
        listeners.assigned([P0])
        listeners.stalled("loop", "")

    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (logging.ERROR, "listener Fails.assigned failed; said once"),
        (logging.ERROR, "listener Fails.stalled failed; said once"),
    ]
    assert caplog.records[0].exc_info is not None


def test_what_is_meant_to_end_the_process_does() -> None:
    class Leaves(Listener):
        def assigned(self, partitions: Sequence[TopicPartition]) -> None:
            raise SystemExit

    with pytest.raises(SystemExit):
        Listeners([Leaves()]).assigned([P0])


def test_nobody_listening_costs_nothing() -> None:
    Listeners([]).assigned([P0])


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_an_empty_method_that_says_when_it_comes(event: str) -> None:
    method = getattr(Listener, event)
    arguments = [None] * (len(inspect.signature(method).parameters) - 1)

    assert inspect.getdoc(method)
    assert getattr(Listener(), event)(*arguments) is None


def test_listeners_can_be_nested() -> None:
    hears = Hears()

    Listeners([Listeners([hears])]).assigned([P0])

    assert hears.heard == ["assigned 1"]
