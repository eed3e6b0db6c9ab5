"""The short way to test a handler: records in, what became of them out."""

from __future__ import annotations

import sys
from subprocess import run
from typing import TYPE_CHECKING

import pytest
from scenarios.worlds import IN, OTHER, Obedient

from streamworker import DeadLetter, Handler, PoisonError, Retry, RetryTopic
from streamworker.errors import DependencyUnavailable
from streamworker.testing import TestRecord, run_handler

if TYPE_CHECKING:
    from streamworker import Record


def test_each_record_is_accounted_for() -> None:
    result = run_handler(Obedient, [b"fine", b"poison", b"flaky:2"])

    assert result.handled == [0, 2]
    assert result.retried == [2, 2]
    assert [letter.reason for letter in result.dead_letters] == ["poison"]
    assert result.committed == {IN: 3}
    assert (result.stopped, result.exit_code) == ({}, 0)
    assert [(offset, type(error)) for offset, error in result.failures] == [
        (1, PoisonError),
        (2, ConnectionError),
        (2, ConnectionError),
    ]


def test_a_record_of_the_replay_topic_is_handled_as_one_of_its_source() -> None:
    origin = [("sw-origin-topic", b"in"), ("sw-origin-partition", b"0"), ("sw-origin-offset", b"7")]
    values = (b"fine", b"poison")

    result = run_handler(Obedient, [TestRecord(one, topic="in.replay.test", headers=origin) for one in values])

    assert result.handled == [0]
    assert [letter.headers["sw-origin-offset"] for letter in result.dead_letters] == ["7"]


def test_hours_of_back_off_cost_no_time() -> None:
    class Patient(Obedient):
        retry = Retry(attempts=3, wait=lambda _state: 3600.0)

    result = run_handler(Patient, [b"broken"])

    assert 7200 <= result.seconds < 7300
    assert len(result.dead_letters) == 1


def test_records_may_have_keys_headers_and_partitions_and_json_is_made_of_plain_values() -> None:
    result = run_handler(Obedient, [TestRecord({"qty": 1}, key="a"), TestRecord("text", partition=1)])

    assert result.committed == {IN: 1, OTHER: 1}
    assert {effect.partition: effect.key for effect in result.effects} == {IN: b"a", OTHER: None}


def test_a_partition_that_stands_still_is_part_of_the_result() -> None:
    class Bare(Obedient):
        dead_letter = None

    result = run_handler(Bare, [b"fine", b"poison", b"fine"])

    assert result.stopped == {IN: "no_dead_letter"}
    assert result.committed == {IN: 1}
    assert result.exit_code == 3


def test_importing_the_kit_imports_no_client() -> None:
    statement = "import sys, streamworker.testing; sys.exit('confluent_kafka' in sys.modules)"

    assert run([sys.executable, "-c", statement], check=False, timeout=60).returncode == 0


def test_what_goes_to_a_retry_topic_comes_back_within_the_run() -> None:
    class Deferring(Handler[bytes]):
        topics = ("in",)
        retry = Retry(attempts=1, topics=(RetryTopic(delay_s=30), RetryTopic(delay_s=30)))
        dead_letter = DeadLetter("dlq")

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"broken" or record.attempt == 1:
                raise ConnectionError("nobody there")

    result = run_handler(Deferring, [TestRecord(b"heals", partition=2), TestRecord(b"broken")])

    assert [(effect.partition.topic, effect.attempt) for effect in result.effects if effect.ok] == [
        ("in.retry.test.1", 2)
    ]
    assert [letter.headers["sw-attempts"] for letter in result.dead_letters] == ["3"]
    assert (result.exit_code, result.stopped) == (0, {})


class Away:
    """Decodes nothing, because what it needs is away."""

    def decode(self, data: bytes, topic: str) -> bytes:
        raise DependencyUnavailable("the registry")

    def encode(self, value: bytes, topic: str) -> bytes:
        raise DependencyUnavailable("the registry")


def test_records_that_never_end_are_not_waited_for_without_end() -> None:
    class Waits(Obedient):
        value = Away()

    with pytest.raises(AssertionError, match="the end of the records was not reached within 600 s"):
        run_handler(Waits, [b"fine"], timeout_s=600)
