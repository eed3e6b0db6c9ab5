"""Transactions in memory: each takes a while, and then all of it is there or nothing."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, cast

from streamworker.transactions.transactor import Ended

if TYPE_CHECKING:
    from streamworker.testing.memory_broker import MemoryBroker
    from streamworker.testing.memory_source import MemorySource
    from streamworker.transactions.transactor import Transaction


class MemoryTransactor:
    """A `Transactor` into a broker's topics, which takes `latency_s` of virtual time for each."""

    def __init__(self, broker: MemoryBroker, *, latency_s: float = 0.005) -> None:
        self._time = broker.time
        self.latency_s = latency_s
        self.made = 0  # that ended with a commit
        self._ended: deque[Ended] = deque()
        self._closed = False

    def submit(self, transaction: Transaction) -> None:
        """As of `Transactor`."""
        self._time.call_in(self.latency_s, partial(self._end, transaction))

    def ended(self) -> Ended | None:
        """As of `Transactor`."""
        return self._ended.popleft() if self._ended else None

    def wait(self, timeout_s: float) -> None:
        """As of `Transactor`."""
        self._time.wait(timeout_s, lambda: bool(self._ended))

    def close(self, timeout_s: float) -> None:  # noqa: ARG002 - as of `Transactor`
        """As of `Transactor`."""
        self._closed = True

    def _end(self, transaction: Transaction) -> None:
        if self._closed:
            return
        source, generation = cast("tuple[MemorySource, int]", transaction.membership)
        error, refused = source.transact(transaction.outputs, transaction.marks, generation)
        self.made += error is None
        self._ended.append(Ended(transaction, error, refused))
