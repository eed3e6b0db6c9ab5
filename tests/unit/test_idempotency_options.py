"""What a handler can say of repeats, and what a wrong word is told."""

from __future__ import annotations

import pytest

from streamworker.errors import ConfigurationError
from streamworker.options import Idempotency, KeptIn, OnUnavailable


def test_there_is_one_by_the_sink_and_one_by_redis() -> None:
    in_redis = Idempotency.redis(ttl_s=3600, lease_s=10, id=str, on_unavailable="pause")

    assert Idempotency.sink() == Idempotency("sink") == Idempotency(KeptIn.SINK)
    assert Idempotency("redis") == Idempotency.redis()
    assert (in_redis.kept_in, in_redis.ttl_s, in_redis.lease_s) == (KeptIn.REDIS, 3600, 10)
    assert (in_redis.id, in_redis.on_unavailable) == (str, OnUnavailable.PAUSE)


@pytest.mark.parametrize(
    ("said", "sink_knows_repeats", "follows"),
    [
        (None, True, OnUnavailable.PROCESS),
        (None, False, OnUnavailable.PAUSE),
        ("process", False, OnUnavailable.PROCESS),
        ("pause", True, OnUnavailable.PAUSE),
    ],
)
def test_without_redis_a_record_waits_unless_its_sink_knows_repeats_or_it_was_said(
    said: str | None, follows: OnUnavailable, *, sink_knows_repeats: bool
) -> None:
    option = Idempotency.redis(on_unavailable=said)

    assert option.when_unavailable(sink_knows_repeats=sink_knows_repeats) is follows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_unavailable": "proces"}, "Idempotency.on_unavailable: got 'proces'; did you mean 'process'?"),
        ({"ttl_s": 10}, "Idempotency.ttl_s: expected at least lease_s (30), got 10"),
        ({"lease_s": 0}, "Idempotency.lease_s: expected at least 1, got 0"),
        ({"lease_s": 7200}, "Idempotency.lease_s: expected at most 3600, got 7200"),
        (
            {"id": "order_id"},
            "Idempotency.id: expected a function of the record, lambda record: record.value.id, got 'order_id'",
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Idempotency.redis(**options)  # type: ignore[arg-type]  # wrong on purpose

    assert str(refused.value) == message


def test_a_place_that_is_none_is_told_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'redis'"):
        Idempotency("reddis")
