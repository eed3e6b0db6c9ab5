"""The views of a desk that follows topics: what becomes of them when topics come, go and are made anew."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, cast

import pytest
from dead_letters import TOPIC
from fleet.workers import wait_for
from memory_log import MemoryLog

from streamworker.cli.desks import dead_letter_topics
from streamworker.cluster import TopicShape
from streamworker.errors import ConfigurationError
from streamworker.record import TopicPartition
from streamworker.replay.filters import Filter
from streamworker.replay.views import Views
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.cluster import Cluster
    from streamworker.replay.clients import Clients

OTHER = "payments.dlq"
PATIENCE_S = 10.0


class World:
    """A cluster with its topics, and a log to read them."""

    def __init__(self) -> None:
        self.ids = {TOPIC: "first", OTHER: "other"}
        self.log = MemoryLog()
        self.clock = VirtualTime()

    def topics(self, timeout_s: float) -> Mapping[str, TopicShape]:
        return {name: TopicShape(1, 1) for name in self.ids}

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> Mapping[str, str]:
        return {name: self.ids[name] for name in topics}

    def new_log(self) -> MemoryLog:
        return self.log

    def pass_time(self) -> None:
        """Until topics are looked for again."""
        self.clock.wait(31.0, lambda: False)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def views(world: World) -> Iterator[Views]:
    world.log.append(TOPIC, value=b"v")
    world.log.append(OTHER, value=b"v")
    with closing(Views(cast("Cluster", world), cast("Clients", world), world.clock, 1.0)) as views:
        yield views


def counted(views: Views, topic: str, count: int) -> Callable[[], bool]:
    return lambda: topic in views and views.all[topic].count(Filter()) == count


def test_a_topic_that_is_gone_is_not_shown_any_more(world: World, views: Views) -> None:
    views.follow(dead_letter_topics)
    wait_for(counted(views, TOPIC, 1), lambda: "its letter", PATIENCE_S)

    del world.ids[TOPIC]
    world.pass_time()

    wait_for(lambda: list(views.all) == [OTHER], lambda: "one view", PATIENCE_S)


def test_a_topic_that_was_made_anew_has_another_view(world: World, views: Views) -> None:
    views.follow(dead_letter_topics)
    wait_for(counted(views, TOPIC, 1), lambda: "its letter", PATIENCE_S)
    before = views.of(TOPIC)

    world.ids[TOPIC] = "second"
    world.pass_time()

    wait_for(lambda: TOPIC in views and views.of(TOPIC) is not before, lambda: "another view", PATIENCE_S)


def test_a_topic_whose_reading_goes_wrong_does_not_keep_the_others_from_being_read(world: World, views: Views) -> None:
    world.log.errors[TopicPartition(TOPIC, 0)] = RuntimeError("a mistake of ours")

    views.follow(dead_letter_topics)

    wait_for(counted(views, OTHER, 1), lambda: "the other letter", PATIENCE_S)
    assert any(thread.name == "streamworker-views" for thread in threading.enumerate())


def test_what_is_followed_is_not_read_beside_that(views: Views) -> None:
    views.follow(dead_letter_topics)

    with pytest.raises(ConfigurationError, match="or not yet"):
        views.read("orders", lambda _share: None)
