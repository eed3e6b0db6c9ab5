"""A dead-letter topic that somebody deletes while the worker runs, and makes again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # the package does not list what it exports
from fleet.in_process import Running, committed, config, read
from fleet.workers import produce

from streamworker import DeadLetter, Handler, PoisonError

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers.kafka import SharedKafka

    from streamworker import Record

TIMEOUT_S = 30.0


def test_letters_wait_for_a_topic_that_was_deleted_until_it_is_made_again(
    kafka: SharedKafka, dead_letters_of: Callable[..., str], figures: Callable[..., None]
) -> None:
    """F-60. Nothing is committed past the first letter that has no topic."""
    servers, group, topic = kafka.bootstrap_servers, kafka.group("vanish"), kafka.topic("in")
    letters_topic = dead_letters_of(topic)

    class Judge(Handler[bytes]):
        topics = (topic,)
        dead_letter = DeadLetter(letters_topic)

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"poison":
                raise PoisonError

    settings = config(servers, group, dead_letters__delivery_timeout_s=1, dead_letters__retry_min_s=0.5)
    with Running(settings, Judge) as worker:
        produce(servers, topic, [("k", "poison"), ("k", "fine")], 1)
        worker.wait(lambda: committed(servers, group, topic, 1) == {0: 2}, "the first letter")
        kafka.admin.delete_topics([letters_topic])[letters_topic].result(TIMEOUT_S)
        produce(servers, topic, [("k", "fine"), ("k", "poison"), ("k", "fine")], 1)
        worker.wait(lambda: worker.recorder.of("stopped"), "stopped")
        worker.wait(lambda: committed(servers, group, topic, 1) == {0: 3}, "committed up to the letter")
        kafka.admin.create_topics([NewTopic(letters_topic, 1)])[letters_topic].result(TIMEOUT_S)
        made_s = time.monotonic()
        worker.wait(lambda: committed(servers, group, topic, 1) == {0: 5}, "all committed")
        resumed_s = time.monotonic() - made_s
        assert worker.stop() == 0

    (letter,) = read(servers, letters_topic, 1, 1)
    assert dict(letter.headers() or [])["sw-origin-offset"] == b"3"
    assert {(why, mends) for _, why, _, mends in worker.recorder.of("stopped")} == {("dead_letter_refused", True)}
    figures("F-60", "dead-letter topic deleted and made again", resumed_s=round(resumed_s, 1), lost=0)
