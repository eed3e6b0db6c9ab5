"""Dead letters that workers of a world have written, and the process of a command that handles them there."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamworker.declaration import declaration
from streamworker.idempotency.provision import slice_claims
from streamworker.idempotency.watchdog import LeaseExtender
from streamworker.record import Letter, TopicPartition
from streamworker.replay import families
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.audit import Note
from streamworker.replay.desk import Actor, Role
from streamworker.replay.handled_states import HandledStates
from streamworker.replay.in_process import Around, Engine, InProcess
from streamworker.replay.states import State, decode, letter_of, state_topic
from streamworker.resilience.provision import Provision
from streamworker.testing.memory_claims import VirtualRounds
from streamworker.testing.memory_clients import MemoryLog
from streamworker.testing.memory_shipments import MemoryShipmentCluster, memory_shipping
from streamworker.testing.virtual_executor import VirtualExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker import BatchHandler, Handler
    from streamworker.declaration import Declaration
    from streamworker.idempotency.slices import SliceClaims
    from streamworker.replay.dead_record import DeadRecord, LetterId
    from streamworker.replay.states import Disposition
    from streamworker.scheduling.lane import LaneSlice
    from streamworker.testing.virtual_world import VirtualWorld
    from streamworker.work import Slice

ME = Actor("me@here", Role.ADMIN, "cli", verified=False)


class Desk:
    """The dead letters of topic `dlq` of a world, and what is said of them."""

    def __init__(self, world: VirtualWorld, topic: str = "dlq") -> None:
        self.world = world
        self.topic = topic
        self.told: list[str] = []
        self.advanced: list[int] = []
        partitions = len(world.broker.partitions(topic))
        self.cluster = MemoryShipmentCluster({topic: partitions, state_topic(topic): partitions, AUDIT_TOPIC: 1})
        for letter in self.letters():
            self.cluster.write(Letter(topic, letter.id.partition, None, b"", [], 0))
        self._processes = 0

    def letters(self) -> list[DeadRecord]:
        """All of them."""
        return [families.read(self.topic, message) for message in self.world.broker.records(self.topic)]

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        """Those of these that there are."""
        wanted = set(ids)
        yield from (letter for letter in self.letters() if letter.id in wanted)

    def said(self) -> Mapping[LetterId, Disposition]:
        """What the state topic says, believed or not."""
        found: dict[LetterId, Disposition] = {}
        for partition in self.world.broker.partitions(self.topic):
            for record in self.cluster.read(TopicPartition(state_topic(self.topic), partition.partition)):
                letter = letter_of(record.key)
                said = None if record.value is None else decode(record.value)
                assert letter is not None
                assert said is not None
                found[letter] = said
        return found

    def states(self) -> list[State]:
        """Of each letter, in order."""
        said = self.said()
        return [said[one.id].state if one.id in said else State.PENDING for one in self.letters()]

    def pending(self) -> list[LetterId]:
        """Letters of which nothing is said."""
        said = self.said()
        return [one.id for one in self.letters() if one.id not in said]

    def process(
        self,
        handler: type[Handler[bytes]] | type[BatchHandler[bytes]],
        ids: Sequence[LetterId] | None = None,
        *,
        duplicates: Mapping[LetterId, LetterId] | None = None,
        duration_s: Callable[[Slice], float] = lambda slice_: 0.001 * len(slice_.messages),
        topic_id: str | None = "id",
    ) -> InProcess:
        """A process that is to handle these, by itself all that are pending."""
        self._processes += 1
        world, time = self.world, self.world.time
        writer = f"process-{self._processes}"
        shippings = {
            one.partition: memory_shipping(self.cluster, one, writer=f"{writer}-{one.partition}", clock=time)
            for one in world.broker.partitions(self.topic)
        }
        states = HandledStates(
            op_id=writer,
            actor=ME.name,
            topic_id=topic_id,
            duplicates=duplicates or {},
            letters=self,
            shipping=shippings.__getitem__,
            note=lambda: Note(at_ms=time.wall_ms(), actor=ME, what="process", topic=self.topic, detail={}),
        )

        @contextmanager
        def engines(declared: Declaration) -> Iterator[Engine]:
            provision = Provision([declared], config=world.config, clock=time, claimer=lambda one: _claims(world, one))
            executor: VirtualExecutor[LaneSlice] = VirtualExecutor(
                [declared],
                provision.contexts,
                time=time,
                max_record_bytes=world.config.kafka.max_record_bytes,
                duration_s=duration_s,
            )
            yield Engine(executor, provision.breakers, provision.degradation)

        return InProcess(
            world.config,
            declaration(handler),
            self.topic,
            self.pending() if ids is None else ids,
            Around(
                letters=self,
                note=states.write,
                log=MemoryLog(world.broker),
                engines=engines,
                clock=time,
                wait=lambda seconds: time.wait(seconds, lambda: False),
                tell=self.told.append,
                progress=self.advanced.append,
            ),
            topic_id=topic_id,
        )


def _claims(world: VirtualWorld, declared: Declaration) -> SliceClaims | None:
    if declared.idempotency is None:
        return None
    extender = LeaseExtender(
        world.claims.extend,
        name="claims",
        lease_s=world.claims.lease_s,
        clock=world.time,
        rounds=lambda step, _name: VirtualRounds(world.time, step),
    )
    return slice_claims(declared, declared.idempotency, world.claims, extender, world.time)


def by_key(letters: Sequence[DeadRecord]) -> Mapping[bytes | None, list[LetterId]]:
    """Their places by key, in order."""
    found: defaultdict[bytes | None, list[LetterId]] = defaultdict(list)
    for letter in letters:
        found[letter.key].append(letter.id)
    return found
