"""The commands that need what only a real Kafka tells: group states, topic settings, a controller."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fleet.in_process import Running, committed, config
from fleet.workers import produce

from streamworker import Handler
from streamworker.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result
    from servers.kafka import SharedKafka

    from streamworker import Record

HANDLERS = """
from streamworker import DeadLetter, Handler

class StoreOrders(Handler):
    topics = ("{topic}",)
    dead_letter = DeadLetter("{topic}.dlq")

    def handle(self, record): ...
"""
DAY_MS = 86_400_000


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes the application that reads a topic, and names its handler."""

    def write(topic: str) -> str:
        (tmp_path / "kafka_shop.py").write_text(HANDLERS.format(topic=topic))
        return "kafka_shop:StoreOrders"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield write
    sys.modules.pop("kafka_shop", None)


def streamworker(kafka: SharedKafka, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--bootstrap-servers", kafka.bootstrap_servers])


def test_offsets_of_a_stopped_group_can_be_shown_set_and_reset(kafka: SharedKafka) -> None:
    """F-15. Edge case 10: this is what mends a stopped partition."""
    topic, group = kafka.topic("in"), kafka.group("moved")
    produce(kafka.bootstrap_servers, topic, [(None, "x")] * 10, 1)
    seen: list[int] = []

    class Seen(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None:
            seen.append(record.offset)

    def run() -> list[int]:
        seen.clear()
        with Running(config(kafka.bootstrap_servers, group), Seen, until_end=True) as worker:
            assert worker.ended() == 0
        return list(seen)

    assert run() == list(range(10))
    (shown,) = json.loads(streamworker(kafka, "offsets", "show", group, "--json").stdout)
    assert (shown["committed"], shown["lag"], shown["written_by"]) == (10, 0, "streamworker")

    done = streamworker(kafka, "offsets", "set", group, "--topic", topic, "--partition", "0", "--offset", "7", "--yes")
    assert done.exit_code == 0, done.output
    assert run() == [7, 8, 9]

    done = streamworker(kafka, "offsets", "reset", group, "--to-earliest", "--yes")
    assert done.exit_code == 0, done.output
    assert run() == list(range(10))


def test_offsets_of_a_live_group_are_not_moved(kafka: SharedKafka) -> None:
    """Edge case 15a: the members would commit over it."""
    topic, group = kafka.topic("in"), kafka.group("live")
    produce(kafka.bootstrap_servers, topic, [(None, "x")] * 10, 1)

    class Nothing(Handler[bytes]):
        topics = (topic,)

        def handle(self, record: Record[bytes]) -> None: ...

    with Running(config(kafka.bootstrap_servers, group), Nothing) as worker:
        worker.wait(lambda: committed(kafka.bootstrap_servers, group, topic, 1) == {0: 10}, "committed")
        refused = streamworker(kafka, "offsets", "reset", group, "--to-earliest", "--yes")
        assert worker.stop() == 0

    assert refused.exit_code == 2
    assert "has 1 members" in refused.stderr
    assert committed(kafka.bootstrap_servers, group, topic, 1) == {0: 10}


def test_the_dead_letter_topic_is_made_and_then_passes_the_check(
    kafka: SharedKafka, shop: Callable[[str], str], dead_letters_of: Callable[..., str]
) -> None:
    """Edge cases 63, 67."""
    topic = kafka.topic("in", partitions=3, retention_ms=str(30 * DAY_MS))
    dead_letters_of(topic, make=False)
    handler = shop(topic)

    before = streamworker(kafka, "check", handler, "--group", "g")
    created = streamworker(kafka, "topics", "create", handler, "--group", "g")
    after = streamworker(kafka, "check", handler, "--group", "g")

    assert before.exit_code == 2
    assert "streamworker topics create kafka_shop:StoreOrders" in before.output
    assert created.exit_code == 0, created.output
    assert re.search(rf"\.dlq +3 +1 +{30 * DAY_MS} +created", created.output), created.output
    assert after.exit_code == 0, after.output
    assert "retention" not in after.output


def test_a_dead_letter_topic_that_forgets_first_is_warned_of(
    kafka: SharedKafka, shop: Callable[[str], str], dead_letters_of: Callable[..., str]
) -> None:
    """Edge case 67: also one that takes smaller records, or is compacted."""
    topic = kafka.topic("in", retention_ms=str(7 * DAY_MS))
    dead_letters_of(topic, retention_ms=str(DAY_MS), max_message_bytes="2000", cleanup_policy="compact,delete")
    kafka.replays(topic, "g")

    result = streamworker(kafka, "check", shop(topic), "--group", "g", "--json")

    found = json.loads(result.stdout)["findings"]
    warnings = [one for one in found if one["level"] == "warning" and not one["subject"].endswith(".state")]
    assert result.exit_code == 0
    assert "its retention is 1 days" in warnings[0]["message"]
    assert f"retention.ms={7 * DAY_MS}" in warnings[0]["mend"]
    assert "takes smaller records" in warnings[1]["message"]
    assert "compacted" in warnings[2]["message"]
