"""Dead letters that are sent again on a real Kafka: each once, whoever dies, and whoever else sends them."""

from __future__ import annotations

import dataclasses
import random
from contextlib import ExitStack, closing
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it exports
    AclBinding,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from fleet import crash_points
from fleet.shipped import Stood, chunk_of, stood
from fleet.shipper import KEY, Errand, Shipper, operating, ship
from fleet.workers import let_pass, produce, wait_for
from missing import obtained
from msgspec.structs import replace
from planted.bugs import SHIPPING_BUGS
from servers.kafka import GivenKafka, SharedKafka
from servers.kafka_cluster import AUTHORIZER, start_cluster
from sizes import SOAK

from streamworker.clock import SystemClock
from streamworker.errors import ClientError
from streamworker.record import TopicPartition as LettersPartition
from streamworker.replay.audit import Kept, verify
from streamworker.replay.dead_record import LetterId
from streamworker.replay.states import State, state_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from confluent_kafka import Message

    from streamworker.replay.shipping import Chunk

TIMEOUT_S = 30.0
CHUNKS = 2
FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class World:
    """A dead-letter topic with what belongs to it, and operators in `folder`."""

    errand: Errand
    folder: Path

    def operator(self, *, crash_point: str = "", bug: str = "", **changes: object) -> Shipper:
        return Shipper(replace(self.errand, **changes), self.folder, crash_point=crash_point, bug=bug)

    def stands(self) -> Stood:
        """What readers of committed records see, each copy where its mark says that it is."""
        states = state_topic(self.errand.letters)
        records = committed(self.errand.servers, self.errand.target, states, self.errand.audit)
        copies = records[self.errand.target]
        found = stood(
            [headers_of(one) for one in copies],
            [(one.key(), one.value()) for one in records[states]],
            [Kept(0, one.offset() or 0, one.value(), headers_of(one)) for one in records[self.errand.audit]],
        )
        places = {one.offset(): one.key() for one in copies}
        for letter, said in found.states.items():
            assert said.target is None or places[said.target.offset] == str(letter).encode()
        assert verify(found.audit, KEY).findings == ()
        return found

    @property
    def dead_letters(self) -> LettersPartition:
        return LettersPartition(self.errand.letters, 0)

    @property
    def letters(self) -> list[LetterId]:
        return [LetterId(0, offset) for offset in range(self.errand.count)]


def committed(servers: str, *topics: str) -> Mapping[str, Sequence[Message]]:
    """All records of partition 0 of each topic that are committed."""
    reader = Consumer({"bootstrap.servers": servers, "group.id": "reader", "enable.partition.eof": True})
    reader.assign([TopicPartition(topic, 0, 0) for topic in topics])
    found: dict[str, list[Message]] = {topic: [] for topic in topics}
    left = set(topics)

    def at_ends() -> bool:
        for one in reader.consume(1000, 0.1):
            if one.error() is None:
                found[str(one.topic())].append(one)
            elif one.error().code() == KafkaError._PARTITION_EOF:
                left.discard(str(one.topic()))
        return not left

    try:
        wait_for(at_ends, lambda: f"the ends of {left}", TIMEOUT_S)
    finally:
        reader.close()
    return found


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    return [(name, value) for name, value in message.headers() or () if not isinstance(value, str)]


def a_world(kafka: SharedKafka, folder: Path, count: int = 3 * CHUNKS, **target: str) -> World:
    letters = kafka.dead_letters(kafka.topic("orders"))
    kafka.states(letters)
    produce(kafka.bootstrap_servers, letters, [(None, str(number)) for number in range(count)], 1)
    errand = Errand(
        servers=kafka.bootstrap_servers,
        letters=letters,
        target=kafka.topic("replays", **target),
        audit=kafka.topic("audit"),
        count=count,
    )
    return World(errand, folder)


@pytest.fixture
def world(kafka: SharedKafka, tmp_path: Path) -> World:
    return a_world(kafka, tmp_path)


# Of two chunks of copies and marks.
POINTS = [
    "ship_opening:1",
    "ship_opened:1",
    "ship_state_read:1",
    *(f"ship_begun:{nth}" for nth in (1, 2)),
    *(f"ship_sending:{nth}" for nth in (1, 2)),
    *(f"ship_sent:{nth}" for nth in (1, 2, 3, 4)),
    *(f"{name}:{nth}" for name in ("ship_committing", "ship_committed") for nth in (1, 2)),
]


@pytest.mark.parametrize("point", POINTS)
def test_an_operator_that_is_killed_at_any_step_leaves_each_letter_sent_once_or_not_at_all(
    world: World, point: str
) -> None:
    """F-65."""
    with world.operator(crash_point=point) as victim:
        assert victim.ended() == -SIGKILL

    rest = ship(replace(world.errand, op_id="resumed"))

    found = world.stands()
    assert found.anomalies() == {}
    assert found.sent_and_not_marked() == set()
    assert found.pending(world.letters) == []
    assert len(rest.marked) + len(rest.dropped) == len(world.letters)
    assert all(count == 1 for count in found.sent.values())


def test_the_points_are_those_of_the_product() -> None:
    assert {point.partition(":")[0] for point in POINTS} == crash_points.SHIPPING.keys()


@pytest.mark.timeout(300 * SOAK)
def test_operators_that_are_killed_at_any_instant_send_each_letter_once(
    kafka: SharedKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-65."""
    world, draw, kills = a_world(kafka, tmp_path, 200), random.Random(65), 6 * SOAK

    killed = 0
    for number in range(kills):
        with world.operator(op_id=f"op {number}") as operator:
            operator.begun()
            let_pass(draw.uniform(0.0, 0.3))
            operator.send(SIGKILL)
            killed += operator.ended() == -SIGKILL
    with world.operator(op_id="last") as last:
        account = last.account()

    found = world.stands()
    assert not account.failed
    assert found.anomalies() == {}
    assert found.sent_and_not_marked() == set()
    assert found.pending(world.letters) == []
    figures("F-65", "SIGKILL of operators", kills=killed, letters=len(world.letters), repeats=0)


@pytest.mark.timeout(180)
def test_of_operators_that_send_the_same_letters_at_once_one_sends_each(kafka: SharedKafka, tmp_path: Path) -> None:
    """F-65. They fence each other, again and again, and all come to an end."""
    world = a_world(kafka, tmp_path, 60)

    with ExitStack() as running:
        operators = [running.enter_context(world.operator(op_id=name, chunk=5)) for name in ("a", "b", "c")]
        accounts = [one.account() for one in operators]

    found = world.stands()
    assert found.anomalies() == {}
    assert found.sent_and_not_marked() == set()
    assert sorted(offset for one in accounts for offset in one.marked) == list(range(60))
    assert not any(one.failed or one.uncertain for one in accounts)


@pytest.mark.parametrize("point", ["ship_state_read:1", "ship_sent:1", "ship_sent:2", "ship_committing:2"])
def test_an_operator_that_was_stopped_sends_nothing_that_another_has_sent_meanwhile(world: World, point: str) -> None:
    with world.operator(crash_point=f"{point}:{crash_points.STOPPED}", op_id="slow") as slow:
        slow.stopped()
        with world.operator(op_id="quick") as quick:
            assert quick.ended() == 0
        slow.send(SIGCONT)
        account = slow.account()

    found = world.stands()
    assert found.anomalies() == {}
    assert found.sent_and_not_marked() == set()
    assert found.pending(world.letters) == []
    assert account.failed == {}
    assert "replayed" in account.dropped.values()


@pytest.mark.parametrize(
    ("bug", "point"), [("marks_apart", "ship_begun:2"), ("aborted_marks_believed", "ship_committing:1")]
)
def test_a_planted_bug_is_seen_when_an_operator_is_killed(world: World, bug: str, point: str) -> None:
    with world.operator(bug=bug, crash_point=point) as victim:
        assert victim.ended() == -SIGKILL
    with world.operator(bug=bug, op_id="resumed") as resumed:
        assert resumed.ended() == 0

    found = world.stands()
    assert found.anomalies() or found.pending(world.letters)


def test_operators_that_do_not_fence_each_other_are_seen(world: World) -> None:
    with world.operator(bug="nobody_fenced", crash_point=f"ship_sent:1:{crash_points.STOPPED}", op_id="slow") as slow:
        slow.stopped()
        with world.operator(bug="nobody_fenced", op_id="quick") as quick:
            assert quick.ended() == 0
        slow.send(SIGCONT)
        assert slow.ended() == 0

    assert world.stands().anomalies() == {"sent twice": 6}


def test_all_planted_bugs_are_looked_for() -> None:
    assert {"marks_apart", "aborted_marks_believed", "nobody_fenced"} == SHIPPING_BUGS.keys()


def test_a_copy_that_its_topic_does_not_take_fails_alone(kafka: SharedKafka, tmp_path: Path) -> None:
    """A broker refuses all that is in a request with it, and the client ends the transaction for it."""
    world = a_world(kafka, tmp_path, max_message_bytes="2000")
    letters = world.letters
    large = chunk_of(letters, world.errand.target, at_ms=SystemClock.wall_ms())
    large = large_at(large, letters[2], letters[4])

    with closing(operating(world.errand)) as shipments:
        shipped = shipments.of(world.dead_letters).ship(large)
        after = shipments.of(world.dead_letters).ship(
            chunk_of(letters, world.errand.target, at_ms=SystemClock.wall_ms())
        )

    assert shipped.failed == dict.fromkeys((letters[2], letters[4]), f"{world.errand.target}: MSG_SIZE_TOO_LARGE")
    assert shipped.sent.keys() == set(letters) - shipped.failed.keys()
    assert after.sent.keys() == shipped.failed.keys()
    assert world.stands().anomalies() == {}


def large_at(chunk: Chunk, *letters: LetterId) -> Chunk:
    copies = {one: dataclasses.replace(chunk.copies[one], value=random.Random(1).randbytes(5000)) for one in letters}
    return dataclasses.replace(chunk, copies={**chunk.copies, **copies})


def sent_to(chunk: Chunk, topic: str, *letters: LetterId) -> Chunk:
    copies = {one: dataclasses.replace(chunk.copies[one], topic=topic) for one in letters}
    return dataclasses.replace(chunk, copies={**chunk.copies, **copies})


def test_copies_for_a_topic_that_is_not_there_fail_and_the_others_go(world: World) -> None:
    letters = world.letters
    chunk = sent_to(
        chunk_of(letters, world.errand.target, at_ms=SystemClock.wall_ms()), "nowhere", letters[0], letters[3]
    )

    with closing(operating(world.errand)) as shipments:
        shipped = shipments.of(world.dead_letters).ship(chunk)

    assert shipped.failed == dict.fromkeys((letters[0], letters[3]), "nowhere: UNKNOWN_TOPIC_OR_PART")
    assert shipped.sent.keys() == set(letters) - shipped.failed.keys()
    assert world.stands().anomalies() == {}


def test_without_a_topic_for_the_audit_nothing_is_sent(world: World) -> None:
    with pytest.raises(ClientError, match="nowhere: UNKNOWN_TOPIC_OR_PART; `streamworker topics create` makes it"):
        ship(replace(world.errand, audit="nowhere"))

    assert world.stands().copies == {}


def test_copies_for_a_topic_that_nobody_may_write_to_fail_and_the_others_go(guarded: Guarded, tmp_path: Path) -> None:
    world = a_world(guarded.kafka, tmp_path)
    letters = world.letters
    chunk = sent_to(
        chunk_of(letters, world.errand.target, at_ms=SystemClock.wall_ms()), FORBIDDEN, letters[0], letters[3]
    )

    with closing(operating(world.errand)) as shipments:
        shipped = shipments.of(world.dead_letters).ship(chunk)

    assert shipped.failed == dict.fromkeys((letters[0], letters[3]), f"{FORBIDDEN}: TOPIC_AUTHORIZATION_FAILED")
    assert shipped.sent.keys() == set(letters) - shipped.failed.keys()
    assert shipped.exactly_once
    assert world.stands().anomalies() == {}


@dataclass(frozen=True, slots=True)
class Guarded:
    """Brokers that look at rights: `bare` names topics whose letters nobody may send by transactions."""

    kafka: SharedKafka
    bare: SharedKafka


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    cluster = obtained(lambda: start_cluster(1, changes=AUTHORIZER))
    cluster.admin.create_topics([NewTopic(FORBIDDEN, 1)])[FORBIDDEN].result(TIMEOUT_S)
    found = Guarded(*(SharedKafka(GivenKafka(cluster.bootstrap_servers)) for _ in range(2)))
    denied = [
        denial(ResourceType.TRANSACTIONAL_ID, f"sw-dlq-{found.bare.group('any').partition('.')[0]}"),
        denial(ResourceType.TOPIC, FORBIDDEN, AclOperation.WRITE),
    ]
    for made in cluster.admin.create_acls(denied).values():
        made.result(TIMEOUT_S)
    yield found
    cluster.close()


def denial(kind: ResourceType, prefix: str, what: AclOperation = AclOperation.ALL) -> AclBinding:
    return AclBinding(kind, prefix, ResourcePatternType.PREFIXED, "User:ANONYMOUS", "*", what, AclPermissionType.DENY)


class TestWithoutTransactions:
    """A sending is one of what is meant, of copies, or of marks with the audit, which take turns."""

    @pytest.fixture
    def world(self, guarded: Guarded, tmp_path: Path) -> World:
        return a_world(guarded.bare, tmp_path)

    def test_letters_are_sent_and_marked_and_it_is_said_that_this_is_not_exactly_once(self, world: World) -> None:
        account = ship(world.errand)

        found = world.stands()
        assert sorted(account.marked) == list(range(6))
        assert not account.exactly_once
        assert found.anomalies() == {}
        assert {one.state for one in found.states.values()} == {State.REPLAYED}

    @pytest.mark.parametrize(
        "point", [f"{name}:{nth}" for name in ("ship_sending", "ship_sent") for nth in range(1, 7)]
    )
    def test_what_a_killed_operator_leaves_in_between_is_uncertain_and_sent_by_nobody(
        self, world: World, point: str
    ) -> None:
        """F-65."""
        with world.operator(crash_point=point) as victim:
            assert victim.ended() == -SIGKILL

        rest = ship(replace(world.errand, op_id="resumed"))

        found = world.stands()
        uncertain = {letter for letter, one in found.states.items() if one.state is State.UNCERTAIN}
        assert found.anomalies() == {}
        assert found.pending(world.letters) == []
        assert found.sent_and_not_marked() <= {str(letter).encode() for letter in uncertain}
        assert {offset for offset, state in rest.dropped.items() if state == "uncertain"} == {
            letter.offset for letter in uncertain
        }
        assert len(uncertain) in (0, 3)

    def test_of_operators_that_send_the_same_letters_at_once_one_sends_each(
        self, guarded: Guarded, tmp_path: Path
    ) -> None:
        world = a_world(guarded.bare, tmp_path, 60)

        with ExitStack() as running:
            operators = [running.enter_context(world.operator(op_id=name, chunk=5)) for name in ("a", "b", "c")]
            accounts = [one.account() for one in operators]

        found = world.stands()
        assert found.anomalies() == {}
        assert sorted(offset for one in accounts for offset in one.marked) == list(range(60))
