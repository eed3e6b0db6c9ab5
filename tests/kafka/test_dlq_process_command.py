"""`streamworker dlq process` on a real Kafka."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaException
from fleet.in_process import Running, config
from fleet.letter_states import states
from fleet.workers import produce

from streamworker import DeadLetter, Handler, Retry
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import State, state_topic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka

    from streamworker import Record

    Streamworker = Callable[..., subprocess.CompletedProcess[str]]

TIMEOUT_S = 60.0

APPLICATION = """
from streamworker import DeadLetter, Handler, PoisonError


class Mended(Handler[bytes]):
    topics = ("{topic}",)
    dead_letter = DeadLetter("{topic}.dlq")

    def handle(self, record):
        if record.value == b"poison":
            raise PoisonError("never")
        with open("handled", "a") as file:
            print(record.topic, record.offset, *record.origin, record.value.decode(), file=file)


class Transactional(Mended):
    from streamworker import KafkaSink

    sink = KafkaSink("out")
    delivery = "transactional"
"""


@pytest.fixture
def letters(kafka: SharedKafka, tmp_path: Path) -> tuple[str, str]:
    """A dead-letter topic with `one`, `poison` and `two`, and its group; beside it the application in `tmp_path`."""
    topic, group, servers = kafka.topic("in"), kafka.group("processing"), kafka.bootstrap_servers
    dead_letters = kafka.dead_letters(topic)
    kafka.topic_called(state_topic(dead_letters), cleanup_policy="compact")
    with suppress(KafkaException):  # another test has made it
        kafka.topic_called("streamworker.audit")

    class Broken(Handler[bytes]):
        topics = (topic,)
        dead_letter = DeadLetter(dead_letters)
        retry = Retry(attempts=1)

        def handle(self, record: Record[bytes]) -> None:
            raise ConnectionError("nobody there")

    produce(servers, topic, [("k", "one"), ("k", "poison"), ("k", "two")], 1)
    with Running(config(servers, group), Broken, until_end=True) as worker:
        assert worker.ended() == 0
    (tmp_path / "app.py").write_text(APPLICATION.format(topic=topic))
    return dead_letters, group


@pytest.fixture
def streamworker(kafka: SharedKafka, letters: tuple[str, str], tmp_path: Path) -> Streamworker:
    """Runs `dlq process` in the application's folder."""

    def run(handler: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "streamworker", "dlq", "process", f"app:{handler}", letters[0], *arguments]
        options = ["--group", letters[1], "--bootstrap-servers", kafka.bootstrap_servers]
        return subprocess.run(
            [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    return run


def states_of(kafka: SharedKafka, letters: tuple[str, str]) -> list[State]:
    return list(states(config(kafka.bootstrap_servers, letters[1]), letters[0], 1).values())


def test_it_is_only_shown_until_yes_is_given(
    kafka: SharedKafka, letters: tuple[str, str], streamworker: Streamworker, tmp_path: Path
) -> None:
    shown = streamworker("Mended", "reason:exhausted")

    assert shown.returncode == 0, shown.stderr
    assert f"process 3 letters of {letters[0]}" in shown.stdout
    assert "Warning: they are handled beside the workers of the group" in shown.stdout
    assert "Warning: the handler has no sink that knows repeats" in shown.stdout
    assert states_of(kafka, letters) == [State.PENDING] * 3
    assert not (tmp_path / "handled").exists()


def test_letters_are_handled_in_the_process_and_what_fails_stays_pending(
    kafka: SharedKafka, letters: tuple[str, str], streamworker: Streamworker, tmp_path: Path
) -> None:
    ended = streamworker("Mended", "--all", "--yes", "--json")
    again = streamworker("Mended", "--all", "--yes")

    assert ended.returncode == 3, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["handled"], told["pending"], told["trouble"]) == (2, 1, None)
    assert told["failures"] == {"0:1": "poison: streamworker.errors.PoisonError: never"}
    topic = letters[0].removesuffix(".dlq")
    assert sorted((tmp_path / "handled").read_text().splitlines()) == [
        f"{letters[0]} 0 {topic} 0 0 one",
        f"{letters[0]} 2 {topic} 0 2 two",
    ]
    assert states_of(kafka, letters) == [State.REPLAYED, State.PENDING, State.REPLAYED]
    assert again.returncode == 3
    assert "0 of 1 handled, 1 stay pending" in again.stdout
    assert LetterId(0, 1) in states(config(kafka.bootstrap_servers, letters[1]), letters[0], 1)


def test_what_cannot_be_done_so_is_refused_before_anything_is_read(streamworker: Streamworker) -> None:
    refused = streamworker("Transactional", "--all", "--yes")
    another_plan = streamworker("Mended", "--all", "--yes", "--plan", "abc")

    assert (refused.returncode, another_plan.returncode) == (2, 2)
    assert "Transactional.delivery" in refused.stderr
    assert "not abc: look at it again without --yes" in another_plan.stderr
