"""One of many threads asks for a key, and the others get what it finds."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamworker.cache.single_flight import SingleFlight

WAIT_S = 30.0  # for what comes at once, unless it never does


def test_the_first_caller_leads_and_the_others_get_a_future_until_it_has_ended() -> None:
    flights: SingleFlight[str, int] = SingleFlight()

    first = flights.lead(["a", "b", "a"])
    second = flights.lead(["b", "c"])

    assert first == (["a", "b"], {})
    assert second[0] == ["c"]
    assert list(second[1]) == ["b"]
    assert not second[1]["b"].done()


def test_what_the_leader_finds_is_given_to_all_who_wait_and_the_next_caller_leads_again() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    flights.lead(["a"])
    waiting = [flights.lead(["a"])[1]["a"] for _ in range(3)]

    flights.resolve("a", 7)

    assert [future.result(0) for future in waiting] == [7, 7, 7]
    assert len(flights) == 0
    assert flights.lead(["a"]) == (["a"], {})


def test_an_error_is_raised_in_all_who_wait_and_not_in_the_next_caller() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    flights.lead(["a", "b"])
    _, waiting = flights.lead(["a", "b"])
    error = LookupError("away")

    flights.fail(["a", "b"], error)

    assert [future.exception(0) for future in waiting.values()] == [error, error]
    assert flights.lead(["a", "b"]) == (["a", "b"], {})


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_ends_the_thread_that_leads_does_not_end_those_that_wait(end: BaseException) -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    flights.lead(["a"])
    _, waiting = flights.lead(["a"])

    flights.fail(["a"], end)

    error = waiting["a"].exception(0)
    assert isinstance(error, RuntimeError)
    assert error.__cause__ is end


def test_ending_what_has_ended_does_nothing() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    flights.lead(["a"])
    _, waiting = flights.lead(["a"])
    flights.resolve("a", 1)

    flights.resolve("a", 2)
    flights.fail(["a"], LookupError())

    assert waiting["a"].result(0) == 1


def test_of_many_threads_one_leads() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    threads = 8
    together = threading.Barrier(threads)

    def ask() -> int | None:
        together.wait(WAIT_S)
        led, awaited = flights.lead(["a"])
        together.wait(WAIT_S)
        for key in led:
            flights.resolve(key, 7)
        return awaited["a"].result(WAIT_S) if awaited else None

    with ThreadPoolExecutor(threads) as pool:
        answers = [one.result(WAIT_S) for one in [pool.submit(ask) for _ in range(threads)]]

    assert sorted(answers, key=str) == [7] * (threads - 1) + [None]


def test_callers_whose_keys_overlap_crosswise_do_not_wait_for_each_other() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    both_lead = threading.Barrier(2)

    def ask(own: str, other: str) -> str:
        led, _ = flights.lead([own])
        both_lead.wait(WAIT_S)
        more, awaited = flights.lead([own + own, other])
        for key in [*led, *more]:
            flights.resolve(key, f"of {key}")
        return awaited[other].result(WAIT_S) if awaited else f"of {other}"

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.submit(ask, "a", "b"), pool.submit(ask, "b", "a")

        answers = one.result(WAIT_S), two.result(WAIT_S)

    assert answers == ("of b", "of a")
