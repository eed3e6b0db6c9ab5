"""Where a newly assigned partition starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import ConfigurationError
from streamworker.interfaces import OffsetMark
from streamworker.offsets import codec
from streamworker.offsets.policy import BEGINNING, StartKind, StartPlan, StartPolicy, parse_start, plan_starts
from streamworker.offsets.progress import Progress
from streamworker.record import TopicPartition

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
LEFT = Progress(42, ((44, 45),), {43: 2})
OURS, FOREIGN = OffsetMark(42, codec.encode(7, LEFT).text), OffsetMark(42, "")
EARLIEST, LATEST = StartPolicy(StartKind.EARLIEST), StartPolicy(StartKind.LATEST)
FROM_A_TIME = StartPolicy(StartKind.TIMESTAMP, 1000)


@pytest.mark.parametrize("policy", [EARLIEST, LATEST, FROM_A_TIME])
@pytest.mark.parametrize(
    ("of_a0", "of_a1", "of_b0", "plan"),
    [
        (OURS, None, None, StartPlan(StartKind.COMMITTED, 42, progress=LEFT)),
        (OURS, OURS, OURS, StartPlan(StartKind.COMMITTED, 42, progress=LEFT)),
        (FOREIGN, None, None, StartPlan(StartKind.COMMITTED, 42, foreign=True)),
        (OffsetMark(0, codec.encode(1, Progress(3)).text), None, None, StartPlan(StartKind.COMMITTED, 0)),
        (None, OURS, None, StartPlan(StartKind.EARLIEST)),
        (None, FOREIGN, OURS, StartPlan(StartKind.EARLIEST)),
    ],
)
def test_a_committed_offset_is_taken_and_a_new_partition_of_a_known_topic_starts_at_the_beginning(
    policy: StartPolicy, of_a0: OffsetMark | None, of_a1: OffsetMark | None, of_b0: OffsetMark | None, plan: StartPlan
) -> None:
    plans = plan_starts([A0], {A0: of_a0, A1: of_a1, B0: of_b0}, policy)

    assert plans == {A0: plan}


@pytest.mark.parametrize("policy", [EARLIEST, LATEST, FROM_A_TIME])
@pytest.mark.parametrize("of_b0", [None, OURS])
def test_the_configured_start_is_for_a_group_without_offsets_in_the_topic(
    policy: StartPolicy, of_b0: OffsetMark | None
) -> None:
    plans = plan_starts([A0, A1], {A0: None, A1: None, B0: of_b0}, policy)

    assert plans == {A0: StartPlan(policy.kind), A1: StartPlan(policy.kind)}


def test_a_plan_without_an_offset_is_at_the_beginning_until_it_is_found_out() -> None:
    plan = StartPlan(StartKind.LATEST)

    assert plan.offset == BEGINNING
    assert plan.at(99) == StartPlan(StartKind.LATEST, 99)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("earliest", EARLIEST),
        ("latest", LATEST),
        ("timestamp:1970-01-01T00:00:01Z", FROM_A_TIME),
        ("timestamp:1970-01-01T00:00:01", FROM_A_TIME),
        ("timestamp:1970-01-01T01:00:01+01:00", FROM_A_TIME),
        ("timestamp:2026-01-31", StartPolicy(StartKind.TIMESTAMP, 1_769_817_600_000)),
    ],
)
def test_a_start_is_read_from_its_text(text: str, policy: StartPolicy) -> None:
    assert parse_start(text) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("earlist", "kafka.start: got 'earlist'; did you mean 'earliest'?"),
        ("Latest", "kafka.start: got 'Latest'; did you mean 'latest'?"),
        ("", "kafka.start: got ''; known: earliest, latest, timestamp:2026-01-31T00:00:00Z"),
        (
            "timestamp:yesterday",
            (
                "kafka.start: 'yesterday' is not an ISO 8601 time, like 2026-01-31T00:00:00Z: "
                "Invalid isoformat string: 'yesterday'"
            ),
        ),
    ],
)
def test_a_wrong_start_is_refused_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_start(text)

    assert str(refusal.value) == message


def test_a_timestamp_without_its_time_is_shown_how_to_write_one() -> None:
    with pytest.raises(ConfigurationError, match="timestamp:2026-01-31T00:00:00Z"):
        parse_start("timestamp")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        policy = parse_start(text)
    except ConfigurationError:
        return

    assert isinstance(policy, StartPolicy)
