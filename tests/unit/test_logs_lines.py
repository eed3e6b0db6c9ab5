from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from streamworker import Ending, FatalError, PoisonError, TopicPartition
from streamworker.config import LogConfig
from streamworker.dlq.envelope import envelope
from streamworker.interfaces import Fault, FaultKind
from streamworker.observability import logs
from streamworker.observability.bursts import Bursts
from streamworker.observability.logs import LogListener, configure
from streamworker.observability.redaction import HIDDEN, error_text, looks_secret, safe_text, safe_value
from streamworker.reason import Reason
from streamworker.testing.memory_broker import MemoryMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDERS = TopicPartition("orders", 3)
CANARY = "s3cr3t-4711"


class HandClock:
    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class World:
    def __init__(self, level: str = "INFO") -> None:
        self.stream = io.StringIO()
        self.clock = HandClock()
        self.listener = LogListener(self.clock)
        configure(LogConfig(level=level, format="json"), self.stream)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_a_failure_is_one_line_with_its_place_as_fields() -> None:
    world = World()

    world.listener.failed("StoreOrder", ORDERS, 17, PoisonError("qty is negative"), 1, Ending.DEAD_LETTERED)

    (line,) = world.lines()
    assert line["event"] == "record dead-lettered"
    assert (line["topic"], line["partition"], line["offset"], line["attempt"]) == ("orders", 3, 17, 1)
    assert (line["error_type"], line["error"], line["level"]) == ("PoisonError", "qty is negative", "warning")
    assert "exception" not in line


def test_a_failure_says_in_which_line_of_the_users_code_it_was() -> None:
    world = World()

    world.listener.failed("StoreOrder", ORDERS, 17, raised(), 1, Ending.RETRIED)

    (line,) = world.lines()
    assert line["at"] == f"test_logs_lines.py:{raised.__code__.co_firstlineno + 2} in raised"
    assert "exception" not in line


def test_a_failure_that_is_not_said_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 may fail in a minute."""
    looked: list[BaseException] = []
    monkeypatch.setattr(logs, "where_raised", looked.append)
    world = World()

    for offset in range(1_000):
        world.listener.failed("StoreOrder", ORDERS, offset, KeyError(), 1, Ending.RETRIED)

    assert len(looked) == len(world.lines()) == 5
    assert "at" not in world.lines()[0]


def raised() -> BaseException:
    try:
        raise TypeError("x")  # noqa: TRY301 - it is to have been raised
    except TypeError as error:
        return error


def test_every_line_of_one_of_several_workers_has_its_number() -> None:
    stream = io.StringIO()
    configure(LogConfig(format="json"), stream, worker=3)

    logging.getLogger("shop").info("of the application")
    structlog.get_logger("shop").info("of the application")

    assert [json.loads(line)["worker"] for line in stream.getvalue().splitlines()] == [3, 3]


def test_records_that_expire_are_told_with_the_first_of_them_and_the_age_of_the_oldest() -> None:
    world = World()

    world.listener.expired(ORDERS, 17, 5, 600.25)

    (line,) = world.lines()
    assert line["event"] == "records expired"
    assert (line["topic"], line["partition"], line["offset"], line["records"]) == ("orders", 3, 17, 5)
    assert (line["age_s"], line["level"]) == (600.25, "warning")


def test_a_traceback_is_shown_for_a_fatal_error_and_at_debug_only() -> None:
    usual, debugging = World(), World(level="DEBUG")

    debugging.listener.failed("StoreOrder", ORDERS, 17, PoisonError("x"), 1, Ending.DEAD_LETTERED)
    configure(LogConfig(format="json"), usual.stream)
    usual.listener.failed("StoreOrder", ORDERS, 17, FatalError("x"), 1, Ending.STOPPED)

    assert "PoisonError: x" in str(debugging.lines()[0]["exception"])
    assert "FatalError: x" in str(usual.lines()[0]["exception"])


def test_like_failures_are_said_five_times_and_then_counted() -> None:
    world = World()

    for offset in range(12):
        world.listener.failed("StoreOrder", ORDERS, offset, PoisonError("x"), 1, Ending.DEAD_LETTERED)
    world.clock.now_s = 30.0
    world.listener.commit_answered(1, None, 0.001)

    lines = world.lines()
    assert [line["event"] for line in lines] == ["record dead-lettered"] * 5 + ["more of the same"]
    assert (lines[-1]["what"], lines[-1]["times"]) == ("StoreOrder PoisonError dead_lettered", 7)


def test_other_error_classes_are_said_beside_a_flood() -> None:
    world = World()
    for offset in range(9):
        world.listener.failed("StoreOrder", ORDERS, offset, PoisonError("x"), 1, Ending.DEAD_LETTERED)

    world.listener.failed("StoreOrder", ORDERS, 9, ValueError("y"), 1, Ending.RETRIED)

    assert world.lines()[-1]["error_type"] == "ValueError"


def test_what_was_held_back_is_said_at_the_end() -> None:
    world = World()
    for offset in range(6):
        world.listener.failed("StoreOrder", ORDERS, offset, PoisonError("x"), 1, Ending.DEAD_LETTERED)

    world.listener.closed(3, ["StoreOrder at orders[3]@6"])

    held_back, closed = world.lines()[-2:]
    assert held_back["times"] == 1
    assert (closed["event"], closed["exit_code"]) == ("closed", 3)
    assert closed["abandoned"] == ["StoreOrder at orders[3]@6"]


def test_a_stopped_partition_says_what_will_mend_it() -> None:
    world = World()

    world.listener.stopped(ORDERS, "unauthorized", "TOPIC_AUTHORIZATION_FAILED", mends_itself=True)
    world.listener.stopped(ORDERS, "out_of_range", "offset 5 is below 100", mends_itself=False)

    by_itself, by_hand = world.lines()
    assert by_itself["mend"] == "tried again by itself"
    assert "streamworker offsets" in str(by_hand["mend"])
    assert (by_hand["level"], by_hand["reason"], by_hand["topic"]) == ("error", "out_of_range", "orders")


def test_a_topic_that_does_not_exist_is_said_with_the_command_that_says_more() -> None:
    world = World()

    world.listener.fault(Fault(FaultKind.UNKNOWN_TOPIC, TopicPartition("nmaes", 0), None, "UNKNOWN_TOPIC_OR_PART: no"))
    world.listener.fault(Fault(FaultKind.PASSING, None, None, "_TRANSPORT: gone"))

    unknown, passing = world.lines()
    assert (unknown["topic"], unknown["kind"]) == ("nmaes", "unknown_topic")
    assert "`streamworker check`" in str(unknown["mend"])
    assert "mend" not in passing


def test_each_event_of_the_life_is_a_line() -> None:
    world = World()
    listener = world.listener

    listener.started(["StoreOrder"], "shop")
    listener.assigned([ORDERS])
    listener.paused(ORDERS, "backpressure")
    listener.resumed(ORDERS, "backpressure", 0.5)
    listener.dead_letter_refused(ORDERS, 4, "orders.dlq", "MSG_SIZE_TOO_LARGE")
    listener.mended(ORDERS, "dead_letter_refused")
    listener.commit_answered(1, "FENCED", 0.01)
    listener.commit_unanswered(1)
    listener.foreign_offset(ORDERS, 9)
    listener.late_outcome("StoreOrder", ORDERS, 2)
    listener.fault(Fault(FaultKind.FATAL, None, None, "fenced"))
    listener.stalled("client", "orders[3]")
    listener.head_too_old(ORDERS, 4, 300.4, 7, 20)
    listener.lease_expired(10.05)
    listener.lease_renewed(2.5)
    listener.waiting_for_group(5.0)
    listener.no_broker_reached("kafka-1:9092", 30.0)
    listener.breaker_changed("db", "closed", "open", "3 calls failed in a row")
    listener.revoked([ORDERS], 0.1)
    listener.lost([ORDERS])
    listener.draining("SIGTERM")
    listener.closed(0, [])

    assert [line["event"] for line in world.lines()] == [
        "started",
        "assigned",
        "partition paused",
        "partition resumed",
        "dead letter refused",
        "partition goes on",
        "commit refused, sent again",
        "commit unanswered, sent again",
        "offset of another program accepted",
        "late outcome dropped",
        "client reports a fault",
        "stalled",
        "record holds its partition's commits back",
        "lease expired, no call is started",
        "lease renewed",
        "waiting for the group",
        "no broker reached, trying on; `streamworker check` says more",
        "breaker changed",
        "revoked",
        "lost, nothing could be committed",
        "draining",
        "closed",
    ]


def test_loggers_of_the_standard_library_and_of_structlog_come_out_the_same() -> None:
    world = World()

    logging.getLogger("app").info("stored %d", 3, extra={"customer": "c1"})
    structlog.get_logger("app").info("stored %d", 3, customer="c1")

    first, second = world.lines()
    assert {**first, "timestamp": ""} == {**second, "timestamp": ""}
    assert (first["event"], first["customer"], first["logger"]) == ("stored 3", "c1", "app")


def test_lines_are_json_where_nobody_looks_and_readable_on_a_terminal() -> None:
    file, terminal = io.StringIO(), Terminal()

    configure(LogConfig(), file)
    logging.getLogger("app").info("hello")
    configure(LogConfig(), terminal)
    logging.getLogger("app").info("hello")

    assert json.loads(file.getvalue())["event"] == "hello"
    assert "hello" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_configuring_twice_does_not_log_twice() -> None:
    World()
    world = World()

    logging.getLogger("app").info("once")

    assert len(world.lines()) == 1


def test_no_secret_reaches_the_log_at_debug() -> None:
    world = World(level="DEBUG")
    log = logging.getLogger("app")

    log.info("connecting", extra={"sasl.password": CANARY, "options": {"ssl.key.pem": CANARY}, "token": [CANARY]})
    log.info("redis://user:%s@cache:6379 client.secret=%s", CANARY, CANARY)
    log.info("sent", extra={"key": CANARY, "payload": CANARY.encode()})
    log.error("failed", exc_info=ValueError(f"bad option sasl.password='{CANARY}'"))
    structlog.get_logger("app").debug("x", authorization=f"Bearer {CANARY}", header=f"Authorization: Bearer {CANARY}")

    assert CANARY not in world.stream.getvalue()
    assert len(world.lines()) == 5


def test_an_error_is_cut_at_512_bytes_and_cannot_write_lines() -> None:
    assert error_text(ValueError("é" * 1_000)) == "é" * 256 + "…"
    assert error_text(ValueError("a\nlevel=info \x1b[31m")) == r"a\x0alevel=info \x1b[31m"


def test_an_error_that_cannot_be_printed_is_still_logged() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(Unprintable()) == "<its __str__ failed>"


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "sasl.username",
        "client_secret",
        "ssl.key.location",
        "ssl.ca.pem",
        "apiKey",
        "access_token",
        "key",
    ],
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["topic", "monkey", "offset", "handler", "error_type", "keyed_lanes"])
def test_other_names_are_not_taken_for_secrets(name: str) -> None:
    assert not looks_secret(name)


@given(st.text())
def test_hiding_twice_changes_nothing(text: str) -> None:
    once = safe_text(text)

    assert safe_text(once) == once


def test_values_are_shown_by_their_kind() -> None:
    assert safe_value("records_per_token", 10) == 10
    assert safe_value("payload", b"abc") == "<3 bytes>"
    assert safe_value("partitions", (ORDERS,)) == [["orders", 3]]
    assert safe_value("nested", {"password": "x", "user": "y"}) == {"password": HIDDEN, "user": "y"}


def test_a_flood_of_subjects_shares_a_window() -> None:
    bursts = Bursts()

    passed = sum(bursts.passes((str(number),), 0.0) for number in range(1_000))

    assert passed == 205
    assert bursts.ended(30.0) == {("others",): 795}


def test_a_window_begins_anew_after_its_time() -> None:
    bursts = Bursts(first=1)
    assert bursts.passes(("a",), 0.0)
    assert not bursts.passes(("a",), 29.0)

    bursts.ended(30.0)

    assert bursts.passes(("a",), 30.0)


def test_a_failed_call_is_logged_with_the_fingerprint_of_its_dead_letter() -> None:
    world = World()
    for text in ("order 17 has no customer", "order 4711 has no customer", "no price"):
        world.listener.failed("StoreOrder", ORDERS, 9, PoisonError(text), 1, Ending.DEAD_LETTERED)

    first, second, other = (line["fingerprint"] for line in world.lines())

    letter = envelope(
        MemoryMessage(ORDERS, 9, value=b"x"),
        topic="orders.dlq",
        group="shop",
        handler="StoreOrder",
        reason=Reason.POISON,
        error=PoisonError("order 3 has no customer"),
        attempts=1,
        attempt_log=(),
        now_ms=1,
        max_bytes=1_000_000,
    )
    assert first == second
    assert first != other
    assert dict(letter.facts)["sw-fingerprint"] == str(first).encode()
