"""What sends dead letters again, over a client in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from streamworker.record import Letter
from streamworker.replay.shipments import KafkaSender
from streamworker.replay.states import Target
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Producer


class Answering:
    """A producer that acknowledges what it has at the poll after `unheard` others; `polled` has their timeouts."""

    def __init__(self, unheard: int) -> None:
        self.polled: list[float] = []
        self._unheard = unheard
        self._sent: list[Callable[[None, object], None]] = []

    def produce(self, _topic: str, *, on_delivery: Callable[[None, object], None], **_: object) -> None:
        self._sent.append(on_delivery)

    def poll(self, timeout_s: float) -> None:
        self.polled.append(timeout_s)
        if len(self.polled) > self._unheard:
            for offset, answered in enumerate(self._sent):
                answered(None, SimpleNamespace(partition=lambda: 0, offset=lambda offset=offset: offset))
            self._sent = []

    def __len__(self) -> int:
        return len(self._sent)


def test_while_answers_are_waited_for_other_work_is_done_and_then_only_they_are_waited_for() -> None:
    producer, left = Answering(unheard=3), [1, 2]

    def meanwhile() -> bool:
        return bool(left) and left.pop() > 0

    sender = KafkaSender(
        {},
        clock=VirtualTime(),
        timeout_s=5.0,
        make_producer=lambda _settings, **_: cast("Producer", producer),  # type: ignore[arg-type]  # as the client's
        meanwhile=meanwhile,
    )

    answers = sender.send([Letter("replays", 0, None, b"v", (), 0)] * 2)

    assert answers == [Target("replays", 0, 0), Target("replays", 0, 1)]
    assert [timeout_s > 0 for timeout_s in producer.polled] == [False, False, True, True]
