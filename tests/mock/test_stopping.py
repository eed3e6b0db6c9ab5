"""How a worker process ends: by one signal, by two, with calls that end and with calls that do not."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError
from fleet.in_process import committed, read
from fleet.workers import Fleet, page, produce, terminate
from servers.ports import free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from streamworker.testing.mock_kafka import MockKafka

DRAIN_S = 3
OPTIONS = {"lifecycle.drain_timeout_s": DRAIN_S, "dead_letters.delivery_timeout_s": 2}


@pytest.fixture
def kafka(mock_kafka: MockKafka) -> MockKafka:
    mock_kafka.create_topic("in", 2)
    return mock_kafka


def fleet_of(kafka: MockKafka, folder: Path, handler: str = "LedgerInOrder") -> Fleet:
    return Fleet(kafka.bootstrap_servers, "g", "in", folder, handler=f"fleet.apps:{handler}", options=OPTIONS)


def write(kafka: MockKafka, *values: str) -> None:
    """All to partition 0."""
    for value in values:
        kafka.produce_raw("in", 0, b"k", value.encode())


def said(fleet: Fleet, text: str, times: int = 1) -> None:
    fleet.wait(lambda: fleet.logs().count(text) >= times, text)


def stopped(worker: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Exit code, and seconds from SIGTERM to the end."""
    began_s = time.monotonic()
    return terminate(worker), time.monotonic() - began_s


def test_an_idle_worker_leaves_at_once(kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]) -> None:
    """F-03. Edge case 93."""
    with fleet_of(kafka, tmp_path) as fleet:
        worker = fleet.start()
        said(fleet, '"assigned"')

        code, seconds = stopped(worker)

    assert (code, seconds < 2) == (0, True)
    figures("F-03", "SIGTERM, idle", exit_code=code, end_s=round(seconds, 1))


def test_a_call_that_ends_in_time_is_finished_and_committed(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-03. Edge case 93: the second record is not begun any more."""
    write(kafka, "slow1.5", "next")
    with fleet_of(kafka, tmp_path) as fleet:
        worker = fleet.start(**{"http.enabled": "true", "http.port": (port := free_port())})
        fleet.wait(lambda: '"offset": 0' in page(port, "status")[1], "the call")

        code, seconds = stopped(worker)

    assert (code, seconds < DRAIN_S) == (0, True)
    assert [line.offset for line in fleet.effects()] == [0]
    assert committed(kafka.bootstrap_servers, "g", "in", 2) == {0: 1}
    figures("F-03", "SIGTERM, a call that ends in time", exit_code=code, end_s=round(seconds, 1))


def test_a_call_that_does_not_end_is_abandoned_named_and_repeated(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-03. Edge case 93: what was done before it is committed; nothing is lost."""
    write(kafka, "done", "slow9999", "next")
    with fleet_of(kafka, tmp_path) as fleet:
        worker = fleet.start(**{"http.enabled": "true", "http.port": (port := free_port())})
        fleet.wait(lambda: '"offset": 1' in page(port, "status")[1], "the call")

        code, seconds = stopped(worker)

        assert code == 3, fleet.logs()
        assert DRAIN_S <= seconds < DRAIN_S + 5
        assert '"abandoned": ["LedgerInOrder in[0]@' in fleet.logs()
        assert committed(kafka.bootstrap_servers, "g", "in", 2) == {0: 1}
    figures("F-03", f"SIGTERM, a call that never ends, drain {DRAIN_S} s", exit_code=code, end_s=round(seconds, 1))


def test_a_stop_under_load_repeats_nothing(kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]) -> None:
    """F-03, F-45. Edge cases 1, 2, 93: signals at random instants; each worker goes on where the last ended."""
    draw = random.Random(seed := random.randrange(2**32))
    total = 3000
    produce(kafka.bootstrap_servers, "in", [(None, str(number)) for number in range(total)], 2)
    codes = []

    with fleet_of(kafka, tmp_path) as fleet:
        for part in range(6):
            worker = fleet.start(**{"app.work_s": 0.002})
            # At least one record of its own: a worker that has not begun dies of a signal like any program.
            aim = max(len(fleet.effects()) + 1, total * part // 8 + draw.randrange(1, total // 8))
            fleet.wait(lambda aim=aim: len(fleet.effects()) >= aim, "progress")
            worker.send_signal(draw.choice([signal.SIGINT, signal.SIGTERM]))
            codes.append(worker.wait(10))
        worker = fleet.start()
        fleet.wait(lambda: len(fleet.effects()) >= total, "all records")
        codes.append(terminate(worker))

    assert codes == [0] * 7, f"seed {seed}: {fleet.logs()}"
    assert len(fleet.effects()) == total, f"seed {seed}"
    handled = {(one.partition, one.offset) for one in fleet.effects()}
    assert handled == {(partition, offset) for partition in (0, 1) for offset in range(total // 2)}
    assert committed(kafka.bootstrap_servers, "g", "in", 2) == {0: total // 2, 1: total // 2}
    figures("F-03", "signals under load", stops=len(codes), records=total, repeats=len(fleet.effects()) - total)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once_and_commits_nothing_unfinished(
    kafka: MockKafka, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """F-04. Edge case 93."""
    write(kafka, "slow9999")
    with fleet_of(kafka, tmp_path) as fleet:
        worker = fleet.start(**{"http.enabled": "true", "http.port": (port := free_port())})
        fleet.wait(lambda: '"offset": 0' in page(port, "status")[1], "the call")
        worker.send_signal(number)
        said(fleet, '"draining"')

        worker.send_signal(number)
        ended = worker.wait(2)

    assert ended == code
    assert committed(kafka.bootstrap_servers, "g", "in", 2) == {}


def test_a_stop_while_a_record_waits_for_its_retry_does_not_wait_for_it(kafka: MockKafka, tmp_path: Path) -> None:
    """F-64. Edge case 94: the back-off is longer than the drain; the record comes again."""
    write(kafka, "done", "later60")
    with fleet_of(kafka, tmp_path) as fleet:
        worker = fleet.start()
        said(fleet, "call failed, tried again")

        code, seconds = stopped(worker)

        assert (code, seconds < 2) == (0, True), fleet.logs()
        assert committed(kafka.bootstrap_servers, "g", "in", 2) == {0: 1}


def test_a_stop_while_the_broker_is_down_ends_within_its_time(kafka: MockKafka, tmp_path: Path) -> None:
    """F-44. Edge case 94: without a coordinator nothing can be committed, and nothing is waited for."""
    write(kafka, *(["x"] * 100))
    with fleet_of(kafka, tmp_path) as fleet:
        worker = fleet.start(**{"commit.interval_s": 60})
        fleet.wait(lambda: len(fleet.effects()) == 100, "all records")
        kafka.broker_down(1)

        code, seconds = stopped(worker)

    assert seconds < DRAIN_S + 5
    assert code in (0, 5), fleet.logs()


def test_a_stop_while_the_dead_letter_topic_refuses_ends_within_its_time(kafka: MockKafka, tmp_path: Path) -> None:
    """Edge cases 56, 94: the letter is not acknowledged, so its record comes again with the next worker."""
    kafka.create_topic("in.dlq", 1)
    write(kafka, "done", "poison", "next")
    kafka.push_errors("Produce", *[KafkaError.POLICY_VIOLATION] * 3)
    with fleet_of(kafka, tmp_path, "LedgerWithDeadLetters") as fleet:
        worker = fleet.start()
        said(fleet, "dead letter refused")

        code, seconds = stopped(worker)
        offsets = committed(kafka.bootstrap_servers, "g", "in", 2)
        fleet.start()
        (letter,) = read(kafka.bootstrap_servers, "in.dlq", 1, 1)

    assert seconds < DRAIN_S + 5
    assert code in (0, 3), fleet.logs()
    assert offsets == {0: 1}
    assert letter.value() == b"poison"


def test_a_stop_before_the_group_is_joined_is_heeded(kafka: MockKafka, tmp_path: Path) -> None:
    """F-04. Edge case 94: no broker has answered yet."""
    with fleet_of(kafka, tmp_path) as fleet:
        kafka.broker_down(1)
        worker = fleet.start()
        said(fleet, '"started"')

        code, seconds = stopped(worker)

    assert (code, seconds < 5) == (0, True), fleet.logs()
