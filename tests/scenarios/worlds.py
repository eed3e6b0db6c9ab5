"""Small worlds and obedient handlers for the scenarios: each test says only what is particular to it."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar

from streamworker import BatchHandler, DeadLetter, Handler, PoisonError, Retry, TopicPartition
from streamworker.config import Config, KafkaConfig
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker import Record, Records
    from streamworker.config import CommitConfig, DeadLetterConfig, FlowConfig, LifecycleConfig
    from streamworker.testing.memory_broker import CommitEntry
    from streamworker.work import Slice

_DEFAULT = Config()

IN = TopicPartition("in", 0)
OTHER = TopicPartition("in", 1)


def make_world(
    partitions: int = 1,
    *,
    letters: int = 1,
    start: str = "earliest",
    commit: CommitConfig = _DEFAULT.commit,
    flow: FlowConfig = _DEFAULT.flow,
    lifecycle: LifecycleConfig = _DEFAULT.lifecycle,
    dead_letters: DeadLetterConfig = _DEFAULT.dead_letters,
) -> VirtualWorld:
    """A world with topics `in` and `dlq`, and the parked keys beside it."""
    kafka = KafkaConfig(group="test", start=start)
    config = Config(kafka=kafka, commit=commit, flow=flow, lifecycle=lifecycle, dead_letters=dead_letters)
    return VirtualWorld({"in": partitions, "dlq": letters, "dlq.keys": 1}, config=config)


def obey(record: Record[bytes]) -> None:
    """Do what the value says: `poison`, `broken` (fails always), `flaky:N` (fails N times), anything else is fine."""
    word, _, times = (record.value or b"").partition(b":")
    if word == b"poison":
        raise PoisonError("a bad record")
    if word == b"broken" or (word == b"flaky" and record.attempt <= int(times)):
        raise ConnectionError("nobody there")


class Obedient(Handler[bytes]):
    """Does what each record says."""

    topics: ClassVar[Sequence[str]] = ("in",)
    dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq")
    retry = Retry(attempts=4, base_s=0.1, cap_s=2.0)
    concurrency = 4

    def handle(self, record: Record[bytes]) -> None:
        obey(record)


class ObedientBatches(BatchHandler[bytes]):
    """Does what each record of a batch says, and does not say which one failed."""

    topics = ("in",)
    dead_letter = DeadLetter("dlq")
    retry = Retry(attempts=2, base_s=0.1, cap_s=2.0)

    def handle(self, records: Records[bytes]) -> None:
        for record in records:
            obey(record)


def steady(seconds: float) -> Callable[[Slice], float]:
    """Each record takes `seconds`."""
    return lambda slice_: seconds * len(slice_.messages)


def produce(world: VirtualWorld, *values: bytes | None, partition: int = 0, key: bytes | None = None) -> None:
    """Append `values` to topic `in`."""
    for value in values:
        world.broker.produce("in", partition, value, key=key)


def calls(world: VirtualWorld, partition: TopicPartition = IN) -> list[int]:
    """Offsets in the order in which the handlers were called with them, whatever came of it."""
    return [effect.offset for effect in world.effects if effect.partition == partition]


def handled(world: VirtualWorld, partition: TopicPartition = IN) -> list[int]:
    """Offsets in the order in which they were handled."""
    return [effect.offset for effect in world.effects if effect.partition == partition and effect.ok]


def commits(world: VirtualWorld, partition: TopicPartition = IN) -> list[int]:
    """Offsets that the broker took, in order, without commits that only renewed what is beside the offset."""
    return [entry.mark.offset for entry in moving_commits(world, partition)]


def moving_commits(world: VirtualWorld, partition: TopicPartition = IN) -> list[CommitEntry]:
    """Commits of workers that moved the group's offset, in order."""
    broker, offset = world.broker, 0
    moving: list[CommitEntry] = []
    for entry in sorted((*broker.moves, *broker.commits), key=attrgetter("at_s")):
        if entry.partition == partition and entry.mark.offset != offset:
            offset = entry.mark.offset
            moving.append(entry)
    return [entry for entry in moving if entry not in broker.moves]


def letters_from(world: VirtualWorld) -> list[bytes | None]:
    """Values of the dead letters."""
    return [letter.value() for letter in world.broker.records("dlq")]


def headers_of(world: VirtualWorld, number: int) -> dict[str, str]:
    """Headers of dead letter `number` as text; of equal names the last."""
    headers = world.broker.records("dlq")[number].headers() or []
    return {name: (value or b"").decode() for name, value in headers}
