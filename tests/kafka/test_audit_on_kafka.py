"""The audit on a real Kafka: `audit ls` and `audit verify` over what a writer has written, and what others did."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from streamworker.cli.main import main
from streamworker.clock import SystemClock
from streamworker.config import Config, KafkaConfig
from streamworker.errors import ClientError
from streamworker.librdkafka import producer_settings
from streamworker.replay.audit import Note
from streamworker.replay.desk import Actor, Role
from streamworker.replay.shipments import AuditWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from click.testing import Result
    from servers.kafka import SharedKafka

ANNA = Actor("anna@desk", Role.OPERATOR, "console", verified=True)
BERT = Actor("bert@host", Role.ADMIN, "cli", verified=False)
SECRET = "a secret of thirty-two bytes ...."
NOW_MS = 1_795_867_200_000


class Audit:
    """An audit topic with a name of its own, and the commands over it."""

    def __init__(self, kafka: SharedKafka, folder: Path) -> None:
        self.topic = kafka.topic("audit")
        self._kafka = kafka
        self._key_file = folder / "audit.key"
        self._key_file.write_text(SECRET)

    def write(self, notes: Sequence[tuple[Actor, str]], key: bytes | None = SECRET.encode()) -> None:
        settings = Config(kafka=KafkaConfig(bootstrap_servers=self._kafka.bootstrap_servers))
        writer = AuditWriter(
            producer_settings(settings.kafka, settings.dead_letters), key=key, clock=SystemClock(), topic=self.topic
        )
        with closing(writer):
            for number, (actor, what) in enumerate(notes):
                writer.write(
                    Note(at_ms=NOW_MS + number, actor=actor, what=what, topic="orders.dlq", detail={"count": number})
                )

    def forge(self, value: bytes) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap_servers})
        producer.produce(self.topic, value)
        assert producer.flush(30) == 0

    def ask(self, *arguments: str, sealed: bool = True) -> Result:
        seal = ["--set", f"audit.key_file={self._key_file}"] if sealed else []
        servers = self._kafka.bootstrap_servers
        return CliRunner().invoke(
            main,
            ["audit", arguments[0], "--audit-topic", self.topic, *arguments[1:], "--bootstrap-servers", servers, *seal],
        )


@pytest.fixture
def audit(kafka: SharedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.chdir(tmp_path)
    return Audit(kafka, tmp_path)


def test_an_audit_that_nobody_has_touched_is_whole_and_shown_page_after_page(audit: Audit) -> None:
    audit.write([(ANNA, "plan"), (ANNA, "replay"), (BERT, "denied")])

    verified = audit.ask("verify", "--json")
    first = json.loads(audit.ask("ls", "--limit", "2", "--json").stdout)
    second = json.loads(audit.ask("ls", "--limit", "2", "--after", first["next"], "--json").stdout)
    denied = audit.ask("ls", "--what", "denied", "--actor", "bert")

    assert verified.exit_code == 0, verified.output
    assert json.loads(verified.stdout) == {
        "entries": 3,
        "writers": 1,
        "beginnings": 1,
        "seals_checked": True,
        "faults": 0,
        "findings": [],
    }
    assert [one["what"] for one in first["entries"] + second["entries"]] == ["denied", "replay", "plan"]
    assert second["next"] is None
    assert "bert@host (unverified)" in denied.stdout
    assert "replay" not in denied.stdout


def test_an_entry_that_was_written_without_the_key_is_found_and_ends_with_3(audit: Audit) -> None:
    audit.write([(ANNA, "replay")])
    audit.write([(ANNA, "discard")], key=None)

    with_key = audit.ask("verify")
    without_key = audit.ask("verify", sealed=False)

    assert with_key.exit_code == 3
    assert "no mac" in with_key.stdout
    assert without_key.exit_code == 0
    assert "seals were not checked" in without_key.stdout


def test_what_is_no_entry_at_all_is_a_fault(audit: Audit) -> None:
    audit.write([(ANNA, "replay")])
    audit.forge(b"nothing of ours")

    verified = audit.ask("verify", "--json")

    assert verified.exit_code == 3
    assert [(one["fault"], one["at"]) for one in json.loads(verified.stdout)["findings"]] == [("unreadable", "0:1")]


def test_an_audit_that_is_not_there_is_a_message(audit: Audit) -> None:
    missing = audit.ask("verify", "--audit-topic", "no.such.topic")

    assert missing.exit_code == 2
    assert "there is no topic" in missing.stderr


def test_who_has_not_made_the_topic_is_told_so_at_once(audit: Audit) -> None:
    audit.topic = f"{audit.topic}.not-there"
    clock = SystemClock()
    began_s = clock.monotonic_s()

    with pytest.raises(ClientError, match=r"not-there: UNKNOWN_TOPIC_OR_PART; `streamworker topics create` makes it"):
        audit.write([(ANNA, "plan")])

    assert clock.monotonic_s() - began_s < 5
