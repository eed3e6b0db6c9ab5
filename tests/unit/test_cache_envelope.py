"""What lies in Redis: it comes back as it went in, and whatever else is there is a miss."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker import ConfigurationError
from streamworker.cache.envelope import MAX_VERSION, Envelope, Envelopes, read_head, schema_of


class Customer(msgspec.Struct, frozen=True):
    name: str
    limit: int


class CustomerOfTheNextRelease(msgspec.Struct, frozen=True):
    name: str
    limit: int
    country: str = ""


class Picky(msgspec.Struct, frozen=True):
    name: str

    def __post_init__(self) -> None:
        raise LookupError(self.name)


CUSTOMERS = Envelopes(Customer)
ANNA = Envelope(Customer("Anna", 5), 7, negative=False, expires_ms=1_000, cost_ms=3)

customers = st.builds(Customer, st.text(), st.integers(-(2**63), 2**64 - 1))
envelopes = st.builds(
    Envelope,
    customers,
    version=st.integers(0, MAX_VERSION),
    negative=st.just(value=False),
    expires_ms=st.integers(0, 2**64 - 1),
    cost_ms=st.integers(0, 2**32 - 1),
) | st.builds(
    Envelope,
    st.none(),
    version=st.integers(0, MAX_VERSION),
    negative=st.just(value=True),
    expires_ms=st.integers(0, 2**64 - 1),
    cost_ms=st.integers(0, 2**32 - 1),
)


def written(envelope: Envelope[Any], envelopes: Envelopes[Any] = CUSTOMERS) -> bytes:
    data = envelopes.encode(envelope)
    assert data is not None
    return data


@given(envelopes)
def test_an_envelope_comes_back_as_it_went_in(envelope: Envelope[Customer]) -> None:
    assert CUSTOMERS.decode(written(envelope)) == envelope


@given(st.binary())
def test_any_bytes_are_a_miss(data: bytes) -> None:
    assert CUSTOMERS.decode(data) is None


@given(envelopes, st.data())
def test_what_was_cut_short_is_a_miss(envelope: Envelope[Customer], data: st.DataObject) -> None:
    whole = written(envelope)

    assert CUSTOMERS.decode(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


@given(envelopes, st.binary(min_size=1))
def test_what_has_something_behind_it_is_a_miss(envelope: Envelope[Customer], more: bytes) -> None:
    assert CUSTOMERS.decode(written(envelope) + more) is None


@given(envelopes, st.binary())
def test_any_payload_under_a_good_head_is_a_value_or_a_miss(envelope: Envelope[Customer], payload: bytes) -> None:
    found = CUSTOMERS.decode(written(envelope)[:25] + payload)

    assert found is None or found.value is None or isinstance(found.value, Customer)


def test_a_value_of_a_type_with_other_fields_is_a_miss() -> None:
    assert Envelopes(CustomerOfTheNextRelease).decode(written(ANNA)) is None


def test_a_schema_of_ones_own_decides_alone() -> None:
    old, new = Envelopes(Customer, schema=1), Envelopes(CustomerOfTheNextRelease, schema=1)

    found = new.decode(written(ANNA, old))

    assert found is not None
    assert found.value == CustomerOfTheNextRelease("Anna", 5)


def test_a_pickle_is_a_miss_and_is_not_loaded() -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (sys.exit, (1,))

    bomb = pickle.dumps(Bomb())

    assert CUSTOMERS.decode(bomb) is None
    assert CUSTOMERS.decode(written(ANNA)[:25] + bomb) is None


def test_a_value_that_is_too_large_is_neither_written_nor_read() -> None:
    large = Envelope(Customer("x" * 2000, 0), 1, negative=False, expires_ms=0, cost_ms=0)
    careful = Envelopes(Customer, max_bytes=1000)

    assert careful.encode(large) is None
    assert careful.decode(written(large)) is None


def test_a_value_that_cannot_be_written_is_not_an_error() -> None:
    assert CUSTOMERS.encode(Envelope(Customer("Anna", 2**80), 1, negative=False, expires_ms=0, cost_ms=0)) is None


def test_whatever_a_type_raises_for_a_value_is_a_miss() -> None:
    picky = Envelopes(Picky, schema=1)
    data = written(Envelope({"name": "x"}, 1, negative=False, expires_ms=0, cost_ms=0), Envelopes(dict, schema=1))

    assert picky.decode(data) is None


def test_the_head_can_be_read_without_the_type() -> None:
    head = read_head(written(ANNA))

    assert head is not None
    assert (head.version, head.schema, head.negative, head.expires_ms, head.cost_ms) == (
        7,
        schema_of(Customer),
        False,
        1_000,
        3,
    )


def test_a_type_that_cannot_be_described_needs_a_number() -> None:
    class Odd:
        pass

    with pytest.raises(ConfigurationError, match="give schema=… a number"):
        Envelopes(Odd)
