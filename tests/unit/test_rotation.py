"""Credentials in files that change while a worker runs: when they are looked at, what is taken, who is told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, cast

import pytest

from streamworker import Handler, KafkaSink, Record
from streamworker.assembly import assemble
from streamworker.cli.rotation import Rotation
from streamworker.cli.settings import load
from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.dlq.key_log import KafkaKeyLog
from streamworker.dlq.outbox import KafkaOutbox
from streamworker.sinks.deliveries import Deliveries
from streamworker.source.kafka import KafkaSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from confluent_kafka import Producer

    from streamworker.cli.settings import Settings


NOWHERE = {"bootstrap.servers": "localhost:1", "group.id": "g"}


class HandClock:
    now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 0


class Bench:
    """Two files, and what was made of them."""

    def __init__(self, folder: Path) -> None:
        self.name, self.password = folder / "name", folder / "password"
        self.name.write_text("orders\n")
        self.password.write_text("first\n")
        self.taken: list[tuple[str, ...]] = []
        self.clock = HandClock()
        self.rotation = Rotation(self.settings(), lambda *taken: self.taken.append(taken), self.clock)

    def settings(self) -> Settings:
        overrides = [
            "kafka.group=g",
            f"kafka.librdkafka.sasl.username_file={self.name}",
            f"kafka.librdkafka.sasl.password_file={self.password}",
        ]
        return load(files=[], environ={}, overrides=overrides)

    def look(self, *, after_s: float = 60.0) -> None:
        self.clock.now_s += after_s
        self.rotation()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_new_password_is_taken_once_within_a_minute(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.look()
    bench.password.write_text("second\n")

    bench.look(after_s=59)
    before = list(bench.taken)
    bench.look(after_s=1)
    bench.look()

    assert before == []
    assert bench.taken == [("orders", "second")]
    assert "second" not in caplog.text


def test_a_file_that_is_away_or_empty_changes_nothing_and_is_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)

    bench.password.unlink()
    bench.look()
    bench.look()
    bench.password.write_text("")
    bench.look()
    nothing = list(bench.taken)
    bench.password.write_text("third")
    bench.look()

    assert nothing == []
    assert bench.taken == [("orders", "third")]
    assert len(caplog.records) == 1


def test_credentials_that_stand_in_no_file_are_not_looked_for(tmp_path: Path) -> None:
    settings = load(files=[], environ={}, overrides=["kafka.librdkafka.sasl.password=fixed"])
    clock, taken = HandClock(), []

    rotation = Rotation(settings, lambda *told: taken.append(told), clock)
    clock.now_s += 120
    rotation()

    assert taken == []


class FakeProducer:
    def __init__(self, settings: dict[str, object], logger: object) -> None:
        self.settings = settings
        self.told: list[tuple[str, str]] = []

    def set_sasl_credentials(self, username: str, password: str) -> None:
        self.told.append((username, password))

    def poll(self, timeout: float) -> int:
        return 0

    def purge(self) -> None: ...

    def __len__(self) -> int:
        return 0


class Made:
    """Makes producers and remembers them."""

    def __init__(self) -> None:
        self.producers: list[FakeProducer] = []

    def __call__(self, settings: dict[str, object], *, logger: object) -> Producer:
        self.producers.append(FakeProducer(settings, logger))
        return cast("Producer", self.producers[-1])


def test_the_producer_of_dead_letters_is_told_and_one_that_is_made_anew_begins_with_them() -> None:
    made = Made()
    outbox = KafkaOutbox({"sasl.password": "first"}, SystemClock(), made)

    outbox.take_credentials("orders", "second")
    outbox._fatal = True
    outbox.poll()

    assert made.producers[0].told == [("orders", "second")]
    assert [one.settings["sasl.password"] for one in made.producers] == ["first", "second"]


def test_the_producers_of_a_sink_are_told_and_those_to_come_begin_with_them() -> None:
    made = Made()
    deliveries = Deliveries({"delivery.timeout.ms": 1_000, "sasl.password": "first"}, SystemClock(), made)
    deliveries.join()
    deliveries._line(alone=False)

    deliveries.take_credentials("orders", "second")
    deliveries._line(alone=True)
    deliveries.leave()

    assert made.producers[0].told == [("orders", "second")]
    assert [one.settings["sasl.password"] for one in made.producers] == ["first", "second"]


class Copy(Handler[bytes]):
    topics = ("in",)
    sink = KafkaSink("out")

    def handle(self, record: Record[bytes]) -> object:
        return record.value


def test_every_client_of_a_worker_takes_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(_self: object, *taken: str) -> None:
        bench.taken.append(taken)

    for door in ("cluster.Cluster", "dlq.outbox.KafkaOutbox", "source.kafka.KafkaSource"):
        monkeypatch.setattr(f"streamworker.{door}.take_credentials", take)
    application = assemble(bench.settings().config, [Copy])
    (context,) = application._contexts
    context.follow_credentials(lambda *taken: bench.taken.append(taken))

    application.take_credentials("orders", "second")
    source = application._source
    application.worker.source.close()

    assert bench.taken == [("orders", "second")] * 4
    assert context.producer()["sasl.password"] == "second"
    assert source is not None
    assert application._new_source(SystemClock()) is not source
    assert application._consumer_settings["sasl.password"] == "second"


class Taker(Protocol):
    def take_credentials(self, username: str, password: str) -> None: ...


def _consumer() -> Taker:
    return KafkaSource(NOWHERE, SystemClock())


def _admin() -> Taker:
    return Cluster({"bootstrap.servers": "localhost:1"})


def _key_log() -> Taker:
    return KafkaKeyLog(NOWHERE, ["dlq.keys"])


def _outbox() -> Taker:
    return KafkaOutbox({"bootstrap.servers": "localhost:1"}, SystemClock())


CLIENTS = (_consumer, _admin, _key_log, _outbox)


@pytest.mark.parametrize("make", CLIENTS, ids=lambda make: make.__name__.strip("_"))
def test_a_real_client_takes_them(make: Callable[[], Taker]) -> None:
    """Of no cluster: that it shows them to a broker is the client library's affair."""
    client = make()

    client.take_credentials("orders", "second")

    with pytest.raises(TypeError):
        client.take_credentials("orders", None)  # type: ignore[arg-type]  # so it was the client that took them
