"""A mock cluster that clients reach through proxies only, one before each broker.

Decided here: who is told which address. Clients start at the proxies, and the brokers advertise them.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from servers.proxy import FaultProxy

from streamworker.testing.mock_kafka import MockKafka

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOST = "127.0.0.1"


class ProxiedMock:
    """Runs from construction to the end of the `with` block. `topics` maps names to partition counts.

    `kafka.produce_raw` goes through the proxies as well, since the cluster's own producer is told the same addresses.
    """

    def __init__(self, brokers: int = 1, topics: Mapping[str, int] | None = None) -> None:
        with ExitStack() as made:
            self.kafka = made.enter_context(MockKafka(brokers, topics))
            self.proxies: Mapping[int, FaultProxy] = {
                broker: made.enter_context(FaultProxy(_HOST, self.kafka.broker_port(broker)))
                for broker in range(1, brokers + 1)
            }
            for broker, proxy in self.proxies.items():
                self.kafka.advertise(broker, _HOST, proxy.port)
            self._made = made.pop_all()

    @property
    def bootstrap_servers(self) -> str:
        """The proxies' addresses."""
        return ",".join(f"{_HOST}:{proxy.port}" for proxy in self.proxies.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()
