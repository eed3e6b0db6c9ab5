"""Dead letters: acknowledged before the commit, copied byte for byte, never too many, never round for ever."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from scenarios.oracle import violations
from scenarios.worlds import IN, OTHER, Obedient, calls, commits, handled, headers_of, letters_from, make_world, produce

from streamworker import ConfigurationError, DeadLetter, Handler, Ordering, PoisonError, Record, Retry
from streamworker.assembly import refuse_loops
from streamworker.config import DeadLetterConfig
from streamworker.declaration import declarations

if TYPE_CHECKING:
    from collections.abc import Callable


class Poisoned(Obedient):
    """Dead-letters everything."""

    def handle(self, record: Record[bytes]) -> None:
        raise PoisonError("never")


def test_the_source_is_not_committed_before_the_letter_is_acknowledged() -> None:
    """Edge case 56. Promise 9: the acknowledgement takes ten seconds, so the commit does, too."""
    world = make_world()
    produce(world, b"poison", b"fine")
    world.broker.produce_latency_s = 10

    world.start(Obedient)
    world.run_for(8)
    before = commits(world)
    world.run_to_end("in")

    assert before == []
    assert not list(violations(world, "in", "dlq"))


@pytest.mark.parametrize("error", ["_MSG_TIMED_OUT", "TOPIC_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART"])
def test_a_refused_letter_stops_its_partition_until_it_is_taken(error: str) -> None:
    """Edge case 56. The record is not dropped, the others run, and the partition goes on by itself."""
    world = make_world(2)
    produce(world, b"fine", b"poison", *[b"fine"] * 5)
    produce(world, *[b"fine"] * 5, partition=1)
    world.broker.produce_error = lambda _topic: error
    member = world.start(Obedient)
    world.run_for(100)
    committed, tries = world.broker.committed(IN), len(member.story.refused_letters)

    world.broker.produce_error = lambda _topic: None
    world.run_to_end("in", timeout_s=40)

    assert committed == 1
    assert 5 <= tries <= 10
    assert [reason for _, reason, _ in member.story.stops] == ["dead_letter_refused"]
    assert member.story.mends == [(IN, "dead_letter_refused")]
    assert letters_from(world) == [b"poison"]
    assert handled(world, OTHER) == list(range(5))


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe\x00 not text", b"plain"])
@pytest.mark.parametrize("key", [None, b"", b"\x80key"])
def test_key_value_and_headers_are_copied_byte_for_byte(value: bytes | None, key: bytes | None) -> None:
    """Edge case 57. Tombstones stay tombstones; headers keep order, duplicates and nulls."""
    world = make_world()
    headers = [("trace", b"\xff\x00"), ("trace", b"2"), ("empty", b""), ("null", None)]
    world.broker.produce("in", 0, value, key=key, headers=headers)

    world.start(Poisoned)
    world.run_to_end("in")

    letter = world.broker.records("dlq")[0]
    assert (letter.key(), letter.value()) == (key, value)
    assert (letter.headers() or [])[:4] == headers


def test_a_letter_is_dated_now_and_remembers_when_the_record_was_made() -> None:
    """Edge case 58. With the original date, retention might delete it at once."""
    world = make_world()
    made_ms = world.broker.time.wall_ms()
    produce(world, b"poison")
    world.run_for(86_400)

    world.start(Obedient)
    world.run_to_end("in")

    assert world.broker.records("dlq")[0].timestamp()[1] >= made_ms + 86_400_000
    assert headers_of(world, 0)["sw-origin-timestamp"] == str(made_ms)


def test_a_letter_that_fails_again_fifty_times_does_not_grow() -> None:
    """Edge case 60. What we wrote is replaced, what the record brought is kept."""
    world = make_world()
    world.broker.produce("in", 0, b"value", key=b"key", headers=[("trace", b"1")])
    world.start(Poisoned)
    world.run_to_end("in")

    for _ in range(50):
        letter = world.broker.records("dlq")[-1]
        world.broker.produce("in", 0, letter.value(), key=letter.key(), headers=letter.headers() or [])
        world.run_to_end("in")

    headers = [letter.headers() or [] for letter in world.broker.records("dlq")]
    assert [len(one) for one in headers] == [len(headers[0])] * 51
    assert all(one[0] == ("trace", b"1") for one in headers)


def test_a_worker_that_would_read_its_own_dead_letters_is_refused(figures: Callable[..., None]) -> None:
    """F-66. Edge case 61. Otherwise what fails goes round for ever."""

    class Snake(Obedient):
        topics = ("in", "^dlq.*")

    with pytest.raises(ConfigurationError, match="for ever"):
        refuse_loops(declarations([Snake]))
    figures("F-66", "a handler reads its own dead letters", start="refused")


def test_a_smaller_dead_letter_topic_keeps_the_order_of_each_source_partition() -> None:
    """Edge case 62. Five partitions into two."""
    world = make_world(5, letters=2)
    for number in range(20):
        for partition in range(5):
            produce(world, b"%d" % number, partition=partition)

    world.start(Poisoned)
    world.run_to_end("in")

    placed: dict[str, list[tuple[int, int]]] = {}
    for number, letter in enumerate(world.broker.records("dlq")):
        headers = headers_of(world, number)
        place = (letter.partition(), int(headers["sw-origin-offset"]))
        placed.setdefault(headers["sw-origin-partition"], []).append(place)
    assert len(placed) == 5
    assert all(found == [(int(source) % 2, offset) for offset in range(20)] for source, found in placed.items())


def test_a_deploy_that_fails_everything_writes_a_bounded_number_of_letters() -> None:
    """F-67. Edge case 66. The partition pauses and says so; what it does not write, it does not drop."""
    world = make_world()
    produce(world, *[b"bad"] * 3000)

    member = world.start(Poisoned)
    world.run_for(3600)
    letters = len(letters_from(world))

    assert 1000 <= letters <= 1000 + 360 + 1
    assert (IN, "dead_letter_budget") in member.story.pauses
    assert commits(world)[-1] <= letters
    assert not member.story.stops


def test_a_partition_out_of_budget_goes_on_with_what_time_and_successes_bring() -> None:
    """Edge case 66. A small budget for a few bad records among many good ones holds nobody for long."""
    world = make_world(dead_letters=DeadLetterConfig(budget=2, records_per_token=10, seconds_per_token=10))
    produce(world, *[b"poison", *[b"fine"] * 20] * 30)

    member = world.start(Obedient)
    world.run_to_end("in", timeout_s=60)

    assert len(letters_from(world)) == 30
    assert not list(violations(world, "in", "dlq"))
    assert member.worker.ledger.reasons(IN) == {}


def test_later_records_of_the_key_go_on_once_the_letter_is_handed_over() -> None:
    """Edge case 56. They do not wait for its acknowledgement, but the commit does."""
    world = make_world()
    world.broker.produce_latency_s = 10
    produce(world, b"poison", *[b"fine"] * 5, key=b"same")
    kind = type("ByKey", (Obedient,), {"ordering": Ordering.KEY})

    world.start(kind)
    world.run(lambda: len(handled(world)) == 5, timeout_s=2)

    assert commits(world) == []


def test_unacknowledged_letters_are_bounded() -> None:
    """Edge case 66. Beyond the limit the partition waits for acknowledgements."""
    world = make_world(dead_letters=DeadLetterConfig(max_unacknowledged=10))
    world.broker.produce_latency_s = 5
    produce(world, *[b"bad"] * 100)

    member = world.start(Poisoned)
    world.run_for(4)
    called = len(calls(world))
    world.run_to_end("in")

    assert 10 <= called <= 20
    assert (IN, "dead_letters_pending") in member.story.pauses
    assert len(letters_from(world)) == 100


def test_a_crash_before_the_acknowledgement_repeats_the_letter_with_the_same_id() -> None:
    """Edge case 56. A duplicate is possible, a loss is not."""
    world = make_world()
    produce(world, b"poison")
    world.broker.produce_latency_s = 1
    first = world.start(Obedient)
    world.run(lambda: bool(calls(world)))
    world.kill(first)

    world.start(Obedient)
    world.run_to_end("in")

    ids = [headers_of(world, number)["sw-id"] for number in range(len(letters_from(world)))]
    assert ids == ["test/in/0/0"] * 2


def test_a_letter_too_large_for_the_topic_keeps_its_value_and_loses_its_headers_first() -> None:
    """Edge case 56. Promise 9: trimmed before it is reduced to a pointer."""
    world = make_world()
    value = b"x" * 900_000
    world.broker.produce("in", 0, value, headers=[("padding", b"y" * 200_000)])

    world.start(Poisoned)
    world.run_to_end("in")

    assert letters_from(world) == [value]
    assert "padding" not in headers_of(world, 0)
    assert "headers" in headers_of(world, 0)["sw-trimmed"]


def test_a_value_too_large_for_the_topic_becomes_a_pointer() -> None:
    """Edge case 56. Promise 9: topic, partition, offset and SHA-256 of what is still in the source."""
    world = make_world()
    value = b"x" * 1_020_000
    produce(world, value)

    world.start(Poisoned)
    world.run_to_end("in")

    pointer = json.loads(headers_of(world, 0)["sw-pointer"])
    assert letters_from(world) == [None]
    assert pointer == {
        "sha256": hashlib.sha256(value).hexdigest(),
        "size": len(value),
        "topic": "in",
        "partition": 0,
        "offset": 0,
    }


def test_letters_are_flushed_when_the_worker_stops() -> None:
    """Edge case 18. Handed over, acknowledged and committed past within the drain."""
    world = make_world()
    world.broker.produce_latency_s = 3
    produce(world, b"poison", b"poison")
    member = world.start(Obedient)
    world.run(lambda: len(calls(world)) == 2)

    exit_code = world.stop(member)

    assert exit_code == 0
    assert world.broker.committed(IN) == 2


def test_waiting_for_a_topic_that_refuses_costs_no_busy_loop() -> None:
    """Edge case 56. Between two tries there is nothing to do, so the worker sleeps."""
    world = make_world()
    produce(world, b"poison")
    world.broker.produce_error = lambda _topic: "_MSG_TIMED_OUT"
    member = world.start(Obedient)
    world.run(lambda: bool(member.story.stops))

    steps = 0
    until_s = world.time.monotonic_s() + 100
    while world.time.monotonic_s() < until_s:
        member.worker.step()
        steps += 1

    assert steps < 100 * 50


def test_dead_letters_of_two_handlers_go_to_their_own_topics() -> None:
    """Edge case 90. Neither holds up the other."""
    world = make_world()
    world.broker.add_partitions("second", 1)
    world.broker.add_partitions("second.dlq", 1)

    class Second(Handler[bytes]):
        topics = ("second",)
        dead_letter = DeadLetter("second.dlq")
        retry = Retry(attempts=1)

        def handle(self, record: Record[bytes]) -> None:
            raise ValueError("bad")

    produce(world, b"poison", b"fine")
    world.broker.produce("second", 0, b"anything")
    world.broker.produce_error = lambda topic: "_MSG_TIMED_OUT" if topic == "dlq" else None

    world.start(Obedient, Second)
    world.run_to_end("second", timeout_s=10)

    assert [letter.value() for letter in world.broker.records("second.dlq")] == [b"anything"]
    assert letters_from(world) == []
