"""Dead letters of a cluster, handled in this process: what `in_process.py` needs, over real clients.

Decides nothing. The thread that enters it is the one that runs it.
"""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from streamworker.librdkafka import topic_log_settings
from streamworker.record import TopicPartition
from streamworker.replay import families
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.audit import Note
from streamworker.replay.handled_states import HandledStates
from streamworker.replay.in_process import Around, InProcess, engine_of
from streamworker.replay.letter_reader import LetterReader
from streamworker.replay.shipments import Shipments
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.cluster import Cluster
    from streamworker.config import Config
    from streamworker.declaration import Declaration
    from streamworker.replay.dead_record import LetterId
    from streamworker.replay.desk import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done: letters of `topic` in order of partition and offset, and for whom.

    `duplicates` names for each copy that a crash wrote the letter it is one of; `detail` goes into the audit.
    """

    topic: str
    ids: Sequence[LetterId]
    duplicates: Mapping[LetterId, LetterId] = field(default_factory=dict)
    op_id: str
    actor: Actor
    detail: Mapping[str, object]


class _Pause:
    """Waits for time to pass; nobody ends it."""

    def __init__(self) -> None:
        self._never = threading.Event()

    def wait(self, seconds: float) -> bool:
        """False, because there is always more time: a signal stops the worker between two waits."""
        return self._never.wait(seconds)


@contextmanager
def kafka_process(
    config: Config,
    declared: Declaration,
    work: Work,
    *,
    cluster: Cluster,
    clock: Clock,
    audit_key: bytes | None,
    timeout_s: float,
    tell: Callable[[str], None],
    progress: Callable[[int], None],
    audit_topic: str = AUDIT_TOPIC,
) -> Iterator[InProcess]:
    """What handles the letters of `work`; `tell` and `progress` as of `Around`.

    Raises ConfigurationError and ClientError.
    """
    pause = _Pause()
    topic_id = cluster.topic_ids([work.topic], timeout_s).get(work.topic)
    shipments = Shipments(config, clock=clock, wait=pause.wait, audit_key=audit_key, audit_topic=audit_topic)
    with closing(TopicLog(topic_log_settings(config.kafka), clock, goes_on=True)) as log, closing(shipments):
        letters = LetterReader(log, work.topic, families.read, timeout_s)
        states = HandledStates(
            op_id=work.op_id,
            actor=work.actor.name,
            topic_id=topic_id,
            duplicates=work.duplicates,
            letters=letters,
            shipping=lambda partition: shipments.of(TopicPartition(work.topic, partition)),
            note=lambda: Note(
                at_ms=clock.wall_ms(),
                actor=work.actor,
                what="process",
                topic=work.topic,
                op_id=work.op_id,
                detail={**work.detail, "handler": declared.name},
            ),
        )
        around = Around(
            letters=letters,
            note=states.write,
            log=cluster,
            engines=partial(engine_of, config, clock),
            clock=clock,
            wait=pause.wait,
            tell=tell,
            progress=progress,
        )
        yield InProcess(config, declared, work.topic, work.ids, around, topic_id=topic_id)
