"""A worker that dies after the dead letter is acknowledged and before the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.in_process import committed, read
from fleet.workers import Fleet, produce, terminate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka


def test_a_dead_letter_is_written_twice_at_most_with_the_same_id_and_never_lost(
    kafka: SharedKafka, dead_letters_of: Callable[..., str], tmp_path: Path
) -> None:
    """F-61. Edge cases 1, 55: the second worker finds no commit, so it writes the letter again."""
    servers = kafka.bootstrap_servers
    topic, group = kafka.topic("in"), kafka.group("crash")
    letters_topic = dead_letters_of(topic)
    produce(servers, topic, [("k", "0"), ("k", "poison"), ("k", "2")], 1)
    options = {"kafka.group_protocol": "classic", "commit.interval_s": 60}

    with Fleet(servers, group, topic, tmp_path, handler="fleet.apps:LedgerWithDeadLetters", options=options) as fleet:
        victim = fleet.start()
        read(servers, letters_topic, 1, 1)
        victim.kill()
        victim.wait()
        assert committed(servers, group, topic, 1) == {}
        survivor = fleet.start(**{"commit.interval_s": 0.2})
        fleet.wait(lambda: committed(servers, group, topic, 1) == {0: 3}, "all committed")
        assert terminate(survivor) == 0

    letters = read(servers, letters_topic, 1, 2)
    assert {dict(one.headers() or [])["sw-id"] for one in letters} == {f"{group}/{topic}/0/1".encode()}
    assert [one.value() for one in letters] == [b"poison", b"poison"]
    assert {line.offset for line in fleet.effects()} == {0, 2}
