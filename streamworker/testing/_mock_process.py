"""The process that a `MockKafka` runs in: answers its requests until its standard input closes.

Started as `python -m streamworker.testing._mock_process BROKERS`. One thread here; the brokers are
librdkafka's own threads. Standard output carries answers only.
"""

from __future__ import annotations

import os
import sys

import msgspec

from streamworker.testing._librdkafka import Cluster, Library, LibraryError, RawProducer
from streamworker.testing.mock_kafka import Answer, Call, Produce

Value = str | int | None


class _Server:
    def __init__(self, brokers: int) -> None:
        self._library = Library()
        self._cluster = Cluster(self._library, brokers)
        self.bootstrap_servers = self._cluster.bootstrap_servers
        self._producer: RawProducer | None = None

    def handle(self, request: Call | Produce) -> Value:
        match request:
            case Call(method, arguments):
                getattr(self._cluster, method)(*arguments)
                return None
            case Produce(topic, partition, key, value, headers):
                return self._raw_producer().produce(topic, partition, key, value, headers)

    def _raw_producer(self) -> RawProducer:
        """One for all records, made when the first comes: most tests produce with an ordinary client."""
        if self._producer is None:
            self._producer = RawProducer(self._library, self.bootstrap_servers)
        return self._producer


def serve(brokers: int) -> None:
    """Say where the brokers are, then answer line by line."""
    try:
        server = _Server(brokers)
    except LibraryError as error:
        _say(Answer(error=str(error)))
        return
    _say(Answer(server.bootstrap_servers))
    for line in sys.stdin.buffer:
        _say(_answer(server, line))


def _answer(server: _Server, line: bytes) -> Answer:
    try:
        return Answer(server.handle(msgspec.json.decode(line, type=Call | Produce)))
    except LibraryError as error:
        return Answer(error=str(error))


def _say(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
    # Not through librdkafka's destructors: they wait for brokers that a test has taken down or slowed.
    os._exit(0)
