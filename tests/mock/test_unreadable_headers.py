"""Headers as any producer may send them, up to names that the client cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.in_process import Running, committed, config, read

from streamworker import DeadLetter, Handler, PoisonError, Retry

if TYPE_CHECKING:
    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka

UNREADABLE = [(b"\xff\xfe", b"v"), (b"fine", b"w")]


def test_a_header_name_that_is_not_utf_8_reaches_the_handler_as_no_headers(mock_kafka: MockKafka) -> None:
    """Edge case 109: reading such headers twice crashes the process, so they are read once, retries included."""
    mock_kafka.create_topic("in", 1)
    mock_kafka.produce_raw("in", 0, b"k", b"v", UNREADABLE)
    mock_kafka.produce_raw("in", 0, b"k", b"next", [(b"a", b"1")])
    seen: list[tuple[int, int, bool, list[str]]] = []

    class Twice(Handler[bytes]):
        topics = ("in",)
        retry = Retry(attempts=3, base_s=0.01)

        def handle(self, record: Record[bytes]) -> None:
            for _ in range(2):
                headers = record.headers
            seen.append((record.offset, record.attempt, headers.readable, [name for name, _ in headers]))
            if record.attempt < 3 and record.offset == 0:
                raise ConnectionError

    with Running(config(mock_kafka.bootstrap_servers), Twice, max_records=2) as worker:
        assert worker.ended() == 0

    assert seen == [(0, 1, False, []), (0, 2, False, []), (0, 3, False, []), (1, 1, True, ["a"])]
    assert committed(mock_kafka.bootstrap_servers, "g", "in", 1) == {0: 2}


def test_a_record_with_unreadable_headers_is_dead_lettered_with_a_mark(mock_kafka: MockKafka) -> None:
    """Edge cases 57, 109: after retries that have read them, and without a look at them by the handler."""
    mock_kafka.create_topic("in", 1)
    mock_kafka.create_topic("in.dlq", 1)
    mock_kafka.produce_raw("in", 0, b"k", b"touched", UNREADABLE)
    mock_kafka.produce_raw("in", 0, b"\xff", b"untouched", UNREADABLE)

    class Failing(Handler[bytes]):
        topics = ("in",)
        retry = Retry(attempts=2, base_s=0.01)
        dead_letter = DeadLetter("in.dlq")

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"touched":
                assert not record.headers.readable
                raise ConnectionError
            raise PoisonError

    with Running(config(mock_kafka.bootstrap_servers), Failing, max_records=2) as worker:
        assert worker.ended() == 0
    letters = read(mock_kafka.bootstrap_servers, "in.dlq", 1, 2)

    assert sorted((one.key(), one.value()) for one in letters) == [(b"k", b"touched"), (b"\xff", b"untouched")]
    for letter in letters:
        headers = dict(letter.headers() or [])
        assert headers["sw-headers-unreadable"] == b"1"
        assert headers["sw-origin-topic"] == b"in"


def test_headers_of_all_kinds_survive_to_the_dead_letter_byte_for_byte(mock_kafka: MockKafka) -> None:
    """Edge cases 57, 58, 109: nulls, empty ones, repeated names, bytes that are no text, foreign `sw-` names."""
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
