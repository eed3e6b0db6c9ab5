"""The commands that ask a cluster, against librdkafka's mock of one."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer

from streamworker.cli.main import main
from streamworker.cluster import Cluster
from streamworker.config import KafkaConfig
from streamworker.interfaces import OffsetMark
from streamworker.librdkafka import admin_settings, consumer_settings
from streamworker.offsets.codec import encode
from streamworker.offsets.progress import Progress, Suspect
from streamworker.record import TopicPartition
from streamworker.testing.mock_kafka import MockKafka

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

TIMEOUT_S = 10.0
# The mock cluster has no controller, so what needs one costs the whole timeout.
SHORT = ("--timeout", "1")
BESIDE = {"in.dlq.state": 2, "streamworker.audit": 1, "streamworker.dlq.ops": 1}
TOPICS = {"in": 2, "in.dlq": 2, "in.replay.g": 1, **BESIDE}
SHOW = ("offsets", "show", "g", "--topic", "in", "--partition", "0")
HANDLERS = """
from streamworker import DeadLetter, Handler, Retry, RetryTopic

class StoreOrders(Handler):
    topics = ("in",)
    dead_letter = DeadLetter("in.dlq")

    def handle(self, record): ...

class Elsewhere(StoreOrders):
    topics = ("on",)
    dead_letter = DeadLetter("on.dlq")

class Unreplayed(StoreOrders):
    topics = ("on",)
    dead_letter = DeadLetter("on.dlq", replay=False)

class Deferring(StoreOrders):
    retry = Retry(topics=(RetryTopic(delay_s=60),))
"""


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka(topics=TOPICS) as kafka:
        for number in range(6):
            kafka.produce_raw("in", 0, None, b"%d" % number)
        yield kafka


@pytest.fixture(autouse=True)
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "mock_shop.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("mock_shop", None)


def streamworker(kafka: MockKafka, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--bootstrap-servers", kafka.bootstrap_servers, *SHORT])


def commit(kafka: MockKafka, offset: int, metadata: str = "") -> None:
    cluster = Cluster(admin_settings(KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)))
    cluster.set_group_offsets("g", {TopicPartition("in", 0): OffsetMark(offset, metadata)}, TIMEOUT_S)


def committed(kafka: MockKafka) -> list[int | None]:
    result = streamworker(kafka, "offsets", "show", "g", "--topic", "in", "--json")
    return [position["committed"] for position in json.loads(result.stdout)]


def joined(kafka: MockKafka, group: str) -> Consumer:
    """A member of the group that has its partitions."""
    config = KafkaConfig(bootstrap_servers=kafka.bootstrap_servers, group=group)
    member = Consumer(consumer_settings(config, end_of_partition=False))
    member.subscribe(["in"])
    until_s = time.monotonic() + TIMEOUT_S
    while not member.assignment():
        assert time.monotonic() < until_s, "not joined in time"
        member.poll(0.1)
    return member


def test_a_check_passes_and_says_what_could_not_be_seen(kafka: MockKafka) -> None:
    result = streamworker(kafka, "check", "mock_shop:StoreOrders", "--group", "g")

    assert result.exit_code == 0, result.output
    assert "topic in: 2 partitions (StoreOrders)" in result.output
    assert re.search(r"^not checked: dead-letter topic in\.dlq", result.output, re.MULTILINE)


def test_a_check_fails_for_missing_topics_and_names_the_mend(kafka: MockKafka) -> None:
    result = streamworker(kafka, "check", "mock_shop:Elsewhere", "--group", "g", "--json")

    wrong = [one for one in json.loads(result.stdout)["findings"] if one["level"] == "wrong"]
    assert result.exit_code == 2
    assert [one["subject"] for one in wrong] == ["topic on", "dead-letter topic on.dlq", "replay topic on.replay.g"]
    assert wrong[1]["mend"] == "streamworker topics create mock_shop:Elsewhere"


def test_a_check_fails_without_a_group_as_a_run_would(kafka: MockKafka) -> None:
    result = streamworker(kafka, "check", "mock_shop:StoreOrders")

    assert result.exit_code == 2
    assert re.search(r"^wrong: +group: kafka\.group is missing", result.output, re.MULTILINE)


def test_a_check_creates_no_topic(kafka: MockKafka) -> None:
    streamworker(kafka, "check", "mock_shop:Elsewhere")

    cluster = Cluster(admin_settings(KafkaConfig(bootstrap_servers=kafka.bootstrap_servers)))
    assert set(cluster.topics(TIMEOUT_S)) == set(TOPICS)
    assert list(cluster.partitions("on", TIMEOUT_S)) == []


def test_a_check_finds_an_offset_before_the_logs_start(kafka: MockKafka) -> None:
    commit(kafka, 1)
    kafka.delete_records("in", 0, 3)

    result = streamworker(kafka, "check", "mock_shop:StoreOrders", "--group", "g")

    assert result.exit_code == 2
    assert "in[0] is committed at 1 and has 3 to 6" in result.output
    assert "streamworker offsets reset g --topic in --partition 0 --to-earliest" in result.output


def test_topics_that_exist_are_left_alone(kafka: MockKafka) -> None:
    result = streamworker(kafka, "topics", "create", "mock_shop:StoreOrders")

    assert result.exit_code == 0, result.output
    assert re.search(r"in\.dlq +2 +1 +exists", result.output)
    assert "replay topics, which are named after the group; give --group" in result.stderr


def test_a_dry_run_shows_what_would_be_created(kafka: MockKafka) -> None:
    kafka.create_topic("on", 5)

    result = streamworker(kafka, "topics", "create", "mock_shop:Elsewhere", "--dry-run")

    assert result.exit_code == 0, result.output
    assert re.search(rf"on\.dlq +5 +1 +{14 * 86_400_000} +would be created", result.output)
    assert re.search(r"on\.dlq\.state +5 +1 +would be created", result.output)


def test_retry_topics_are_as_wide_as_their_source_and_named_after_the_group(kafka: MockKafka) -> None:
    unnamed = streamworker(kafka, "topics", "create", "mock_shop:Deferring", "--dry-run")
    named = streamworker(kafka, "topics", "create", "mock_shop:Deferring", "--group", "g", "--dry-run")

    assert unnamed.exit_code == 2
    assert "--group" in unnamed.stderr
    assert named.exit_code == 0, named.output
    assert re.search(rf"in\.retry\.g\.1 +2 +1 +{14 * 86_400_000} +would be created", named.output)


def test_a_replay_topic_has_one_partition_and_states_are_as_wide_as_their_dead_letters(kafka: MockKafka) -> None:
    kafka.create_topic("on", 5)
    kafka.create_topic("on.dlq", 3)

    result = streamworker(
        kafka, "topics", "create", "mock_shop:Elsewhere", "--group", "shop", "--partitions", "7", "--dry-run"
    )
    without = streamworker(kafka, "topics", "create", "mock_shop:Unreplayed", "--group", "shop", "--dry-run")

    assert re.search(rf"on\.replay\.shop +1 +1 +{14 * 86_400_000} +would be created", result.output), result.output
    assert re.search(r"on\.dlq +3 +1 +exists", result.output)
    assert re.search(r"on\.dlq\.state +3 +1 +would be created", result.output)
    assert "on.replay.shop" not in without.output
    assert "replay" not in without.stderr


def test_dead_letters_of_a_topic_that_is_not_there_need_to_be_told_their_size(kafka: MockKafka) -> None:
    untold = streamworker(kafka, "topics", "create", "mock_shop:Elsewhere", "--dry-run")
    told = streamworker(
        kafka, "topics", "create", "mock_shop:Elsewhere", "--dry-run", "--partitions", "3", "--replication", "1"
    )

    assert untold.exit_code == 2
    assert "--partitions" in untold.stderr
    assert told.exit_code == 0


def test_offsets_are_shown_with_their_lag_and_their_writer(kafka: MockKafka) -> None:
    commit(kafka, 4, "sw1 q=1")

    result = streamworker(kafka, "offsets", "show", "g", "--topic", "in", "--json")

    first, second = json.loads(result.stdout)
    assert first == {
        "topic": "in",
        "partition": 0,
        "committed": 4,
        "start": 0,
        "end": 6,
        "lag": 2,
        "written_by": "streamworker",
        "progress": None,
    }
    assert (second["committed"], second["lag"], second["written_by"]) == (None, 0, None)


def test_offsets_are_shown_with_what_lies_beside_them(kafka: MockKafka) -> None:
    progress = Progress(1, ((3, 4),), {1: 2, 2: 1}, running=True, suspect=Suspect(1, 2, 1), owner="5f0c31aa")
    commit(kafka, 1, encode(7, progress).text)

    table = streamworker(kafka, *SHOW).stdout
    (shown,) = json.loads(streamworker(kafka, *SHOW, "--json").stdout)

    assert re.search(r"in +0 +1 +0 +6 +5 +streamworker +in work +2 +2 +1 to 2 suspected, deaths: 1", table), table
    assert shown["progress"] == {
        "state": "in work",
        "owner": "5f0c31aa",
        "done": [{"first": 3, "last": 4}],
        "attempts": [{"offset": 1, "attempts": 2}, {"offset": 2, "attempts": 1}],
        "suspected": {"first": 1, "last": 2, "deaths": 1},
    }


def test_what_was_copied_beside_another_offset_says_nothing_of_it(kafka: MockKafka) -> None:
    commit(kafka, 2, encode(7, Progress(1, ((3, 4),))).text)

    (shown,) = json.loads(streamworker(kafka, *SHOW, "--json").stdout)

    assert (shown["written_by"], shown["progress"]) == ("streamworker", None)


@pytest.mark.parametrize(
    ("target", "after"),
    [
        (["--to-earliest"], 0),
        (["--to-latest"], 6),
        (["--shift-by", "1"], 5),
        (["--shift-by", "-3"], 1),
        (["--shift-by", "99"], 6),
        (["--shift-by", "-99"], 0),
    ],
)
def test_a_reset_moves_to_its_target_within_the_log(kafka: MockKafka, target: list[str], after: int) -> None:
    commit(kafka, 4)

    result = streamworker(kafka, "offsets", "reset", "g", *target, "--topic", "in", "--partition", "0", "--yes")

    assert result.exit_code == 0, result.output
    assert re.search(rf"in +0 +4 +{after} +0 +6 +set", result.output)
    assert committed(kafka) == [after, None]


def test_a_reset_without_yes_changes_nothing(kafka: MockKafka) -> None:
    commit(kafka, 4)

    result = streamworker(kafka, "offsets", "reset", "g", "--to-earliest", "--topic", "in")

    assert result.exit_code == 0
    assert "Nothing was changed; add --yes to do it." in result.output
    assert committed(kafka) == [4, None]


def test_one_offset_can_be_set(kafka: MockKafka) -> None:
    result = streamworker(kafka, "offsets", "set", "g", "--topic", "in", "--partition", "0", "--offset", "2", "--yes")

    assert result.exit_code == 0, result.output
    assert committed(kafka) == [2, None]


def test_an_offset_outside_of_the_log_is_refused(kafka: MockKafka) -> None:
    result = streamworker(kafka, "offsets", "set", "g", "--topic", "in", "--partition", "0", "--offset", "7", "--yes")

    assert result.exit_code == 2
    assert "in[0]: expected an offset from 0 to 6, got 7" in result.stderr


def test_offsets_of_a_live_group_stay(kafka: MockKafka) -> None:
    commit(kafka, 4)
    member = joined(kafka, "g")

    result = streamworker(kafka, "offsets", "reset", "g", "--to-earliest", "--topic", "in", "--yes")
    member.close()

    assert result.exit_code == 3
    assert "UNKNOWN_MEMBER_ID" in result.output
    assert committed(kafka) == [4, None]


def test_a_topic_that_is_not_there_is_named(kafka: MockKafka) -> None:
    result = streamworker(kafka, "offsets", "show", "g", "--topic", "inn")

    assert result.exit_code == 2
    assert "there is no topic 'inn'" in result.stderr
