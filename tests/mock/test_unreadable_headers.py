"""Headers as any producer may send them, up to names that the client cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.in_process import Running, committed, config, read
from fleet.workers import Fleet

from streamworker import DeadLetter, Handler, PoisonError

if TYPE_CHECKING:
    from pathlib import Path

    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka

UNREADABLE = [(b"\xff\xfe", b"v"), (b"fine", b"w")]
WARM = 40  # records after which the interpreter calls the client's methods in its short way, which checks less


def test_a_header_name_that_is_not_utf_8_harms_neither_the_worker_nor_the_next_record(
    mock_kafka: MockKafka, tmp_path: Path
) -> None:
    """F-52. Edge case 109: in a process of its own, because reading such headers twice crashes it; retries included."""
    mock_kafka.create_topic("in", 1)
    mock_kafka.create_topic("in.dlq", 1)
    for number in range(WARM):
        mock_kafka.produce_raw("in", 0, None, b"%d" % number, [(b"a", b"1")])
    mock_kafka.produce_raw("in", 0, None, b"flaky", UNREADABLE)
    mock_kafka.produce_raw("in", 0, None, b"next", [(b"a", b"1")])

    with Fleet(mock_kafka.bootstrap_servers, "g", "in", tmp_path, handler="fleet.apps:HeaderReader") as fleet:
        code = fleet.start("--until-end").wait(20)

    assert code == 0, fleet.logs()
    assert [(line.offset, line.attempt) for line in fleet.effects()][-2:] == [(WARM, 3), (WARM + 1, 1)]
    assert committed(mock_kafka.bootstrap_servers, "g", "in", 1) == {0: WARM + 2}


def test_a_record_with_unreadable_headers_is_dead_lettered_with_a_mark(mock_kafka: MockKafka, tmp_path: Path) -> None:
    """F-52. Edge cases 57, 109: at once, and after retries that have read them."""
    mock_kafka.create_topic("in", 1)
    mock_kafka.create_topic("in.dlq", 1)
    for number in range(WARM):
        mock_kafka.produce_raw("in", 0, None, b"%d" % number, [(b"a", b"1")])
    mock_kafka.produce_raw("in", 0, b"\xff", b"poison", UNREADABLE)
    mock_kafka.produce_raw("in", 0, b"k", b"failing", UNREADABLE)

    with Fleet(mock_kafka.bootstrap_servers, "g", "in", tmp_path, handler="fleet.apps:HeaderReader") as fleet:
        code = fleet.start("--until-end").wait(20)

    assert code == 0, fleet.logs()
    letters = read(mock_kafka.bootstrap_servers, "in.dlq", 1, 2)
    assert [(one.key(), one.value()) for one in letters] == [(b"\xff", b"poison"), (b"k", b"failing")]
    for letter in letters:
        headers = dict(letter.headers() or [])
        assert headers["sw-headers-unreadable"] == b"1"
        assert headers["sw-origin-topic"] == b"in"


def test_headers_of_all_kinds_survive_to_the_dead_letter_byte_for_byte(mock_kafka: MockKafka) -> None:
    """F-52. Edge cases 57, 58, 109: nulls, empty ones, repeated names, bytes that are no text, foreign `sw-` names."""
    mock_kafka.create_topic("in", 3)
    mock_kafka.create_topic("in.dlq", 3)
    headers = [
        (b"n", None),
        (b"", b""),
        (b"d", b"1"),
        (b"d", b"2"),
        (b"x", b"\x00\xff" * 100),
        ("ü".encode(), b"u"),
        *[(b"many", b"%d" % number) for number in range(200)],
    ]
    bodies: list[tuple[bytes | None, bytes | None]] = [(b"k", None), (None, b""), (b"", b"\x00\xff\xfe")]
    for partition, (key, value) in enumerate(bodies):
        mock_kafka.produce_raw("in", partition, key, value, [*headers, (b"sw-attempts", b"999")])

    class Poison(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("in.dlq")

        def handle(self, record: Record[bytes]) -> None:
            raise PoisonError("no")

    with Running(config(mock_kafka.bootstrap_servers), Poison, max_records=3) as worker:
        assert worker.ended() == 0
    letters = read(mock_kafka.bootstrap_servers, "in.dlq", 3, 3)

    assert [(one.key(), one.value()) for one in letters] == bodies
    for letter in letters:
        copied = letter.headers() or []
        assert copied[: len(headers)] == [(name.decode(), value) for name, value in headers]
        ours = copied[len(headers) :]
        assert all(name.startswith("sw-") for name, _ in ours)
        assert [value for name, value in ours if name == "sw-attempts"] == [b"1"]
        original_ms = int(dict(ours)["sw-origin-timestamp"] or 0)
        assert letter.timestamp()[1] >= original_ms > 0
