"""What follows from a failed call: one row per kind of error, and the rules before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.errors import (
    CallKilled,
    DecodeError,
    Defect,
    Defer,
    DependencyUnavailable,
    FatalError,
    HandlerSignal,
    PoisonError,
    RetryableError,
)
from streamworker.options import OnExhausted, Rule
from streamworker.reason import Reason
from streamworker.resilience.verdict import Verdict, VerdictKind, judge

if TYPE_CHECKING:
    from collections.abc import Sequence


def judged(
    error: BaseException,
    *rules: Rule,
    attempt: int = 1,
    attempts: int = 4,
    has_dead_letter: bool = True,
    on_exhausted: OnExhausted = OnExhausted.DLQ,
    **topics: bool,
) -> Verdict:
    return judge(
        error,
        attempt=attempt,
        attempts=attempts,
        rules=rules,
        has_dead_letter=has_dead_letter,
        on_exhausted=on_exhausted,
        **topics,
    )


def wrapped(inner: BaseException, outer: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


CRITICAL = [SystemExit(1), KeyboardInterrupt(), MemoryError(), GeneratorExit()]


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (FatalError("stop"), VerdictKind.STOP, "fatal"),
        (PoisonError("bad"), VerdictKind.DEAD_LETTER, "poison"),
        (DecodeError("no JSON"), VerdictKind.DEAD_LETTER, "undecodable_value"),
        (DecodeError("no UTF-8", part="key"), VerdictKind.DEAD_LETTER, "undecodable_key"),
        (DependencyUnavailable("registry"), VerdictKind.WAIT, "dependency_unavailable"),
        (Defer("no retry topics"), VerdictKind.RETRY, "retryable"),
        (RetryableError("later"), VerdictKind.RETRY, "retryable"),
        (HandlerSignal("no kind"), VerdictKind.RETRY, "retryable"),
        (ValueError("whatever"), VerdictKind.RETRY, "retryable"),
        (RecursionError(), VerdictKind.RETRY, "retryable"),
        (BaseException("not even an Exception"), VerdictKind.STOP, "fatal"),
    ],
    ids=lambda value: getattr(value, "value", None) or repr(value),
)
def test_without_rules_the_class_of_the_error_decides(error: BaseException, kind: VerdictKind, reason: str) -> None:
    assert judged(error) == Verdict(kind, reason)


@pytest.mark.parametrize("error", [ValueError(), RetryableError(), PoisonError("bad"), FatalError("stop")], ids=repr)
def test_what_a_dependency_failed_spends_no_attempt_and_other_verdicts_stay(error: BaseException) -> None:
    spared = Verdict(VerdictKind.SPARE, Reason.DEPENDENCY_UNAVAILABLE)
    plain = judged(error)

    assert judged(error, attempt=9, spares=True) == (spared if plain.kind is VerdictKind.RETRY else plain)


def test_only_what_asks_for_it_is_put_aside() -> None:
    aside = Verdict(VerdictKind.DEFER, Reason.DEFERRED)

    assert judged(Defer("later"), puts_aside=True) == aside
    assert judged(RetryableError("later"), puts_aside=True).kind is VerdictKind.RETRY


@pytest.mark.parametrize("error", CRITICAL, ids=repr)
def test_the_end_of_the_process_stops_the_worker_whatever_the_rules_say(error: BaseException) -> None:
    rules = [Rule.dead_letter(BaseException), Rule.skip(type(error)), Rule.retry(lambda _: True)]

    verdict = judged(error, *rules, attempt=4)

    assert verdict == Verdict(VerdictKind.STOP, "critical")


@pytest.mark.parametrize("cause", [MemoryError(), RecursionError()], ids=repr)
def test_bytes_that_exhaust_memory_while_decoding_are_poison(cause: BaseException) -> None:
    error = wrapped(cause, DecodeError("too deep"))

    assert judged(error) == Verdict(VerdictKind.DEAD_LETTER, "undecodable_value")


def test_an_error_is_judged_by_what_it_was_raised_from() -> None:
    assert judged(wrapped(PoisonError("bad"), RuntimeError("wrapped"))).reason == "poison"


def test_the_outermost_word_holds_when_causes_say_something_else() -> None:
    assert judged(wrapped(PoisonError("bad"), RetryableError("it may pass"))).kind is VerdictKind.RETRY


def test_a_circle_of_causes_is_judged_like_any_other_error() -> None:
    inner = ValueError("inner")
    error = wrapped(wrapped(inner, RuntimeError("middle")), KeyError("outer"))
    inner.__cause__ = error

    assert judged(error, Rule.stop(OSError)).kind is VerdictKind.RETRY


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule.retry(PoisonError), Verdict(VerdictKind.RETRY, "retryable")),
        (Rule.dead_letter(PoisonError), Verdict(VerdictKind.DEAD_LETTER, "rule")),
        (Rule.skip((OSError, PoisonError)), Verdict(VerdictKind.SKIP, "skipped")),
        (Rule.stop(lambda error: "bad" in str(error)), Verdict(VerdictKind.STOP, "rule")),
    ],
    ids=["retry", "dead_letter", "skip", "stop"],
)
def test_a_rule_goes_before_the_class_of_the_error(rule: Rule, expected: Verdict) -> None:
    assert judged(PoisonError("bad"), rule) == expected


def test_the_first_rule_that_matches_decides() -> None:
    rules = [Rule.stop(KeyError), Rule.skip(ValueError), Rule.dead_letter(Exception)]

    assert judged(ValueError(), *rules).kind is VerdictKind.SKIP


def test_a_rule_matches_a_cause() -> None:
    error = wrapped(ConnectionResetError(), RuntimeError("database"))

    assert judged(error, Rule.dead_letter(ConnectionError)).reason == "rule"


def test_a_predicate_that_raises_matches_nothing_and_is_told() -> None:
    rules = [Rule.stop(lambda error: error.args[7]), Rule.skip(ValueError)]

    verdict = judged(ValueError(), *rules)

    assert verdict.kind is VerdictKind.SKIP
    assert "Rule.stop" in verdict.note
    assert "IndexError" in verdict.note


@given(attempts=st.integers(1, 20))
def test_a_record_is_exhausted_after_exactly_so_many_calls(attempts: int) -> None:
    kinds = [judged(OSError(), attempt=attempt, attempts=attempts).kind for attempt in range(1, attempts + 1)]

    assert kinds == [VerdictKind.RETRY] * (attempts - 1) + [VerdictKind.DEAD_LETTER]


@pytest.mark.parametrize(
    ("on_exhausted", "defers", "kind"),
    [
        (OnExhausted.DLQ, False, VerdictKind.DEAD_LETTER),
        (OnExhausted.BLOCK, False, VerdictKind.BLOCK),
        (OnExhausted.DLQ, True, VerdictKind.DEFER),
    ],
)
def test_a_record_whose_calls_cost_processes_is_tried_again_and_ends_as_one_that_kills(
    on_exhausted: OnExhausted, kind: VerdictKind, *, defers: bool
) -> None:
    killed = CallKilled("died", exit_code=-9)

    assert judged(killed, attempt=3).kind is VerdictKind.RETRY
    assert judged(killed, attempt=4, on_exhausted=on_exhausted, defers=defers) == Verdict(kind, "killed_worker")
    assert judged(killed, Rule.dead_letter(CallKilled)) == Verdict(VerdictKind.DEAD_LETTER, "rule")


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (ValueError("whatever"), VerdictKind.DEFER, "exhausted"),
        (PoisonError("bad"), VerdictKind.DEAD_LETTER, "poison"),
        (Defer("not now"), VerdictKind.DEFER, "deferred"),
    ],
)
def test_a_retry_topic_takes_what_is_exhausted_or_put_aside_and_nothing_else(
    error: Exception, kind: VerdictKind, reason: str
) -> None:
    assert judged(error, attempt=4, defers=True, puts_aside=True) == Verdict(kind, reason)


def test_in_the_last_topic_the_exhausted_are_dead_letters_and_what_is_put_aside_is_not() -> None:
    assert judged(ValueError(), attempt=4, puts_aside=True) == Verdict(VerdictKind.DEAD_LETTER, "exhausted")
    assert judged(Defer(), attempt=4, puts_aside=True) == Verdict(VerdictKind.DEFER, "deferred")


def test_a_retry_rule_does_not_go_beyond_the_attempts() -> None:
    assert judged(PoisonError(), Rule.retry(PoisonError), attempt=4) == Verdict(VerdictKind.DEAD_LETTER, "exhausted")


def test_waiting_for_a_dependency_spends_no_attempt() -> None:
    assert judged(DependencyUnavailable(), attempt=99).kind is VerdictKind.WAIT


def test_an_exhausted_record_blocks_its_partition_when_declared_so() -> None:
    assert judged(OSError(), attempt=4, on_exhausted=OnExhausted.BLOCK) == Verdict(VerdictKind.BLOCK, "blocked")


def test_poison_goes_to_the_dead_letters_even_where_exhausted_records_block() -> None:
    assert judged(PoisonError(), on_exhausted=OnExhausted.BLOCK).kind is VerdictKind.DEAD_LETTER


@pytest.mark.parametrize(
    ("error", "rules", "attempt"),
    [(PoisonError(), (), 1), (OSError(), (), 4), (OSError(), (Rule.skip(OSError),), 1)],
    ids=["poison", "exhausted", "skip"],
)
def test_without_dead_letters_what_cannot_be_handled_stops_its_partition(
    error: BaseException, rules: Sequence[Rule], attempt: int
) -> None:
    verdicts = {judged(error, *rules, attempt=attempt, has_dead_letter=False, on_exhausted=way) for way in OnExhausted}

    assert verdicts == {Verdict(VerdictKind.BLOCK, "no_dead_letter")}


def test_errors_of_a_group_are_looked_at_before_what_it_was_raised_from() -> None:
    """As a TaskGroup raises them."""
    group = ExceptionGroup("of two", [ValueError("a"), ExceptionGroup("inner", [PoisonError("b")])])

    assert judged(group).reason == "poison"
    assert judged(ExceptionGroup("of one", [ValueError("a")])).kind is VerdictKind.RETRY
    assert judged(ExceptionGroup("of one", [KeyError("a")]), Rule.skip(LookupError)).kind is VerdictKind.SKIP


def test_no_rule_makes_dead_letters_of_a_defect_of_ours() -> None:
    verdict = judged(Defect(ValueError("ours")), Rule.dead_letter(Exception))

    assert (verdict.kind, verdict.reason) == (VerdictKind.STOP, "fatal")


@pytest.mark.parametrize("kind", list(VerdictKind))
def test_a_group_goes_in_halves_before_one_of_it_is_given_up(kind: VerdictKind) -> None:
    """What is tried again, and what stops the worker, is no matter of one record."""
    verdict = Verdict(kind, Reason.POISON)

    assert not verdict.takes_apart(1)
    assert verdict.takes_apart(2) == (
        kind in {VerdictKind.DEFER, VerdictKind.DEAD_LETTER, VerdictKind.SKIP, VerdictKind.BLOCK}
    )
