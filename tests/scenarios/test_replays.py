"""Dead letters that are sent again: on the group's replay topic, and signed on a source topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from scenarios.worlds import IN, Obedient, ObedientBatches, calls, handled, headers_of, letters_from, produce, steady

from streamworker import (
    DeadLetter,
    Ending,
    Handler,
    Idempotency,
    Json,
    OnExhausted,
    Retry,
    RetryTopic,
    TopicPartition,
)
from streamworker.config import Config, KafkaConfig
from streamworker.dlq.replays import Replay, ReplayKey, replayed_headers
from streamworker.exit_code import ExitCode
from streamworker.interfaces import Fault, FaultKind
from streamworker.record import Origin
from streamworker.testing import FakeSink
from streamworker.testing.virtual_world import VirtualWorld
from streamworker.worker import Bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import BatchHandler, Record
    from streamworker.record import Header
    from streamworker.testing.virtual_world import Member

REPLAYS = TopicPartition("in.replay.test", 0)
KEY = ReplayKey(b"0123456789abcdef")
SHA256 = "a" * 64


class Deferring(Obedient):
    retry = Retry(attempts=1, topics=(RetryTopic(delay_s=60),))


def world_with_replays(partitions: int = 1, **others: int) -> VirtualWorld:
    topics = {"in": partitions, "dlq": 1, "dlq.keys": 1, "in.replay.test": partitions, "in.retry.test.1": partitions}
    return VirtualWorld({**topics, **others})


def replay(
    world: VirtualWorld,
    value: bytes,
    *,
    to: TopicPartition = REPLAYS,
    key: bytes | None = None,
    group: str = "test",
    offset: int = 7,
    count: int = 1,
    repaired: str | None = None,
    own: Sequence[Header] = (),
    signed_by: ReplayKey | None = None,
) -> int:
    """Send a copy of a dead letter, as the desk does; returns its offset."""
    said = Replay(
        group=group,
        origin=Origin("in", 0, offset),
        origin_timestamp_ms=5,
        id=f"op-1:0:{offset}",
        parent=f"dlq/0/{offset}",
        count=count,
        repaired=repaired,
    )
    headers = replayed_headers(own, said, topic=to.topic, key=key, value=value, signed_by=signed_by)
    return world.broker.produce(to.topic, to.partition, value, key=key, headers=headers)


@pytest.mark.parametrize("handler", [Obedient, ObedientBatches])
def test_a_record_that_is_sent_again_is_handled_as_what_it_was_first(
    handler: type[Handler[bytes]] | type[BatchHandler[bytes]],
) -> None:
    seen: list[tuple[str, Origin, int | None, int, object]] = []

    class Seeing(Obedient):
        def handle(self, record: Record[bytes]) -> None:
            trace = record.headers.last("trace")
            seen.append((record.topic, record.origin, record.timestamp_ms, record.attempt, trace))

    world = world_with_replays()
    replay(world, b"fine", own=[("trace", b"7")])
    member = world.start(Seeing if handler is Obedient else handler)

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert handled(world, REPLAYS) == [0]
    assert member.story.count(Ending.HANDLED) == 1
    if handler is Obedient:
        assert seen == [(REPLAYS.topic, Origin("in", 0, 7), 5, 1, b"7")]


def test_what_fails_again_is_a_dead_letter_that_names_its_parent_and_has_all_its_attempts() -> None:
    world = world_with_replays()
    replay(world, b"broken", count=2, own=[("trace", b"7"), ("sw-attempts", b"9")])
    world.start(Obedient)

    world.run_to_end(REPLAYS.topic, timeout_s=60)

    letter = headers_of(world, 0)
    assert calls(world, REPLAYS) == [0] * 4
    assert (letter["sw-parent"], letter["sw-replay-id"], letter["sw-replay-count"]) == ("dlq/0/7", "op-1:0:7", "2")
    assert (letter["sw-id"], letter["sw-reason"], letter["sw-attempts"]) == ("test/in/0/7", "exhausted", "4")
    assert (letter["sw-from-topic"], letter["sw-from-offset"], letter["trace"]) == (REPLAYS.topic, "0", "7")
    assert "sw-target-group" not in letter


def test_what_fails_again_goes_through_the_retry_topics_with_its_lineage() -> None:
    world = world_with_replays()
    replay(world, b"broken", repaired=SHA256)
    world.start(Deferring)

    world.run_to_end(REPLAYS.topic, timeout_s=5)
    (copy,) = world.broker.records("in.retry.test.1")
    world.run_to_end("in.retry.test.1", timeout_s=70)

    waiting = {name: (value or b"").decode() for name, value in copy.headers() or ()}
    ours = ("sw-parent", "sw-replay-id", "sw-replay-count", "sw-repaired", "sw-origin-topic", "sw-origin-offset")
    said = ["dlq/0/7", "op-1:0:7", "1", SHA256, "in", "7"]
    assert [waiting[name] for name in ours] == said
    assert [headers_of(world, 0)[name] for name in ours] == said
    assert headers_of(world, 0)["sw-attempts"] == "2"


def test_a_record_by_hand_without_any_header_is_handled_too() -> None:
    world = world_with_replays()
    world.broker.produce(REPLAYS.topic, 0, b"fine")
    world.broker.produce(REPLAYS.topic, 0, b"poison")
    world.start(Obedient)

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert handled(world, REPLAYS) == [0]
    assert headers_of(world, 0)["sw-origin-topic"] == REPLAYS.topic
    assert "sw-parent" not in headers_of(world, 0)


def test_replayed_records_of_a_key_are_handled_in_their_order() -> None:
    class PerKey(Obedient):
        ordering = "key"

    world = world_with_replays()
    for number in range(30):
        replay(world, b"flaky:1" if number % 7 == 0 else b"fine", key=b"%d" % (number % 3), offset=number)
    world.start(PerKey, duration_s=steady(0.001))

    world.run_to_end(REPLAYS.topic, timeout_s=60)

    for key in range(3):
        assert [one for one in handled(world, REPLAYS) if one % 3 == key] == list(range(key, 30, 3))


def test_with_parked_keys_what_follows_a_failed_replay_of_its_key_comes_back_behind_it() -> None:
    class Parking(Obedient):
        dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq", OnExhausted.DLQ_KEY)

    world = world_with_replays()
    produce(world, b"poison", b"fine", key=b"k")
    member = world.start(Parking)
    world.run_to_end("in", timeout_s=5)
    replay(world, b"fine", key=b"k", offset=0)
    replay(world, b"poison", key=b"k", offset=1)
    replay(world, b"fine", key=b"k", offset=2)
    replay(world, b"fine", key=b"other", offset=3)

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert handled(world, REPLAYS) == [0, 3]
    assert [headers_of(world, number)["sw-reason"] for number in range(4)] == [
        "poison",
        "parked_behind",
        "poison",
        "parked_behind",
    ]
    assert headers_of(world, 3)["sw-parent"] == "dlq/0/2"
    assert member.story.keys == [("parked", IN, 0), ("parked", REPLAYS, 1)]


def test_serdes_are_given_the_name_of_the_source_topic() -> None:
    topics: list[str] = []

    class Noting:
        def decode(self, data: bytes, topic: str) -> bytes:
            topics.append(topic)
            return data

        def encode(self, value: bytes, topic: str) -> bytes:
            return value

    world = world_with_replays()
    replay(world, b"fine")
    world.start(type("Named", (Obedient,), {"value": Noting()}))

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert topics == ["in"]


def test_what_a_person_sends_again_is_not_too_old() -> None:
    class Quick(Deferring):
        max_age_s = 10.0

    world = world_with_replays()
    world.broker.produce("in", 0, b"fine", timestamp_ms=5)
    replay(world, b"fine")
    replay(world, b"broken")
    member = world.start(Quick)

    world.run_to_end("in", REPLAYS.topic, timeout_s=5)
    world.run_to_end("in.retry.test.1", timeout_s=70)

    assert member.story.count(Ending.EXPIRED) == 1
    assert handled(world, REPLAYS) == [0]
    assert letters_from(world) == [b"broken"]


@pytest.mark.parametrize("start", ["latest", "earliest"])
def test_a_replay_topic_is_read_from_its_beginning_whatever_the_start(start: str) -> None:
    config = Config(kafka=KafkaConfig(group="test", start=start))
    world = VirtualWorld({"in": 1, "dlq": 1, REPLAYS.topic: 1}, config=config)
    replay(world, b"fine")
    world.start(Obedient)

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert handled(world, REPLAYS) == [0]


def test_without_a_replay_topic_all_goes_on_and_once_it_comes_it_is_read() -> None:
    world = VirtualWorld({"in": 1, "dlq": 1})
    produce(world, b"fine", b"poison")
    world.start(Obedient)
    world.run_to_end("in", timeout_s=5)

    world.broker.add_partitions(REPLAYS.topic, 1)
    replay(world, b"fine")
    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert handled(world) == [0]
    assert handled(world, REPLAYS) == [0]


def test_the_client_need_not_tell_of_a_missing_replay_topic_that_was_told_of_at_start() -> None:
    world = VirtualWorld({"in": 1, "dlq": 1})
    member = world.start(Obedient)
    member.worker.without(absent=[REPLAYS.topic], denied=[])
    faults = [
        Fault(FaultKind.UNKNOWN_TOPIC, TopicPartition(topic, -1), None, "no such topic")
        for topic in (REPLAYS.topic, "in")
    ]

    for fault in faults:
        member.source.report(fault)
    world.run_for(1)

    assert member.story.faults == faults[1:]


def test_a_replay_topic_that_may_not_be_read_is_not_subscribed_to() -> None:
    """A broker may refuse the whole membership for it."""
    world = world_with_replays()
    member = world.start(Obedient)
    member.worker.without(absent=[], denied=[REPLAYS.topic])

    member.worker.reopen("test", otherwise=ExitCode.FATAL)

    assert [source.topics for source in member.sources] == [("in", REPLAYS.topic), ("in",)]


def test_a_handler_that_does_without_does_not_read_its_replay_topic() -> None:
    class Unreplayed(Obedient):
        dead_letter: ClassVar[DeadLetter | None] = DeadLetter("dlq", replay=False)

    world = world_with_replays()
    replay(world, b"fine")
    produce(world, b"fine")
    world.start(Unreplayed)

    world.run_for(5)

    assert [effect.partition for effect in world.effects] == [IN]


def test_a_run_until_the_end_takes_what_was_sent_again() -> None:
    world = world_with_replays()
    produce(world, b"fine")
    replay(world, b"fine")
    member = world.start(Obedient, bounds=Bounds(until_end=True))

    world.run(lambda: member.worker.stopping is not None, timeout_s=10)

    assert handled(world) == handled(world, REPLAYS) == [0]


class Claiming(Obedient):
    idempotency = Idempotency.redis()


def test_a_replay_has_its_effect_once_and_one_of_a_repaired_value_another() -> None:
    world = world_with_replays()
    produce(world, b"fine")
    world.start(Claiming)
    world.run_to_end("in", timeout_s=5)
    replay(world, b"fine", offset=0)
    replay(world, b"mended", offset=0, repaired=SHA256)
    replay(world, b"mended", offset=0, repaired=SHA256)
    replay(world, b"fine", offset=1)

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert handled(world) == [0]
    assert handled(world, REPLAYS) == [1, 3]


def test_a_sink_is_given_where_a_replayed_record_was_first() -> None:
    sink = FakeSink()
    world = world_with_replays()
    replay(world, b"fine")

    class Storing(Obedient):
        def handle(self, record: Record[bytes]) -> bytes:  # type: ignore[override]  # it has a sink
            return record.value

    world.start(type("Stored", (Storing,), {"sink": sink}))

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert [effect.row.origin for effect in sink.effects] == [Origin("in", 0, 7)]


# ------------------------------------------------------------------ on a source topic


def start_signed(world: VirtualWorld, handler: type[Handler[bytes]] = Obedient) -> Member:
    return world.start(handler, replay_key=KEY)


def test_a_signed_replay_on_the_source_topic_is_handled_by_the_group_that_it_is_for() -> None:
    world = world_with_replays()
    replay(world, b"broken", to=IN, signed_by=KEY)
    produce(world, b"fine")
    member = start_signed(world)

    world.run_to_end("in", timeout_s=60)

    letter = headers_of(world, 0)
    assert handled(world) == [1]
    assert (letter["sw-id"], letter["sw-parent"], letter["sw-replay-count"]) == ("test/in/0/7", "dlq/0/7", "1")
    assert member.story.count(Ending.NOT_ADDRESSED) == 0


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_signed_replay_for_another_group_is_done_without_a_call_or_a_letter(partitions: int) -> None:
    world = world_with_replays(partitions)
    for number in range(20):
        where = TopicPartition("in", number % partitions)
        replay(world, b"poison" * 100, to=where, signed_by=KEY, group="others", offset=number)
        world.broker.produce("in", where.partition, b"fine", key=b"k")
    member = start_signed(world)

    world.run_to_end("in", timeout_s=60)

    assert len(world.effects) == 20
    assert letters_from(world) == []
    assert member.story.count(Ending.NOT_ADDRESSED) == 20
    assert (member.worker.backpressure.records, member.worker.backpressure.size_bytes) == (0, 0)


def test_of_two_groups_on_a_source_topic_only_the_one_that_it_is_for_handles_a_replay() -> None:
    """Each group has its own broker here, with the same records: a memory broker knows one group."""
    effects: dict[str, int] = {}
    for group in ("billing", "shipping"):
        config = Config(kafka=KafkaConfig(group=group))
        world = VirtualWorld({"in": 1, "dlq": 1}, config=config)
        replay(world, b"fine", to=IN, signed_by=KEY, group="shipping")
        start_signed(world)
        world.run_to_end("in", timeout_s=5)
        effects[group] = len(world.effects)

    assert effects == {"billing": 0, "shipping": 1}


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("signed_by", [None, ReplayKey(b"somebody else's!")])
@pytest.mark.parametrize("group", ["test", "others"])
def test_without_a_valid_signature_our_headers_mean_nothing_on_a_source_topic(
    key: ReplayKey | None, signed_by: ReplayKey | None, group: str
) -> None:
    world = world_with_replays()
    replay(world, b"poison", to=IN, group=group, signed_by=signed_by, own=[("trace", b"7")])
    member = world.start(Obedient, replay_key=key)

    world.run_to_end("in", timeout_s=5)

    letter = headers_of(world, 0)
    assert member.story.count(Ending.NOT_ADDRESSED) == 0
    assert (letter["sw-id"], letter["sw-origin-offset"], letter["trace"]) == ("test/in/0/0", "0", "7")
    assert not {"sw-parent", "sw-replay-id", "sw-replay-count"} & letter.keys()


def test_a_valid_signature_means_nothing_to_a_group_without_the_key() -> None:
    world = world_with_replays()
    replay(world, b"fine", to=IN, group="others", signed_by=KEY)
    world.start(Obedient)

    world.run_to_end("in", timeout_s=5)

    assert handled(world) == [0]


def test_a_signed_copy_in_another_topic_is_no_replay() -> None:
    world = world_with_replays(elsewhere=1)
    replay(world, b"fine", to=TopicPartition("elsewhere", 0), group="others", signed_by=KEY)
    (copy,) = world.broker.records("elsewhere")
    world.broker.produce("in", 0, copy.value(), key=copy.key(), headers=copy.headers() or ())
    start_signed(world)

    world.run_to_end("in", timeout_s=5)

    assert handled(world) == [0]


def test_a_replay_topic_that_two_groups_share_by_their_names_has_each_handle_its_own() -> None:
    """`team a` and `team_a` have one name there."""
    world = world_with_replays()
    replay(world, b"fine", group="te_st")
    replay(world, b"fine")
    member = world.start(Obedient)

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert handled(world, REPLAYS) == [1]
    assert member.story.count(Ending.NOT_ADDRESSED) == 1


def test_undecodable_replays_are_dead_letters_with_their_lineage() -> None:
    class Documents(Handler[int]):
        topics = ("in",)
        value = Json(int)
        dead_letter = DeadLetter("dlq")

        def handle(self, record: Record[int]) -> None: ...

    world = world_with_replays()
    replay(world, b"not json")
    world.start(Documents)

    world.run_to_end(REPLAYS.topic, timeout_s=5)

    assert (headers_of(world, 0)["sw-reason"], headers_of(world, 0)["sw-parent"]) == ("undecodable_value", "dlq/0/7")


def test_replays_survive_a_crash_and_a_rebalance() -> None:
    world = world_with_replays(2)
    for number in range(40):
        replay(world, b"fine", to=TopicPartition(REPLAYS.topic, number % 2), offset=number)
    first = world.start(Obedient, duration_s=steady(0.05))
    world.run_for(1)
    world.kill(first)
    world.start(Obedient, duration_s=steady(0.05))
    world.run_for(1)
    world.start(Obedient, duration_s=steady(0.05))

    world.run_to_end(REPLAYS.topic, timeout_s=60)

    assert {(effect.partition.partition, effect.offset) for effect in world.effects if effect.ok} == {
        (partition, offset) for partition in (0, 1) for offset in range(20)
    }
