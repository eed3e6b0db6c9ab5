"""What `check` says of a cluster: right, worth a warning, wrong, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from streamworker import Config, DeadLetter, Handler, HttpSink, Idempotency, KafkaSink, Retry, RetryTopic
from streamworker.cli.findings import MISSING_GROUP, Finding, Level, look, retention_ms
from streamworker.cluster import GroupState, TopicShape
from streamworker.config import KafkaConfig, ReplayConfig
from streamworker.declaration import declaration
from streamworker.errors import ClientError
from streamworker.interfaces import OffsetMark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.record import TopicPartition

DAY_MS = 86_400_000
KEPT = {"retention.ms": str(DAY_MS)}
COMPACTED = {"cleanup.policy": "compact"}
BESIDE = {"orders.replay.g": 2, "orders.dlq.state": 2}


@dataclass
class FakeCluster:
    """Says what it was made with."""

    shapes: Mapping[str, int] = field(default_factory=lambda: {"orders": 2, "orders.dlq": 2, **BESIDE})
    settings: Mapping[str, Mapping[str, str]] | None = field(
        default_factory=lambda: {"orders": KEPT, "orders.dlq": KEPT}
    )
    state: GroupState | None = field(default_factory=lambda: GroupState("STABLE", 3))
    committed: int | None = 7
    bounds: tuple[int, int] = (5, 9)
    down: bool = False
    asked_for_settings: list[str] = field(default_factory=list)

    def topics(self, timeout_s: float) -> Mapping[str, TopicShape]:
        if self.down:
            raise ClientError("connection refused", code="_TRANSPORT")
        return {name: TopicShape(count, 1) for name, count in self.shapes.items()}

    def topic_config(self, name: str, timeout_s: float) -> Mapping[str, str] | None:
        self.asked_for_settings.append(name)
        if self.settings is None:
            return None
        return self.settings.get(name, COMPACTED if name.endswith(".state") else KEPT)

    def group_state(self, group: str, timeout_s: float) -> GroupState | None:
        return self.state

    def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition] | None, timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        mark = None if self.committed is None else OffsetMark(self.committed)
        return dict.fromkeys(partitions or (), mark)

    def log_start_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, self.bounds[0])

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, self.bounds[1])


class StoreOrders(Handler[bytes]):
    topics = ("orders",)
    dead_letter = DeadLetter("orders.dlq")

    def handle(self, record: object) -> None: ...


class Deferring(StoreOrders):
    retry = Retry(topics=(RetryTopic(delay_s=60), RetryTopic(delay_s=2 * 86_400)))


class WithoutDeadLetters(Handler[bytes]):
    topics = ("^ord.*s",)

    def handle(self, record: object) -> None: ...


def found(
    cluster: FakeCluster, *handlers: type[Handler[bytes]], group: str = "g", level: Level | None = None
) -> list[Finding]:
    config = Config(kafka=KafkaConfig(group=group))
    declared = [declaration(one) for one in handlers or (StoreOrders,)]
    return [one for one in look(cluster, config, declared, 1.0) if level in (None, one.level)]


def test_all_is_well_when_everything_is_there() -> None:
    assert {one.level for one in found(FakeCluster())} == {Level.OK}


def test_brokers_that_do_not_answer_end_the_check() -> None:
    findings = found(FakeCluster(down=True))

    assert [(one.level, one.message) for one in findings] == [(Level.WRONG, "connection refused")]


def test_a_missing_source_topic_is_wrong_and_the_nearest_is_named() -> None:
    (finding,) = found(FakeCluster(shapes={"order": 1, "orders.dlq": 1, **BESIDE}), level=Level.WRONG)

    assert finding.subject == "topic orders"
    assert finding.message.endswith("did you mean 'order'?")
    assert "--create --topic orders" in str(finding.mend)


def test_a_missing_dead_letter_topic_is_wrong_and_the_command_makes_it() -> None:
    (finding,) = found(FakeCluster(shapes={"orders": 2, **BESIDE}), level=Level.WRONG)

    assert finding.subject == "dead-letter topic orders.dlq"
    assert finding.mend == f"streamworker topics create {__name__}:StoreOrders"


def test_a_handler_without_dead_letters_is_worth_a_warning() -> None:
    (finding,) = found(FakeCluster(), WithoutDeadLetters, level=Level.WARNING)

    assert "stops its partition" in finding.message


def test_a_pattern_without_any_topic_is_worth_a_warning_only() -> None:
    warnings = found(FakeCluster(shapes={"x": 1}), WithoutDeadLetters, level=Level.WARNING)

    assert "no topic matches yet (WithoutDeadLetters)" in [one.message for one in warnings]


@pytest.mark.parametrize(
    ("source", "dead_letters", "change"),
    [
        ({"retention.ms": str(8 * DAY_MS)}, {"retention.ms": str(DAY_MS)}, f"retention.ms={8 * DAY_MS}"),
        ({"retention.ms": "-1"}, {"retention.ms": str(DAY_MS)}, "retention.ms=-1"),
        (
            {"retention.ms": "5", "cleanup.policy": "compact"},
            {"retention.ms": "5", "cleanup.policy": "delete"},
            "retention.ms=-1",
        ),
        (
            {"retention.ms": "-1", "max.message.bytes": "9000"},
            {"retention.ms": "-1", "max.message.bytes": "8000"},
            "max.message.bytes=9000",
        ),
        ({"retention.ms": "5"}, {"retention.ms": "5", "cleanup.policy": "compact,delete"}, "cleanup.policy=delete"),
    ],
)
def test_dead_letters_that_would_not_last_are_worth_a_warning(
    source: dict[str, str], dead_letters: dict[str, str], change: str
) -> None:
    cluster = FakeCluster(settings={"orders": source, "orders.dlq": dead_letters})

    (finding,) = found(cluster, level=Level.WARNING)

    assert str(finding.mend).endswith(f"--entity-name orders.dlq --add-config {change}")


def test_a_cluster_that_does_not_tell_settings_is_asked_once_and_not_blamed() -> None:
    cluster = FakeCluster(settings=None)

    not_checked = found(cluster, level=Level.NOT_CHECKED)

    assert [one.subject for one in not_checked] == ["dead-letter topic orders.dlq", "replay topic orders.replay.g"]
    assert len(cluster.asked_for_settings) == 1
    assert not found(cluster, level=Level.WRONG)


def test_a_group_whose_state_is_not_told_is_not_checked() -> None:
    (finding,) = found(FakeCluster(state=None), level=Level.NOT_CHECKED)

    assert finding.subject == "group g"


def test_handlers_without_a_group_are_wrong_as_they_would_not_run() -> None:
    (finding,) = found(FakeCluster(), group="", level=Level.WRONG)

    assert (finding.subject, finding.message) == ("group", MISSING_GROUP)
    assert finding.mend == "streamworker check --group …"


def test_without_handlers_a_group_is_not_asked_for() -> None:
    findings = list(look(FakeCluster(), Config(), (), 1.0))

    assert [(one.level, one.subject) for one in findings if one.level is not Level.OK] == [(Level.NOT_CHECKED, "group")]


@pytest.mark.parametrize("committed", [4, 10])
def test_an_offset_out_of_the_log_is_wrong_and_the_reset_is_named(committed: int) -> None:
    findings = found(FakeCluster(committed=committed), level=Level.WRONG)

    assert [one.mend for one in findings] == [
        f"streamworker offsets reset g --topic {topic} --partition {number} --to-earliest"
        for topic in ("orders", "orders.replay.g")
        for number in (0, 1)
    ]


@pytest.mark.parametrize("committed", [None, 5, 9])
def test_an_offset_within_the_log_or_none_is_fine(committed: int | None) -> None:
    assert not found(FakeCluster(committed=committed), level=Level.WRONG)


def test_a_topic_that_is_compacted_and_deleted_keeps_as_long_as_it_says() -> None:
    assert retention_ms({"retention.ms": "5", "cleanup.policy": "compact,delete"}) == 5


class Followed(StoreOrders):
    dead_letter = DeadLetter("orders.dlq", on_exhausted="dlq_key")


@pytest.mark.parametrize(
    ("policy", "level", "message"),
    [
        (None, Level.WRONG, "Followed needs it and there is no such topic"),
        ("compact", Level.OK, "compacted (Followed)"),
        (
            "delete",
            Level.WRONG,
            "it is not only compacted: keys would go on by themselves once their notes are deleted",
        ),
        (
            "compact,delete",
            Level.WRONG,
            "it is not only compacted: keys would go on by themselves once their notes are deleted",
        ),
    ],
)
def test_the_topic_with_the_parked_keys_must_be_there_and_keep_them(
    policy: str | None, level: Level, message: str
) -> None:
    cluster = FakeCluster()
    if policy is not None:
        cluster.shapes = {**cluster.shapes, "orders.dlq.keys": 1}
        cluster.settings = {**(cluster.settings or {}), "orders.dlq.keys": {"cleanup.policy": policy}}

    (finding,) = [one for one in found(cluster, Followed) if one.subject == "parked keys orders.dlq.keys"]

    assert (finding.level, finding.message) == (level, message)
    assert (finding.mend is None) == (level is Level.OK)


def with_retry_topics(**settings: str) -> FakeCluster:
    names = ("orders", "orders.dlq", "orders.retry.g.1", "orders.retry.g.2")
    kept = {"retention.ms": str(3 * DAY_MS), **settings}
    return FakeCluster(shapes=dict.fromkeys((*names, *BESIDE), 2), settings=dict.fromkeys(names, kept))


def test_retry_topics_that_are_there_are_well() -> None:
    findings = found(with_retry_topics(), Deferring)

    assert {one.level for one in findings} == {Level.OK}
    assert {"retry topic orders.retry.g.1", "retry topic orders.retry.g.2"} <= {one.subject for one in findings}


def test_a_missing_retry_topic_is_wrong_and_the_command_names_the_group() -> None:
    first, second = found(FakeCluster(), Deferring, level=Level.WRONG)

    assert (first.subject, second.subject) == ("retry topic orders.retry.g.1", "retry topic orders.retry.g.2")
    assert first.mend == f"streamworker topics create {__name__}:Deferring --group g"


@pytest.mark.parametrize(
    ("settings", "subjects"),
    [
        ({"retention.ms": str(2 * DAY_MS)}, ["retry topic orders.retry.g.2"]),
        ({"cleanup.policy": "compact"}, ["retry topic orders.retry.g.1", "retry topic orders.retry.g.2"]),
    ],
)
def test_a_retry_topic_that_would_lose_records_is_wrong(settings: dict[str, str], subjects: list[str]) -> None:
    wrong = found(with_retry_topics(**settings), Deferring, level=Level.WRONG)

    assert [one.subject for one in wrong] == subjects
    assert all("kafka-configs.sh" in (one.mend or "") for one in wrong)


def test_without_a_group_retry_topics_are_not_checked() -> None:
    not_checked = found(FakeCluster(), Deferring, group="", level=Level.NOT_CHECKED)

    assert [one.subject for one in not_checked] == [
        "replay topic orders.replay.",
        "retry topic orders.retry..1",
        "retry topic orders.retry..2",
    ]


def test_a_missing_replay_topic_is_wrong_unless_the_handler_does_without() -> None:
    class Unreplayed(StoreOrders):
        dead_letter = DeadLetter("orders.dlq", replay=False)

    cluster = FakeCluster(shapes={"orders": 2, "orders.dlq": 2, "orders.dlq.state": 2})

    (finding,) = found(cluster, level=Level.WRONG)

    assert finding.subject == "replay topic orders.replay.g"
    assert finding.mend == f"streamworker topics create {__name__}:StoreOrders --group g"
    assert not found(cluster, Unreplayed, level=Level.WRONG)


def test_a_replay_topic_that_is_compacted_is_wrong() -> None:
    cluster = FakeCluster(settings={"orders.replay.g": {"cleanup.policy": "compact"}})

    assert [one.subject for one in found(cluster, level=Level.WRONG)] == ["replay topic orders.replay.g"]


@pytest.mark.parametrize(
    ("partitions", "policy", "level", "mend"),
    [
        (None, "compact", Level.WARNING, f"streamworker topics create {__name__}:StoreOrders"),
        (1, "compact", Level.WRONG, "--alter --topic orders.dlq.state --partitions 2"),
        (2, "compact,delete", Level.WRONG, "--entity-name orders.dlq.state --add-config cleanup.policy=compact"),
    ],
)
def test_the_topic_that_says_what_became_of_dead_letters_must_be_as_wide_and_keep_it(
    partitions: int | None, policy: str, level: Level, mend: str
) -> None:
    shapes = {"orders": 2, "orders.dlq": 2, "orders.replay.g": 2}
    if partitions is not None:
        shapes["orders.dlq.state"] = partitions
    cluster = FakeCluster(shapes=shapes, settings={"orders.dlq.state": {"cleanup.policy": policy}})

    (finding,) = [one for one in found(cluster) if one.level is not Level.OK]

    assert (finding.level, finding.subject) == (level, "states of dead letters orders.dlq.state")
    assert str(finding.mend).endswith(mend)


def test_a_pattern_that_finds_topics_of_other_groups_is_worth_a_warning() -> None:
    warnings = found(FakeCluster(shapes={"orders": 1, "ord.replay.others": 1}), WithoutDeadLetters, level=Level.WARNING)

    assert "it also matches ord.replay.others" in warnings[0].message


def test_a_key_file_without_a_secret_is_wrong() -> None:
    config = Config(kafka=KafkaConfig(group="g"), replay=ReplayConfig(key_file="/dev/null"))

    (finding,) = [one for one in look(FakeCluster(), config, [], 1.0) if one.level is Level.WRONG]

    assert finding.subject == "replays"
    assert "replay.key_file: '/dev/null' is to have 16 to 4096 bytes, got 0" in finding.message


class Charges(StoreOrders):
    sink = HttpSink("billing")
    idempotency = Idempotency.redis()


def test_a_sink_and_claims_that_nothing_says_the_place_of_are_wrong() -> None:
    config = Config(kafka=KafkaConfig(group="g"), sinks={"biling": "https://billing.example"})

    found = {one.subject: one for one in look(FakeCluster(), config, [declaration(Charges)], 1.0)}

    assert found["sink billing"].level is Level.WRONG
    assert found["sink billing"].message == "no URL for 'billing' (Charges); did you mean 'biling'?"
    assert found["claims"].level is Level.WRONG


def test_a_sink_of_the_cluster_that_is_read_from_needs_no_url() -> None:
    class Copies(StoreOrders):
        sink = KafkaSink("copies")

    found = [
        one.subject for one in look(FakeCluster(), Config(kafka=KafkaConfig(group="g")), [declaration(Copies)], 1.0)
    ]

    assert not [one for one in found if one.startswith("sink")]
