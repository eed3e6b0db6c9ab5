"""The rights that `streamworker acl` prints are enough, and none of them is too many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package does not list what it exports
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from fleet.in_process import Running, committed, config, read
from fleet.workers import produce, wait_for
from missing import obtained
from servers.kafka_cluster import STRICT_AUTHORIZER, account, start_cluster

from streamworker import (
    DeadLetter,
    Delivery,
    Handler,
    KafkaSink,
    PoisonError,
    Record,
    Retry,
    RetryTopic,
)
from streamworker.cli.main import main
from streamworker.cli.rights import Kind, Operation, Resource, Role, rights
from streamworker.declaration import declarations
from streamworker.errors import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from click.testing import Result
    from servers.kafka_cluster import KafkaCluster

TIMEOUT_S = 30.0
NAMES = ("worker", "replayer", "observer")


# What a worker lacks that says so at once, and does not begin.
REFUSED = {
    "sink": (Resource(Kind.TOPIC, "sink.out"), Operation.WRITE),
    "letters": (Resource(Kind.TOPIC, "letters.dlq"), Operation.WRITE),
}
# What it says while it goes on trying.
SAID = {
    "group": (Resource(Kind.GROUP, "g.group"), Operation.READ, "GROUP_AUTHORIZATION_FAILED"),
    "source": (Resource(Kind.TOPIC, "source"), Operation.READ, "TOPIC_AUTHORIZATION_FAILED"),
    "deferring": (Resource(Kind.TOPIC, "deferring.retry.g.deferring.1"), Operation.WRITE, "dead letter refused"),
    "retries": (Resource(Kind.TOPIC, "retries.retry.g.retries.1"), Operation.READ, "TOPIC_AUTHORIZATION_FAILED"),
    "transactions": (
        Resource(Kind.TRANSACTIONAL_ID, "sw-g.transactions-", prefixed=True),
        Operation.WRITE,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    ),
}


def handler(case: str) -> type[Handler[bytes]]:
    """A record goes to the sink, comes again once from the retry topic, or is a dead letter."""

    class Orders(Handler[bytes]):
        topics = (case,)
        retry = Retry(attempts=1, topics=(RetryTopic(delay_s=1),))
        dead_letter = DeadLetter(f"{case}.dlq")
        sink = KafkaSink(f"{case}.out")
        delivery = Delivery.TRANSACTIONAL if case == "transactions" else Delivery.AT_LEAST_ONCE

        def handle(self, record: Record[bytes]) -> bytes:
            if record.value == b"poison":
                raise PoisonError("no such customer")
            if record.value == b"later" and record.attempt == 1:
                raise ConnectionError("not yet")
            return record.value or b""

    return Orders


class Guarded:
    """A cluster where nobody may do anything that is not said."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self.cluster = cluster
        self.servers = cluster.account_servers

    def make(self, case: str) -> None:
        """The topics of a case, with three records in it."""
        names = [
            case,
            f"{case}.out",
            f"{case}.dlq",
            f"{case}.dlq.state",
            f"{case}.replay.g.{case}",
            f"{case}.retry.g.{case}.1",
        ]
        for made in self.cluster.admin.create_topics([NewTopic(name, 1) for name in names]).values():
            made.result(TIMEOUT_S)
        produce(self.cluster.direct_servers, case, [(None, value) for value in ("well", "later", "poison")], 1)

    def allow(self, name: str, case: str, *roles: Role, without: tuple[Resource, Operation] | None = None) -> None:
        """Give an account exactly what `streamworker acl` says."""
        bindings = [
            binding(one.resource, operation, name)
            for one in rights(declarations([handler(case)]), f"g.{case}", roles)
            for operation in one.operations
            if (one.resource, operation) != without
        ]
        for made in self.cluster.admin.create_acls(bindings).values():
            made.result(TIMEOUT_S)
        wait_for(lambda: self._has(bindings), lambda: "the rights", TIMEOUT_S)

    def _has(self, bindings: Sequence[AclBinding]) -> bool:
        """Brokers learn of rights a little after the controller has acknowledged them."""
        every = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        return set(bindings) <= set(self.cluster.admin.describe_acls(every).result(TIMEOUT_S))

    def run(self, case: str) -> Running:
        options = {f"kafka__librdkafka__{key}": value for key, value in account("worker").items()}
        return Running(config(self.servers, f"g.{case}", **options), handler(case))


def binding(resource: Resource, operation: Operation, name: str) -> AclBinding:
    return AclBinding(
        ResourceType[
            {Kind.TOPIC: "TOPIC", Kind.GROUP: "GROUP", Kind.TRANSACTIONAL_ID: "TRANSACTIONAL_ID"}[resource.kind]
        ],
        resource.name,
        ResourcePatternType.PREFIXED if resource.prefixed else ResourcePatternType.LITERAL,
        f"User:{name}",
        "*",
        AclOperation[operation.name],
        AclPermissionType.ALLOW,
    )


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    cluster = obtained(lambda: start_cluster(1, changes=STRICT_AUTHORIZER, accounts=NAMES))
    yield Guarded(cluster)
    cluster.close()


def told(caplog: pytest.LogCaptureFixture) -> str:
    return " ".join(f"{one.getMessage()} {vars(one).get('detail')} {vars(one).get('error')}" for one in caplog.records)


@pytest.mark.parametrize("case", REFUSED)
def test_a_worker_that_may_not_write_what_it_has_to_does_not_begin(guarded: Guarded, case: str) -> None:
    guarded.make(case)
    guarded.allow("worker", case, Role.WORKER, without=REFUSED[case])

    worker = guarded.run(case)
    with pytest.raises(ClientError, match="uthorization failed") as refusal, worker:
        worker.ended()

    assert REFUSED[case][0].name in str(refusal.value)
    assert committed(guarded.cluster.direct_servers, f"g.{case}", case, 1) == {}


@pytest.mark.parametrize("case", SAID)
def test_a_worker_that_lacks_a_right_says_so_and_loses_nothing(
    guarded: Guarded, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    resource, operation, code = SAID[case]
    guarded.make(case)
    guarded.allow("worker", case, Role.WORKER, without=(resource, operation))

    with guarded.run(case) as worker:
        worker.wait(lambda: code in told(caplog), "a complaint", TIMEOUT_S)
    before = committed(guarded.cluster.direct_servers, f"g.{case}", case, 1)
    guarded.allow("worker", case, Role.WORKER)
    with guarded.run(case) as worker:
        worker.wait(
            lambda: committed(guarded.cluster.direct_servers, f"g.{case}", case, 1) == {0: 3}, "the rest", TIMEOUT_S
        )
        sunk = [one.value() for one in read(guarded.cluster.direct_servers, f"{case}.out", 1, 2, TIMEOUT_S)]

    assert before in ({}, {0: 1})  # the first record may be done, the one that is deferred is not
    assert sorted(map(str, sunk)) == ["b'later'", "b'well'"]
    [letter] = read(guarded.cluster.direct_servers, f"{case}.dlq", 1, 1)
    assert letter.value() == b"poison"


def streamworker(guarded: Guarded, name: str, *arguments: str) -> Result:
    options = [word for key, value in account(name).items() for word in ("--set", f"kafka.librdkafka.{key}={value}")]
    return CliRunner().invoke(main, [*arguments, "--bootstrap-servers", guarded.servers, *options])


def test_who_looks_at_lag_and_who_replays_can_with_their_rights(guarded: Guarded) -> None:
    guarded.make("roles")
    topics = [NewTopic("streamworker.audit", 1), NewTopic("streamworker.dlq.ops", 1)]
    for made in guarded.cluster.admin.create_topics(topics).values():
        made.result(TIMEOUT_S)
    guarded.allow("worker", "roles", Role.WORKER)
    guarded.allow("replayer", "roles", Role.REPLAY)
    guarded.allow("observer", "roles", Role.LAG)
    with guarded.run("roles") as worker:
        worker.wait(lambda: len(read(guarded.cluster.direct_servers, "roles.dlq", 1, 1)) == 1, "a letter")
    produce(guarded.cluster.direct_servers, "roles", [(None, "more")], 1)

    replayed = streamworker(
        guarded, "replayer", "dlq", "replay", "roles.dlq", "state:pending", "--group", "g.roles", "--yes"
    )
    seen = streamworker(guarded, "observer", "lag", "g.roles", "--topic", "roles", "--once", "--json")
    refused = streamworker(
        guarded, "observer", "dlq", "replay", "roles.dlq", "state:pending", "--group", "g.roles", "--yes"
    )

    assert replayed.exit_code == 0, replayed.output
    assert len(read(guarded.cluster.direct_servers, "roles.replay.g.roles", 1, 1)) == 1
    [partition] = json.loads(seen.stdout)[0]["partitions"]
    assert (partition["lag"], partition["lag_s"] is not None) == (1, True)
    assert refused.exit_code != 0
