"""Keys that follow a dead letter, from the topic that is made for them to their release by the command line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from click.testing import CliRunner
from fleet.in_process import Running, config, read
from fleet.workers import produce

from streamworker import DeadLetter, Handler, PoisonError
from streamworker.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from click.testing import Result
    from servers.kafka import SharedKafka

    from streamworker import Record

HANDLERS = """
from streamworker import DeadLetter, Handler

class StoreOrders(Handler):
    topics = ("{topic}",)
    dead_letter = DeadLetter("{topic}.dlq", on_exhausted="dlq_key")

    def handle(self, record): ...
"""


def streamworker(kafka: SharedKafka, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--bootstrap-servers", kafka.bootstrap_servers])


def test_a_parked_key_outlives_its_worker_and_goes_on_when_released(
    kafka: SharedKafka, dead_letters_of: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 2. Nobody has to be restarted for a release."""
    topic, group, servers = kafka.topic("in"), kafka.group("parked"), kafka.bootstrap_servers
    letters = dead_letters_of(topic, make=False)
    (tmp_path / "keys_shop.py").write_text(HANDLERS.format(topic=topic))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    handled: list[str] = []

    class Picky(Handler[bytes]):
        topics = (topic,)
        dead_letter = DeadLetter(letters, on_exhausted="dlq_key")

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"poison":
                raise PoisonError("never")
            handled.append((record.value or b"").decode())

    created = streamworker(kafka, "topics", "create", "keys_shop:StoreOrders")
    assert f"{letters}.keys" in created.stdout, created.output
    checked = streamworker(kafka, "check", "keys_shop:StoreOrders")
    assert f"parked keys {letters}.keys: compacted" in checked.stdout, checked.output

    produce(servers, topic, [("a", "1"), ("a", "poison"), ("b", "2"), ("a", "behind")], 1)
    with Running(config(servers, group), Picky) as worker:
        worker.wait(lambda: len(worker.recorder.of("dead_lettered")) == 2, "both letters")
    with Running(config(servers, group), Picky) as worker:
        produce(servers, topic, [("a", "still behind"), ("b", "3")], 1)
        worker.wait(lambda: "3" in handled and len(worker.recorder.of("dead_lettered")) == 1, "the third letter")
        shown = json.loads(streamworker(kafka, "dlq", "keys", letters, "--json").stdout)
        dry = streamworker(kafka, "dlq", "release-key", letters, "a", "--group", group)
        wrong = streamworker(kafka, "dlq", "release-key", letters, "aa", "--group", group, "--yes")
        done = streamworker(kafka, "dlq", "release-key", letters, "a", "--group", group, "--yes")
        worker.wait(lambda: worker.recorder.of("key_released"), "the release")
        produce(servers, topic, [("a", "4")], 1)
        worker.wait(lambda: "4" in handled, "the key to go on")

    assert [one["from_offset"] for one in shown] == [1]
    assert [(one["group"], one["key"], one["key_hex"]) for one in shown] == [(group, "a", "61")]
    assert dry.stdout == f"{topic}[0]: a would be released\n"
    assert (wrong.exit_code, wrong.stderr) == (
        2,
        f"Error: key 'aa' is not parked for group '{group}'; did you mean 'a'?\n",
    )
    assert (done.exit_code, done.stdout) == (0, f"{topic}[0]: a released\n")
    assert sorted(handled) == ["1", "2", "3", "4"]
    assert [one.value() for one in read(servers, letters, 1, 3)] == [b"poison", b"behind", b"still behind"]
    assert json.loads(streamworker(kafka, "dlq", "keys", letters, "--json").stdout) == []
