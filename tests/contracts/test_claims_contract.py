"""What every `Claims` and every `LockStore` promises: those in Redis, and those in memory that tests run on."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Protocol

import pytest
from fleet.redis_keys import lose_keys, time_out
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamworker.errors import Misuse
from streamworker.idempotency.claims import MAX_RESULT_BYTES, Busy, Claim, Completion, Done, Granted
from streamworker.idempotency.redis import RedisClaims
from streamworker.idempotency.redis_lock import RedisLocks
from streamworker.redis_client import redis_client
from streamworker.testing.memory_claims import MemoryClaims, MemoryLocks
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servers.redis import Redis

    from streamworker.idempotency.claims import Claims
    from streamworker.idempotency.lock import LockStore

LEASE_S = 30.0
TTL_S = 3600.0
JITTER_S = 3.0


class Place(Protocol):
    """Claims and locks that nobody else uses."""

    claims: Claims
    locks: LockStore
    name: str

    def end_leases(self) -> None:
        """Let the time of all claims in work, and of all locks, be over."""

    def forget(self) -> None:
        """Lose everything."""


class InMemory:
    def __init__(self) -> None:
        self._time = VirtualTime()
        self._claims = MemoryClaims(self._time, lease_s=LEASE_S, ttl_s=TTL_S)
        self._locks = MemoryLocks(self._time)
        self.claims: Claims = self._claims
        self.locks: LockStore = self._locks
        self.name = "jobs"

    def end_leases(self) -> None:
        self._time.wait(LEASE_S, lambda: False)

    def forget(self) -> None:
        self._claims.forget()
        self._locks.forget()


class InRedis:
    def __init__(self, server: Redis) -> None:
        self.client = redis_client(server.url, timeout_s=5.0, connections=4, option="test")
        self.name = f"contract-{uuid.uuid4().hex}"
        self.claims: Claims = RedisClaims(self.client, group=self.name, lease_s=LEASE_S, ttl_s=TTL_S)
        self.locks: LockStore = RedisLocks(self.client)

    def end_leases(self) -> None:
        time_out(self.client, f"*{self.name}*", within_s=LEASE_S)

    def forget(self) -> None:
        lose_keys(self.client, f"*{self.name}*")


@pytest.fixture(params=["memory", "redis"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "memory":
        yield InMemory()
        return
    found = InRedis(request.getfixturevalue("redis"))
    yield found
    found.forget()
    found.client.close()


def test_what_nobody_has_claimed_is_granted_once(place: Place) -> None:
    first, second = place.claims.make("order"), place.claims.make("order")

    [granted] = place.claims.claim([first])
    [refused] = place.claims.claim([second])

    assert isinstance(granted, Granted)
    assert isinstance(refused, Busy)
    assert 0 < refused.retry_in_s <= LEASE_S + JITTER_S


def test_a_claim_whose_answer_was_lost_is_granted_again(place: Place) -> None:
    claim = place.claims.make("order")

    answers = [place.claims.claim([claim])[0] for _ in range(2)]

    assert answers == [Granted(), Granted()]


def test_what_is_done_is_answered_with_its_result_to_anybody(place: Place) -> None:
    claim = place.claims.make("order")
    place.claims.claim([claim])

    found = place.claims.complete([(claim, b"\x00P\xff")])
    answers = place.claims.claim([claim, place.claims.make("order")])

    assert found == [Completion.COMPLETED]
    assert answers == [Done(b"\x00P\xff")] * 2


def test_what_was_released_is_free(place: Place) -> None:
    claim = place.claims.make("order")
    place.claims.claim([claim])

    place.claims.release([claim])
    place.claims.release([claim])

    assert place.claims.claim([place.claims.make("order")]) == [Granted()]


def test_what_is_done_cannot_be_released_or_extended(place: Place) -> None:
    claim = place.claims.make("order")
    place.claims.claim([claim])
    place.claims.complete([(claim, b"")])

    place.claims.release([claim])
    extended = place.claims.extend([claim])

    assert extended == [False]
    assert place.claims.claim([claim]) == [Done(b"")]


def test_when_the_lease_is_over_another_gets_it_and_the_first_one_cannot_touch_it(place: Place) -> None:
    """The first one was stopped for longer than its lease."""
    slow, other = place.claims.make("order"), place.claims.make("order")
    place.claims.claim([slow])
    place.end_leases()
    [taken_over] = place.claims.claim([other])

    extended = place.claims.extend([slow, other])
    place.claims.release([slow])
    late = place.claims.complete([(slow, b"late")])
    in_time = place.claims.complete([(other, b"in time")])
    later = place.claims.complete([(slow, b"later")])

    assert taken_over == Granted()
    assert extended == [False, True]
    assert (late, in_time, later) == ([Completion.LOST], [Completion.COMPLETED], [Completion.ALREADY_DONE])
    assert place.claims.claim([slow]) == [Done(b"in time")]


def test_a_completion_whose_answer_was_lost_says_that_it_is_done(place: Place) -> None:
    claim = place.claims.make("order")
    place.claims.claim([claim])

    found = [place.claims.complete([(claim, b"r")])[0] for _ in range(2)]

    assert found == [Completion.COMPLETED, Completion.ALREADY_DONE]


def test_what_is_done_outlives_the_lease(place: Place) -> None:
    claim = place.claims.make("order")
    place.claims.claim([claim])
    place.claims.complete([(claim, b"r")])

    place.end_leases()

    assert place.claims.claim([place.claims.make("order")]) == [Done(b"r")]


def test_a_claim_that_was_forgotten_is_lost_to_its_holder(place: Place) -> None:
    claim = place.claims.make("order")
    place.claims.claim([claim])

    place.forget()

    assert place.claims.extend([claim]) == [False]
    assert place.claims.complete([(claim, b"")]) == [Completion.LOST]


def test_many_are_answered_in_their_order_and_the_second_of_two_with_one_id_is_refused(place: Place) -> None:
    done = [place.claims.make(f"done-{number}") for number in range(600)]
    place.claims.claim(done)
    place.claims.complete([(one, str(number).encode()) for number, one in enumerate(done)])
    fresh = [place.claims.make(f"fresh-{number}") for number in range(600)]
    mixed = [one for pair in zip(done, fresh, strict=True) for one in pair]

    answers = place.claims.claim([*mixed, place.claims.make("fresh-7")])
    extended = place.claims.extend(mixed)
    completed = place.claims.complete([(one, b"") for one in mixed])

    assert answers[0:-1:2] == [Done(str(number).encode()) for number in range(600)]
    assert answers[1:-1:2] == [Granted()] * 600
    assert isinstance(answers[-1], Busy)
    assert extended == [False, True] * 600
    assert completed == [Completion.ALREADY_DONE, Completion.COMPLETED] * 600
    assert place.claims.claim([]) == place.claims.extend([]) == place.claims.complete([]) == []


def test_a_result_that_is_too_large_is_refused_before_anything_is_noted(place: Place) -> None:
    small, large = place.claims.make("small"), place.claims.make("large")
    place.claims.claim([small, large])

    with pytest.raises(Misuse, match="result of large: expected at most 1024 bytes, got 1025"):
        place.claims.complete([(small, b""), (large, b"x" * (MAX_RESULT_BYTES + 1))])

    assert place.claims.complete([(small, b"x" * MAX_RESULT_BYTES)]) == [Completion.COMPLETED]


def take(place: Place, token: str, above: int = 0) -> int | Busy:
    return place.locks.take(place.name, token, lease_s=LEASE_S, above=above)


def test_a_lock_is_given_to_one_and_the_numbers_of_its_holders_grow(place: Place) -> None:
    first = take(place, "a")
    refused = take(place, "b")
    released = place.locks.release(place.name, "a")
    second = take(place, "b")

    assert isinstance(first, int)
    assert isinstance(refused, Busy)
    assert 0 < refused.retry_in_s <= LEASE_S
    assert released
    assert isinstance(second, int)
    assert second > first


def test_whoever_has_a_lock_already_gets_it_again_with_a_greater_number(place: Place) -> None:
    """The first answer was lost."""
    numbers = [take(place, "a") for _ in range(2)]

    assert numbers == sorted({one for one in numbers if isinstance(one, int)})
    assert len(numbers) == 2


def test_a_lock_whose_lease_is_over_goes_to_another_and_its_first_holder_can_do_nothing_to_it(place: Place) -> None:
    first = take(place, "a")
    place.end_leases()
    second = take(place, "b")

    assert isinstance(first, int)
    assert isinstance(second, int)
    assert second > first
    assert not place.locks.extend(place.name, "a", lease_s=LEASE_S)
    assert not place.locks.release(place.name, "a")
    assert place.locks.extend(place.name, "b", lease_s=LEASE_S)
    assert isinstance(take(place, "a"), Busy)


def test_the_number_is_above_what_the_resource_has_seen_also_where_all_was_lost(place: Place) -> None:
    take(place, "a")
    place.forget()

    assert take(place, "b", above=41) == 42
    place.locks.release(place.name, "b")
    assert take(place, "c", above=7) == 43


IDS, TOKENS = ("a", "b"), ("x", "y", "z")
CLAIM = st.builds(Claim, st.sampled_from(IDS), st.sampled_from(TOKENS))
CALLS = st.one_of(
    st.tuples(st.sampled_from(["claim", "complete", "release", "extend"]), st.lists(CLAIM, min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["take", "extend lock", "release lock"]), st.sampled_from(TOKENS)),
    st.tuples(st.sampled_from(["end", "forget"]), st.none()),
)


def answers(place: Place, calls: Sequence[tuple[str, object]]) -> list[object]:
    """What a place says to each call; how long another's lease lasts is left out."""
    found: list[object] = []
    for number, (call, what) in enumerate(calls):
        match call, what:
            case _, list():
                found += of_claims(place.claims, call, what, b"%d" % number)
            case _, str():
                found.append(of_lock(place, call, what, number))
            case "end", _:
                place.end_leases()
            case _:
                place.forget()
    return [Busy if isinstance(one, Busy) else one for one in found]


def of_claims(claims: Claims, call: str, some: Sequence[Claim], result: bytes) -> Sequence[object]:
    match call:
        case "claim":
            return claims.claim(some)
        case "complete":
            return claims.complete([(one, result) for one in some])
        case "extend":
            return claims.extend(some)
    claims.release(some)
    return ()


def of_lock(place: Place, call: str, token: str, above: int) -> object:
    match call:
        case "take":
            return place.locks.take(place.name, token, lease_s=LEASE_S, above=above)
        case "extend lock":
            return place.locks.extend(place.name, token, lease_s=LEASE_S)
    return place.locks.release(place.name, token)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CALLS, max_size=25))
def test_memory_and_redis_give_the_same_answers_whatever_is_called(
    redis: Redis, calls: Sequence[tuple[str, object]]
) -> None:
    in_redis = InRedis(redis)
    try:
        assert answers(InMemory(), calls) == answers(in_redis, calls)
    finally:
        in_redis.forget()
        in_redis.client.close()
