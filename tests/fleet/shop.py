"""A topic with a group and a handler that refuses some of its records, and what stands beside its dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.testing import CliRunner
from fleet.in_process import Running, config

from streamworker import DeadLetter, Handler, PoisonError
from streamworker.cli.main import main

if TYPE_CHECKING:
    from servers.kafka import SharedKafka

    from streamworker import Record

WRONG = '{"state": 1}'
RIGHT = '{"state": "paid"}'


class Shop:
    """`handled` has the value of each record that was handled, and the topic where it was first."""

    def __init__(self, kafka: SharedKafka) -> None:
        self.servers = kafka.bootstrap_servers
        self.topic = topic = kafka.topic("orders", partitions=2)
        self.group = kafka.group("shop")
        self.letters = letters = kafka.dead_letters(self.topic)
        kafka.replays(self.topic, self.group, partitions=2)
        where = ["--bootstrap-servers", self.servers]
        made = CliRunner().invoke(main, ["topics", "create", "--dead-letters", letters, *where])
        assert made.exit_code == 0, made.output
        self.handled: list[tuple[str, str | None]] = []
        handled = self.handled

        class Store(Handler[bytes]):
            topics = (topic,)
            dead_letter = DeadLetter(letters)

            def handle(self, record: Record[bytes]) -> None:
                if record.value == WRONG.encode():
                    raise PoisonError("state is a number")
                handled.append((record.value.decode(), record.origin.topic))

        self.handler = Store

    def working(self) -> Running:
        """A worker of the group, in this process."""
        return Running(config(self.servers, self.group), self.handler)
