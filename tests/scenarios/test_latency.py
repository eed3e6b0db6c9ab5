"""The time from a record's timestamp to its end: of which records it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scenarios.worlds import IN, Obedient, calls, make_world

from streamworker import Listener, Retry, RetryTopic
from streamworker.config import Config, KafkaConfig
from streamworker.testing.virtual_world import VirtualWorld

if TYPE_CHECKING:
    from streamworker.testing.virtual_world import Member


@dataclass
class Told(Listener):
    latencies: list[tuple[str, int]] = field(default_factory=list)

    def latency(self, topic: str, seconds: float) -> None:
        self.latencies.append((topic, round(seconds)))


def produce(world: VirtualWorld, *values: bytes, ago_s: int) -> None:
    for value in values:
        world.broker.produce("in", 0, value, timestamp_ms=world.time.wall_ms() - 1_000 * ago_s)


def at_work(world: VirtualWorld, told: Told, handler: type[Obedient] = Obedient, *, call_s: float = 10.0) -> Member:
    member = world.start(handler, listeners=[told], duration_s=lambda slice_: call_s * len(slice_.messages))
    world.run_for(1)
    return member


def test_it_is_that_of_the_lowest_record_of_what_ends_together() -> None:
    world, told = make_world(), Told()

    produce(world, *[b"fine"] * 40, ago_s=90)
    produce(world, *[b"fine"] * 40, ago_s=10)
    at_work(world, told, call_s=0.0001)
    world.run_to_end("in")

    assert len(calls(world)) == 80
    assert 1 < len(told.latencies) < 15  # a slice has one record at first, later more
    assert told.latencies[0] == ("in", 90)
    assert {seconds for _, seconds in told.latencies} == {90, 10}


def test_a_handler_whose_calls_take_long_is_observed_with_each() -> None:
    world, told = make_world(), Told()

    produce(world, *[b"fine"] * 3, ago_s=90)
    at_work(world, told)
    world.run_to_end("in")

    assert told.latencies == [("in", 100), ("in", 110), ("in", 120)]


def test_what_is_given_up_has_one_as_well() -> None:
    world, told = make_world(), Told()

    produce(world, b"poison", ago_s=90)
    at_work(world, told)
    world.run_to_end("in")

    assert told.latencies == [("in", 100)]


def test_what_comes_back_from_a_retry_topic_counts_once_from_its_first_timestamp() -> None:
    class Delayed(Obedient):
        retry = Retry(attempts=1, topics=(RetryTopic(delay_s=600),))

    topics = {"in": 1, "dlq": 1, "in.retry.test.1": 1}
    world, told = VirtualWorld(topics, config=Config(kafka=KafkaConfig(group="test"))), Told()

    produce(world, b"flaky:1", ago_s=90)
    at_work(world, told, Delayed)
    world.run_for(700)

    ((topic, seconds),) = told.latencies
    assert topic == IN.topic
    assert seconds >= 90 + 600
