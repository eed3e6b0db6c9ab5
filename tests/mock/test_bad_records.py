"""Records as no producer should send them: worker and neighbours go on, and the dead letter shows what can be shown."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from confluent_kafka import Producer
from fleet.in_process import Running, committed, config, read
from fleet.workers import Fleet, terminate
from msgspec import Struct
from servers.ports import free_port
from sizes import SOAK

from streamworker import DeadLetter, Handler, Json, PoisonError, Retry, RetryableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Message

    from streamworker import Record

    Header = tuple[str, str | bytes | None]
    from streamworker.testing.mock_kafka import MockKafka

HEADERS = 40_000
MEMORY_FACTOR, MEMORY_BYTES = 20, 10 * 1024 * 1024
LARGE_BYTES = 2_000_000  # what the producer here takes
BOMB_BYTES = 64 << 20
WORKER_BYTES = 64 << 20  # what a worker has at rest, or a little more
TIMEOUT_S = 20
YEAR_9999_MS = 253_402_300_799_000


@pytest.fixture
def kafka(mock_kafka: MockKafka) -> MockKafka:
    mock_kafka.create_topic("in", 1)
    mock_kafka.create_topic("in.dlq", 1)
    return mock_kafka


class Poison(Handler[bytes]):
    """Dead-letters all, after a look at all headers."""

    topics = ("in",)
    dead_letter = DeadLetter("in.dlq")

    def handle(self, record: Record[bytes]) -> None:
        assert record.headers.last("none of these") is None
        raise PoisonError


def memory_of(pid: int) -> dict[str, int]:
    """`VmRSS` is what it has in bytes, `VmHWM` the most it had."""
    lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.endswith("kB")]
    return {name.rstrip(":"): int(kib) * 1024 for name, kib, _ in lines}


def large_producer(kafka: MockKafka) -> Producer:
    return Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.max.bytes": LARGE_BYTES})


def headers_of(letter: Message) -> tuple[list[tuple[str, bytes | None]], dict[str, bytes | None]]:
    """The record's own headers, and ours."""
    headers = cast("list[tuple[str, bytes | None]]", letter.headers() or [])
    own = [(name, value) for name, value in headers if not name.startswith("sw-")]
    return own, {name: value for name, value in headers if name.startswith("sw-")}


def test_headers_in_any_number_and_size_are_copied_as_far_as_there_is_room(
    kafka: MockKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-52. In a process of its own, which a crash would end; the client shows a name up to its first NUL only."""
    servers = kafka.bootstrap_servers
    many: list[Header] = [(f"h{number % 7}", None if number % 3 else b"%d" % number) for number in range(1000)]
    whole: list[Header] = [("h", b"x" * 1_000_000)]
    too_large: list[Header] = [("h", b"x" * 1_200_000)]
    producer = large_producer(kafka)
    for headers in (many, whole, too_large):
        producer.produce("in", b"poison", key=b"k", headers=headers)
    assert producer.flush(30) == 0
    kafka.produce_raw(
        "in", 0, b"k", b"poison", [(b"a\x00b", b"nul"), (b"", b""), (b"", None), (b"d", b"1"), (b"d", b"2")]
    )
    kafka.produce_raw("in", 0, b"k", b"next", [(b"a", b"1")])

    with Fleet(servers, "g", "in", tmp_path, handler="fleet.apps:HeaderReader") as fleet:
        code = fleet.start("--until-end").wait(30)

    assert code == 0, fleet.logs()
    assert [line.offset for line in fleet.effects()] == [4]
    copies = [headers_of(letter) for letter in read(servers, "in.dlq", 1, 4)]
    odd = [("a", b"nul"), ("", b""), ("", None), ("d", b"1"), ("d", b"2")]
    assert [own for own, _ in copies] == [many, whole, [], odd]
    assert [ours.get("sw-trimmed") for _, ours in copies] == [None, None, b"details,headers", None]
    assert committed(servers, "g", "in", 1) == {0: 5}
    figures("F-52", "1 000 headers, 1 MB in one, names with NUL, empty and twice", lost=0)


def test_forty_thousand_headers_cost_a_bounded_multiple_of_their_size(
    kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-52. From the fetch to the acknowledged copy."""
    servers = kafka.bootstrap_servers
    sent = [(b"%02d" % (number % 100), b"%02d" % (number % 90)) for number in range(HEADERS)]
    size_bytes = sum(len(name) + len(value) for name, value in sent)
    kafka.produce_raw("in", 0, b"k", b"poison", sent)

    tracemalloc.start()
    try:
        with Running(config(servers), Poison, max_records=1) as worker:
            assert worker.ended() == 0
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    (letter,) = read(servers, "in.dlq", 1, 1)
    assert headers_of(letter)[0] == [(name.decode(), value) for name, value in sent]
    assert peak_bytes <= MEMORY_FACTOR * size_bytes + MEMORY_BYTES
    figures("F-52", f"{HEADERS} headers", input_kib=size_bytes // 1024, peak_kib=peak_bytes // 1024)


@pytest.mark.parametrize("compression", ["gzip", "lz4"])
def test_a_batch_that_grows_to_a_thousand_times_its_size_costs_its_size_in_memory_and_nobody_else(
    kafka: MockKafka, compression: str, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-50. With a limit on memory that it exceeds: it gets through, and what it took is given back."""
    servers = kafka.bootstrap_servers
    sender = Producer(
        {"bootstrap.servers": servers, "message.max.bytes": 2 * BOMB_BYTES, "compression.type": compression}
    )
    for value in (b"fine", bytes(BOMB_BYTES), b"fine"):
        sender.produce("in", value, partition=0)
        assert sender.flush(TIMEOUT_S) == 0
    del sender
    limit_bytes = WORKER_BYTES + BOMB_BYTES // 2
    with Fleet(servers, "g", "in", tmp_path, handler="fleet.apps:LedgerWithDeadLetters") as fleet:
        worker = fleet.start(**{"lifecycle.max_rss_bytes": limit_bytes})
        fleet.wait(lambda: committed(servers, "g", "in", 1) == {0: 3}, "committed")
        assert memory_of(worker.pid)["VmHWM"] > limit_bytes
        fleet.wait(lambda: memory_of(worker.pid)["VmRSS"] < limit_bytes, "given back")
        assert terminate(worker) == 0
        seen = [effect.offset for effect in fleet.effects()]

    assert seen == [0, 2]
    (letter,) = read(servers, "in.dlq", 1, 1)
    assert headers_of(letter)[1]["sw-reason"] == b"undecodable_value"
    pauses = fleet.logs().count("too much memory")
    figures("F-50", f"{BOMB_BYTES >> 20} MiB from a batch of {compression}", records=3, repeats=0, pauses=pauses)


class Order(Struct):
    id: int
    note: object = None


NOT_ORDERS = {
    "deeper than may be read": b'{"id": 1, "note": ' + b"[" * 500 + b"]" * 500 + b"}",
    "deeper than can be read": b'{"id": 1, "note": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "an integer of 5 000 digits": b'{"id": ' + b"7" * 5000 + b"}",
    "no number": b'{"id": NaN}',
    "half of a surrogate pair": rb'{"id": 1, "note": "\ud800"}',
    "a byte-order mark": b'\xef\xbb\xbf{"id": 1}',
    "bytes that are no text": b'{"id": 1, "note": "\xff"}',
    "another type": b"null",
    "nothing": b"",
    "larger than may be decoded": b'{"id": 1, "note": "' + b"x" * 1_100_000 + b'"}',
}


def test_what_is_not_json_is_dead_lettered_without_a_call_and_the_next_record_is_handled(
    kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-53. In order of offset; a null value is a tombstone, which the handler gets."""
    servers = kafka.bootstrap_servers
    producer = large_producer(kafka)
    for number, value in enumerate(NOT_ORDERS.values()):
        producer.produce("in", value, key=b"k")
        producer.produce("in", b'{"id": %d, "id": %d}' % (-1, number), key=b"k")
    producer.produce("in", None, key=b"k")
    assert producer.flush(30) == 0
    handled: list[int | None] = []

    class Orders(Handler[Order | None]):
        topics = ("in",)
        value = Json(Order)
        dead_letter = DeadLetter("in.dlq")

        def handle(self, record: Record[Order | None]) -> None:
            handled.append(None if record.value is None else record.value.id)

    with Running(config(servers), Orders, until_end=True) as worker:  # type: ignore[arg-type]  # a handler of Order
        assert worker.ended() == 0

    letters = read(servers, "in.dlq", 1, len(NOT_ORDERS))
    facts = [headers_of(letter)[1] for letter in letters]
    assert handled == [*range(len(NOT_ORDERS)), None]
    assert [(one["sw-reason"], one["sw-attempts"]) for one in facts] == [(b"undecodable_value", b"1")] * len(facts)
    assert [letter.value() for letter in letters] == list(NOT_ORDERS.values())
    figures("F-53", "what is not JSON, end to end", records=2 * len(letters) + 1, dead_letters=len(letters), lost=0)


def test_timestamps_beyond_the_calendar_harm_nobody(kafka: MockKafka, figures: Callable[..., None]) -> None:
    """F-57. The handler gets None for what is no time, and the copy does not claim any."""
    servers = kafka.bootstrap_servers
    times_ms = [-1, -(2**40), YEAR_9999_MS, YEAR_9999_MS + 1000, 2**63 - 1, 1]
    producer = Producer({"bootstrap.servers": servers})
    for timestamp_ms in times_ms:
        producer.produce("in", b"x", timestamp=timestamp_ms)
    assert producer.flush(30) == 0
    seen: list[tuple[int | None, datetime | None]] = []

    class Looks(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("in.dlq")

        def handle(self, record: Record[bytes]) -> None:
            seen.append((record.timestamp_ms, record.timestamp))
            raise PoisonError

    with Running(config(servers, http__enabled="true", http__port=free_port()), Looks) as worker:
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: len(times_ms)}, "all committed")
        assert [worker.page(path)[0] for path in ("metrics", "status")] == [200, 200]
        assert worker.stop() == 0

    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    first = datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    assert [at for _, at in seen] == [None, None, last, None, None, first]
    assert [at_ms for at_ms, _ in seen] == [None, None, *times_ms[2:]]
    facts = [headers_of(letter)[1] for letter in read(servers, "in.dlq", 1, len(times_ms))]
    assert [one.get("sw-origin-timestamp") for one in facts] == [None, None, *(b"%d" % one for one in times_ms[2:])]
    figures("F-57", "timestamps before 1970 and after 9999", records=len(times_ms), lost=0)


def test_a_poisoned_record_of_a_hot_key_holds_the_commit_no_longer_than_its_retries(
    kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-58. Meanwhile other keys go on, up to the bound on what a crash may repeat; then all goes on, in order."""
    servers, total, poisoned, max_uncommitted = kafka.bootstrap_servers, 3000 * SOAK, 11, 200
    producer = Producer({"bootstrap.servers": servers})
    for number in range(total):
        producer.produce("in", b"%d" % number, key=b"hot" if number % 10 else b"cold-%d" % (number % 70))
    assert producer.flush(30) == 0
    handled: list[tuple[bytes | None, int]] = []
    reached: list[int] = []

    class Hot(Handler[bytes]):
        topics = ("in",)
        ordering = "key"
        retry = Retry(attempts=3)
        dead_letter = DeadLetter("in.dlq")

        def handle(self, record: Record[bytes]) -> None:
            if record.offset == poisoned:
                reached.append(max(offset for _, offset in handled))
                raise RetryableError(retry_after_s=0.4)
            handled.append((record.raw_key, record.offset))

    with Running(config(servers, commit__max_uncommitted=max_uncommitted), Hot) as worker:
        worker.wait(lambda: committed(servers, "g", "in", 1) == {0: total}, "all committed", 20.0 * SOAK)
        assert worker.stop() == 0

    assert len(reached) == 3
    assert poisoned + max_uncommitted // 2 < reached[-1] < poisoned + max_uncommitted
    assert sorted(offset for _, offset in handled) == [one for one in range(total) if one != poisoned]
    hot = [offset for key, offset in handled if key == b"hot"]
    assert all(before < after for before, after in pairwise(hot))
    (letter,) = read(servers, "in.dlq", 1, 1)
    assert headers_of(letter)[1]["sw-reason"] == b"exhausted"
    figures("F-58", "poisoned hot key", records=total, lost=0, went_on_meanwhile=reached[-1] - poisoned, lag=0)


FORGED: Sequence[tuple[str, bytes]] = [
    ("sw-attempts", b"999"),
    ("sw-origin-topic", b"other"),
    ("sw-origin-partition", b"7"),
    ("sw-origin-offset", b"77"),
    ("sw-id", b"x/y/1/2"),
    ("sw-replay-id", b"r"),
    ("sw-version", b"9"),
    ("sw-trimmed", b"value"),
    ("sw-headers-unreadable", b"1"),
]
DIFFERS = ("sw-id", "sw-origin-offset", "sw-from-offset", "sw-origin-timestamp", "sw-attempt-log")


def test_headers_that_pretend_to_be_ours_change_nothing(kafka: MockKafka, figures: Callable[..., None]) -> None:
    """F-59. A record that was dead-lettered and sent again, or that somebody made up, is like any other."""
    servers = kafka.bootstrap_servers
    producer = Producer({"bootstrap.servers": servers})
    for headers in ([("own", b"1")], [("own", b"1"), *FORGED]):
        producer.produce("in", b"failing", key=b"k", headers=list(headers))
    assert producer.flush(30) == 0
    calls: list[tuple[int, int]] = []

    class Failing(Handler[bytes]):
        topics = ("in",)
        retry = Retry(attempts=3, base_s=0.01)
        dead_letter = DeadLetter("in.dlq")

        def handle(self, record: Record[bytes]) -> None:
            calls.append((record.offset, record.attempt))
            raise ConnectionError("no")

    with Running(config(servers), Failing, max_records=2) as worker:
        assert worker.ended() == 0

    plain, forged = (headers_of(letter) for letter in read(servers, "in.dlq", 1, 2))
    assert calls == [(offset, attempt) for offset in (0, 1) for attempt in (1, 2, 3)]
    assert plain[0] == forged[0] == [("own", b"1")]
    assert _comparable(plain[1]) == _comparable(forged[1])
    assert [one["sw-id"] for one in (plain[1], forged[1])] == [b"g/in/0/0", b"g/in/0/1"]
    figures("F-59", "forged sw- headers", names=len(FORGED), lost=0)


def _comparable(ours: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {name: value for name, value in ours.items() if name not in DIFFERS}
