"""One row of `benchmarks.replays`, in a process of its own: letters are sent again and marked, by hand or by a run."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from confluent_kafka import Producer

from benchmarks.asked import Asked, answer, rate
from benchmarks.topics import PARTITIONS
from streamworker.clock import SystemClock
from streamworker.config import Config, KafkaConfig
from streamworker.garbage import seldom_collected
from streamworker.librdkafka import transactional_settings
from streamworker.record import Origin, TopicPartition
from streamworker.replay.audit import Note
from streamworker.replay.copies import Maker
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Actor, Operation, OperationState, Rates, Request, Role
from streamworker.replay.families import read
from streamworker.replay.filters import Filter
from streamworker.replay.letter_reader import LetterReader
from streamworker.replay.plans import Candidate, make_plan
from streamworker.replay.read_ahead import ReadAhead
from streamworker.replay.repair import ValueForm
from streamworker.replay.runs import CHUNK, Part, Run, Surroundings
from streamworker.replay.shipments import Shipments
from streamworker.replay.states import State, encode, key_of, state_topic
from streamworker.replay.targets import Targets
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streamworker.replay.copies import Made
    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.states import Disposition, Target

BY_HAND, REPLAYED = "by hand", "replayed"
GROUP = "shop"
_TIMEOUT_S = 30.0
_SOMEBODY = Actor("bench", Role.ADMIN, "cli", verified=False)


class Letters:
    """All letters of the topic, of which nothing was said."""

    def __init__(self, reader: LetterReader) -> None:
        self._reader = reader

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        return self._reader.read(ids)

    def said(self, letter: LetterId) -> Disposition | None:
        del letter

    def look(self, sent: Mapping[LetterId, Target]) -> Mapping[LetterId, object]:
        raise NotImplementedError(f"there is no canary, and {len(sent)} are asked for")


def request(topic: str) -> Request:
    """Of all letters."""
    return Request(topic=topic, action=Action.REPLAY, filter=Filter())


def maker(asked: Asked) -> Maker:
    """Of their copies, which go to the replay topic of their group."""
    topics = {"orders": PARTITIONS, f"orders.replay.{GROUP}": PARTITIONS}
    return Maker(
        request=request(asked.topic),
        op_id="bench",
        actor=_SOMEBODY.name,
        topic_id=None,
        targets=Targets(topics, groups=[GROUP]),
        key=None,
        form=lambda _: ValueForm("orders"),
        repairs={},
    )


def by_hand(asked: Asked) -> Mapping[str, float]:
    """The same two records per letter, in as large transactions; reading them and making the copies is not counted."""
    made: dict[int, list[tuple[LetterId, Made]]] = defaultdict(list)
    making, now_ms = maker(asked), time.time_ns() // 1_000_000
    with closing(TopicLog(asked.client, SystemClock())) as log:
        ranges = {TopicPartition(asked.topic, number): (0, asked.records // PARTITIONS) for number in range(PARTITIONS)}
        for batch in log.read(ranges, _TIMEOUT_S):
            for letter in (read(asked.topic, message) for message in batch):
                made[letter.id.partition].append((letter.id, making.make(letter, now_ms)))
    kafka = KafkaConfig(bootstrap_servers=asked.bootstrap_servers)
    producer = Producer(transactional_settings(kafka, _TIMEOUT_S, f"by-hand-{secrets.token_hex(4)}"))
    start_s, cpu_s = time.perf_counter(), time.process_time()
    producer.init_transactions(_TIMEOUT_S)
    for of_partition in made.values():
        rest = iter(of_partition)
        while chunk := list(islice(rest, CHUNK)):
            producer.begin_transaction()
            for letter, one in chunk:
                copy = one.copy
                assert copy is not None
                producer.produce(copy.topic, copy.value, copy.key, copy.partition or 0, headers=list(copy.headers))
                said = encode(one.disposition)
                producer.produce(state_topic(asked.topic), said, key_of(letter), letter.partition)
                producer.poll(0)
            producer.commit_transaction(_TIMEOUT_S)
    return rate(asked.records, time.perf_counter() - start_s, time.process_time() - cpu_s)


def replayed(asked: Asked) -> Mapping[str, float]:
    """By a run, from a plan on: letters are read, copies are made, sent, marked and audited."""
    clock, config = SystemClock(), Config(kafka=KafkaConfig(bootstrap_servers=asked.bootstrap_servers))
    ids = [LetterId(number, offset) for number in range(PARTITIONS) for offset in range(asked.records // PARTITIONS)]
    plan = make_plan(request(asked.topic), map(candidate, ids), maker(asked).targets, clock.wall_ms(), ends={})
    operation = Operation(
        id="bench",
        plan_sha256=plan.sha256,
        topic=asked.topic,
        action=Action.REPLAY,
        actor=_SOMEBODY.name,
        filter_text="",
        state=OperationState.RUNNING,
        matched=len(plan.ids),
        started_ms=clock.wall_ms(),
    )
    wait = lambda _: False  # noqa: E731 - nobody waits here
    ahead = ReadAhead[Part]()
    shipments = Shipments(config, clock=clock, wait=wait, audit_key=None, meanwhile=ahead.step)
    log = TopicLog(asked.client, clock, goes_on=True)
    with closing(log), closing(shipments), seldom_collected():  # as at a desk
        letters = Letters(LetterReader(log, asked.topic, read, _TIMEOUT_S))
        around = Surroundings(
            letters=letters,
            shipping=lambda partition: shipments.of(TopicPartition(asked.topic, partition)),
            outcomes=letters,  # type: ignore[arg-type]  # nobody asks
            clock=clock,
            wait=wait,
            asked=lambda: None,
            tell=lambda _: None,
            note=lambda: Note(at_ms=clock.wall_ms(), actor=_SOMEBODY, what="replay", detail={}),
            ahead=ahead,
        )
        start_s, cpu_s = time.perf_counter(), time.process_time()
        ended = Run(plan, operation, maker(asked), Rates(records_per_s=None, canary=0), around).run()
        figures = rate(asked.records, time.perf_counter() - start_s, time.process_time() - cpu_s)
    assert (ended.state, ended.done) == (OperationState.DONE, asked.records), ended
    return figures


def candidate(place: LetterId) -> Candidate:
    """What the view would say of a letter."""
    origin = Origin("orders", place.partition, place.offset)
    return Candidate(place, State.PENDING, "poison", "Handler", GROUP, origin, None, None, 0, 200, None)


if __name__ == "__main__":
    asked_here = Asked.here()
    answer({BY_HAND: by_hand, REPLAYED: replayed}[asked_here.row](asked_here))
