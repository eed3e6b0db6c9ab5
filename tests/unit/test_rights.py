"""The rights that are derived from what handlers declare."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from streamworker import DeadLetter, Delivery, Handler, KafkaSink, OnExhausted, Record, Retry, RetryTopic
from streamworker.cli.main import main
from streamworker.cli.rights import Role, rights
from streamworker.declaration import declarations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result


class Plain(Handler[bytes]):
    topics = ("orders",)

    def handle(self, record: Record[bytes]) -> None: ...


class Everything(Handler[bytes]):
    topics = ("orders",)
    retry = Retry(topics=(RetryTopic(delay_s=60),))
    dead_letter = DeadLetter("orders.dlq")
    sink = KafkaSink("billed")

    def handle(self, record: Record[bytes]) -> bytes:
        return b""


class Parking(Handler[bytes]):
    topics = ("orders",)
    dead_letter = DeadLetter("orders.dlq", on_exhausted=OnExhausted.DLQ_KEY)

    def handle(self, record: Record[bytes]) -> None: ...


class Exactly(Handler[bytes]):
    topics = ("orders",)
    delivery = Delivery.TRANSACTIONAL
    sink = KafkaSink("billed")

    def handle(self, record: Record[bytes]) -> bytes:
        return b""


def named(
    *handlers: type[Handler[bytes]], roles: tuple[Role, ...] = (Role.WORKER,), instance: str | None = None
) -> set[str]:
    """As texts: `topic orders Read`."""
    found = rights(declarations(handlers), "g", roles, instance)
    return {
        f"{one.resource.kind} {one.resource.name}{'*' if one.resource.prefixed else ''} {'+'.join(one.operations)}"
        for one in found
    }


def test_a_worker_reads_its_topics_and_is_in_its_group() -> None:
    assert named(Plain) == {"group g Read", "topic orders Read"}


def test_a_worker_writes_what_stands_beside_its_topics() -> None:
    assert named(Everything) == {
        "group g Read",
        "topic orders Read",
        "topic orders.dlq Write",
        "topic orders.retry.g.1 Read+Write",
        "topic orders.replay.g Read",
        "topic billed Write",
    }


def test_parked_keys_are_read_and_written() -> None:
    assert "topic orders.dlq.keys Read+Write" in named(Parking)


def test_transactions_have_the_name_of_the_group_or_of_the_member() -> None:
    assert "transactional-id sw-g-* Write" in named(Exactly)
    assert "transactional-id sw-g-pod-1 Write" in named(Exactly, instance="pod-1")


def test_who_replays_reads_letters_and_writes_what_becomes_of_them() -> None:
    assert (
        named(Everything, roles=(Role.REPLAY,))
        == named(Everything, roles=(Role.CONSOLE,))
        == {
            "group g Describe",
            "group streamworker Describe",
            "topic orders Read",
            "topic orders.dlq Read+DescribeConfigs",
            "topic orders.dlq.state Read+Write",
            "topic orders.replay.g Write",
            "topic streamworker.audit Read+Write",
            "topic streamworker.dlq.ops Read+Write",
            "transactional-id sw-dlq-orders.dlq-* Write",
        }
    )


def test_who_looks_at_lag_changes_nothing() -> None:
    found = named(Everything, roles=(Role.LAG,))

    assert "group g Describe" in found
    assert "topic orders Read+DescribeConfigs" in found
    assert not any("Write" in one for one in found)


def test_what_several_need_is_there_once() -> None:
    both = named(Everything, roles=(Role.WORKER, Role.REPLAY))

    assert "group g Read" in both
    assert "topic orders.dlq Read+Write+DescribeConfigs" in both
    assert "topic orders.replay.g Read+Write" in both


@pytest.mark.parametrize(
    ("pattern", "resource"),
    [
        (r"^orders", "topic orders Read"),
        (r"^orders-.*$", "topic orders-* Read"),
        (r"^orders\.(eu|us)$", "topic orders.* Read"),
        (r"^orders?", "topic order* Read"),
        (r"^eu-orders|us-orders", "topic * Read"),
        (r"^.*-orders", "topic * Read"),
    ],
)
def test_a_pattern_becomes_what_all_its_topics_begin_with(pattern: str, resource: str) -> None:
    class Matching(Plain):
        topics = (pattern,)

    assert resource in named(Matching)


pieces = st.sampled_from(["a", "b-", r"\.", ".", "x*", "y?", "(c|d)", "[ab]", "|", "z{2}", "$"])


@given(st.lists(pieces, min_size=1, max_size=5).map("".join), st.text("abcdxyz.-", min_size=1, max_size=6))
def test_no_topic_of_a_pattern_is_without_its_right(pattern: str, topic: str) -> None:
    class Matching(Plain):
        topics = (f"^{pattern}",)

    [declared] = declarations([Matching])
    [resource] = [one.resource for one in rights([declared], "g", [Role.WORKER]) if one.resource.kind == "topic"]

    if declared.subscribes_to(topic):
        assert resource.name in ("*", topic) or (resource.prefixed and topic.startswith(resource.name))


APPLICATION = """
from streamworker import DeadLetter, Handler, KafkaSink

class Bills(Handler):
    topics = ("orders",)
    dead_letter = DeadLetter("orders.dlq")
    sink = KafkaSink("billed", connection="elsewhere")

    def handle(self, record): ...
"""


@pytest.fixture(autouse=True)
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "rights_shop.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("rights_shop", None)


def streamworker(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["acl", "rights_shop:Bills", *arguments])


def test_the_command_prints_what_kafkas_own_tool_takes() -> None:
    result = streamworker("--group", "g", "--principal", "User:bills", "--bootstrap-servers", "b:1")

    commands = [line for line in result.output.splitlines() if not line.startswith("#")]
    assert result.exit_code == 0
    assert (
        "kafka-acls.sh --bootstrap-server b:1 --add --allow-principal User:bills --operation Write --topic orders.dlq"
        in commands
    )
    assert all(re.fullmatch(r"kafka-acls\.sh .*--operation \w+.* --(topic|group) \S+", line) for line in commands)
    assert "billed of another cluster (elsewhere)" in result.output


def test_the_list_has_the_same() -> None:
    found = json.loads(streamworker("--group", "g", "--lag", "--replay", "--format", "json").output)

    assert {(one["resource_type"], one["name"]) for one in found} >= {("group", "g"), ("topic", "orders.dlq.state")}
    assert all(one["principal"] == "User:streamworker" and one["why"] for one in found)


def test_without_a_group_there_are_no_rights_to_name() -> None:
    assert streamworker().exit_code == 2
