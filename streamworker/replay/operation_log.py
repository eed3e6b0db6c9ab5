"""The topic of operations: writing to it, and reading on. Decides nothing; one thread at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.errors import ClientError, ConfigurationError
from streamworker.replay.operations import TOPIC, Operations
from streamworker.replay.shipping import insist_on
from streamworker.replay.states import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.cluster import Cluster
    from streamworker.record import Letter, TopicPartition
    from streamworker.replay.shipments import KafkaSender
    from streamworker.replay.topic_log import TopicLog


class OperationLog:
    """Reads through `log` and writes through `sender`; `read` reads what is new since it was called last."""

    def __init__(self, cluster: Cluster, log: TopicLog, timeout_s: float) -> None:
        self.known = Operations()
        self._cluster = cluster
        self._log = log
        self._timeout_s = timeout_s
        self._read_to: dict[TopicPartition, int] = {}

    def read(self) -> Operations:
        """All that was said so far; raises ClientError."""
        ranges = {}
        for partition in self._partitions():
            start, end = self._log.bounds(partition, self._timeout_s)
            ranges[partition] = (max(self._read_to.get(partition, 0), start), end)
        for batch in self._log.read(ranges, self._timeout_s):
            self.known.take((message.key(), message.value()) for message in batch)
        self._read_to.update((partition, end) for partition, (_, end) in ranges.items())
        return self.known

    def _partitions(self) -> Sequence[TopicPartition]:
        found = self._cluster.partitions(TOPIC, self._timeout_s)
        if not found:
            raise ConfigurationError(f"there is no topic {TOPIC!r}; `streamworker topics create` makes it")
        return found


def write(sender: KafkaSender, letter: Letter) -> None:
    """Write one record, and wait until the brokers have it; raises ClientError."""
    insist_on([letter.topic], sender)
    [answer] = sender.send([letter])
    if not isinstance(answer, Target):
        raise ClientError(f"{letter.topic}: {answer or 'no answer'}", code=answer or "_TIMED_OUT")
