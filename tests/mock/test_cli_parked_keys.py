"""The commands for keys that follow a dead letter, against librdkafka's mock of a cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from streamworker.cli.main import main
from streamworker.dlq.key_notes import Note, ParkedKey, letter_of
from streamworker.record import TopicPartition
from streamworker.testing.mock_kafka import MockKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

PARKED = [
    ParkedKey("shop", TopicPartition("in", 0), b"a"),
    ParkedKey("shop", TopicPartition("in", 1), b"a"),
    ParkedKey("shop", TopicPartition("in", 1), b"\x8a\x01"),
    ParkedKey("bank", TopicPartition("in", 0), b"a\x1b[31m"),
]


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka(topics={"in": 2, "dlq": 2, "dlq.keys": 1}) as kafka:
        notes = [Note(one, first) for first, one in enumerate(PARKED)]
        for note in (*notes, Note(ParkedKey("shop", TopicPartition("in", 0), b"gone"), 9)):
            letter = letter_of(note, "dlq.keys", 0)
            kafka.produce_raw("dlq.keys", 0, letter.key, letter.value)
        kafka.produce_raw("dlq.keys", 0, ParkedKey("shop", TopicPartition("in", 0), b"gone").encode(), None)
        kafka.produce_raw("dlq.keys", 0, b"no note", b"at all")
        yield kafka


def streamworker(kafka: MockKafka, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--bootstrap-servers", kafka.bootstrap_servers])


def still_parked(kafka: MockKafka) -> list[tuple[str, int, str]]:
    shown = json.loads(streamworker(kafka, "dlq", "keys", "dlq", "--json").stdout)
    return [(one["group"], one["partition"], one["key"]) for one in shown]


def test_all_parked_keys_are_shown(kafka: MockKafka) -> None:
    """Keys that are no text, or that a terminal would act on, are shown as digits."""
    told = streamworker(kafka, "dlq", "keys", "dlq", "--group", "shop")

    assert still_parked(kafka) == [
        ("bank", 0, "0x611b5b33316d"),
        ("shop", 0, "a"),
        ("shop", 1, "a"),
        ("shop", 1, "0x8a01"),
    ]
    assert [line.split() for line in told.stdout.splitlines() if "shop" in line] == [
        ["shop", "in", "0", "a", "0"],
        ["shop", "in", "1", "a", "1"],
        ["shop", "in", "1", "0x8a01", "2"],
    ]


def test_a_key_is_released_in_all_partitions_of_its_group(kafka: MockKafka) -> None:
    dry = streamworker(kafka, "dlq", "release-key", "dlq", "a", "--group", "shop")
    before = len(still_parked(kafka))
    done = streamworker(kafka, "dlq", "release-key", "dlq", "a", "--group", "shop", "--yes")

    assert (dry.exit_code, dry.stderr) == (0, "nothing was changed; add --yes to do it\n")
    assert before == 4
    assert (done.exit_code, done.stdout) == (0, "in[0]: a released\nin[1]: a released\n")
    assert [key for _, _, key in still_parked(kafka)] == ["0x611b5b33316d", "0x8a01"]


@pytest.mark.parametrize("key", ["0x8a01", "8a01"])
def test_a_key_may_be_given_in_digits(kafka: MockKafka, key: str) -> None:
    done = streamworker(kafka, "dlq", "release-key", "dlq", key, "--hex", "--group", "shop", "--yes")

    assert (done.exit_code, done.stdout) == (0, "in[1]: 0x8a01 released\n")


def test_all_keys_of_a_group_are_released(kafka: MockKafka) -> None:
    done = streamworker(kafka, "dlq", "release-key", "dlq", "--all", "--group", "shop", "--yes")

    assert done.exit_code == 0, done.output
    assert still_parked(kafka) == [("bank", 0, "0x611b5b33316d")]


def test_a_key_is_released_where_it_is_parked_in_one_topic_only(kafka: MockKafka) -> None:
    note = letter_of(Note(ParkedKey("shop", TopicPartition("in.replay.shop", 0), b"a"), 3), "dlq.keys", 0)
    kafka.produce_raw("dlq.keys", 0, note.key, note.value)

    done = streamworker(kafka, "dlq", "release-key", "dlq", "a", "--group", "shop", "--in", "in.replay.shop", "--yes")

    assert (done.exit_code, done.stdout) == (0, "in.replay.shop[0]: a released\n")
    assert [key for _, _, key in still_parked(kafka)].count("a") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("dlqq", "a", "--group", "shop"),
            "Error: there is no topic 'dlqq.keys' with parked keys of 'dlqq'; did you mean 'dlq'?",
        ),
        (("dlq", "aa", "--group", "shop"), "Error: key 'aa' is not parked for group 'shop'; did you mean 'a'?"),
        (("dlq", "a", "--group", "nobody"), "Error: key 'a' is not parked for group 'nobody'; none is"),
        (("dlq", "8a0", "--hex", "--group", "shop"), "Error: --hex: '8a0' is not an even number of hexadecimal digits"),
        (("dlq", "--group", "shop"), "Error: give KEY or --all"),
        (("dlq", "a", "--all", "--group", "shop"), "Error: give KEY or --all"),
    ],
)
def test_what_cannot_be_released_is_said(kafka: MockKafka, arguments: tuple[str, ...], message: str) -> None:
    wrong = streamworker(kafka, "dlq", "release-key", *arguments)

    assert wrong.exit_code == 2
    assert message in wrong.stderr
    assert len(still_parked(kafka)) == 4
