"""What follows from a failed call.

Decided here: retry, wait, dead letter, skip, stop, and which errors are a dependency's. Not decided here: how long a
retry waits (`retry.py`) and how an ending is settled (`settlement.py`). Pure, any thread; imports the vocabulary and
the configuration.

The order of the questions:

1. SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError: the process is at fault, never the record. No rule
   is asked, because a rule for `Exception` would otherwise turn the end of a process into dead letters. Out of
   memory *while decoding* comes wrapped in DecodeError, and that is the record's fault.
   Nor is one asked where no call was made: another owner at the sink, offsets that went back, a claim of another's.
2. The handler's rules, the first that matches the error or one of its causes.
3. What the error's class says (`errors.py`), else that of the nearest cause that says something.
4. Whether the failure is that of a dependency whose breaker the handler has declared (`spares`): what would be tried
   again spends no attempt, and is never exhausted.
5. Any other Exception is tried again, and is exhausted after exactly `attempts` calls; what is not even an
   Exception stops the worker. A record whose calls have cost child processes ends as one that kills its worker.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streamworker.errors import (
    CallKilled,
    ClaimBusy,
    ClaimsUnavailable,
    DecodeError,
    Defect,
    Defer,
    DependencyUnavailable,
    FatalError,
    ForeignRewind,
    OwnershipLost,
    PoisonError,
    RetryableError,
)
from streamworker.options import Action, OnExhausted
from streamworker.reason import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamworker.options import Matcher, Rule

_CRITICAL = (SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError)
_MAX_CAUSES = 16  # far beyond what people chain; `raise a from b` can make a circle
# By name, so that no driver is imported: those of Python, of the database API (PEP 249), redis, requests and httpx.
_COUNTED_NAMES = frozenset(
    {"ConnectionError", "TimeoutError", "Timeout", "gaierror", "OperationalError", "InterfaceError", "TransportError"}
)


class VerdictKind(enum.Enum):
    """What is to be done with the record."""

    RETRY = "retry"  # hand it over again after the back-off
    WAIT = "wait"  # the same, and no attempt is spent; its partition stands still meanwhile
    POSTPONE = "postpone"  # hand it over again when the error says, and no attempt is spent
    SPARE = "spare"  # the same, and no attempt is spent; the handler's breaker decides when
    DEFER = "defer"  # to the next retry topic
    DEAD_LETTER = "dead_letter"
    SKIP = "skip"  # a pointer record, then done
    BLOCK = "block"  # its partition stops and waits for a person
    STOP = "stop"  # the worker stops; the record is not done


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done and why; `note` tells of rules whose predicate raised, and is empty if none did."""

    kind: VerdictKind
    reason: Reason
    note: str = ""

    def takes_apart(self, records: int) -> bool:
        """Whether so many records that failed together go in halves first: one is at fault, and nobody said which."""
        return records > 1 and self.kind in _ENDS_A_RECORD


_ENDS_A_RECORD = (VerdictKind.DEFER, VerdictKind.DEAD_LETTER, VerdictKind.SKIP, VerdictKind.BLOCK)
_NEEDS_DEAD_LETTER = (VerdictKind.DEAD_LETTER, VerdictKind.SKIP)
_RETRY = Verdict(VerdictKind.RETRY, Reason.RETRYABLE)
_EXHAUSTED = Verdict(VerdictKind.DEAD_LETTER, Reason.EXHAUSTED)
_DEFERRED = Verdict(VerdictKind.DEFER, Reason.EXHAUSTED)
_ASIDE = Verdict(VerdictKind.DEFER, Reason.DEFERRED)
_SPARED = Verdict(VerdictKind.SPARE, Reason.DEPENDENCY_UNAVAILABLE)
_BLOCKED = Verdict(VerdictKind.BLOCK, Reason.BLOCKED)
_NO_DEAD_LETTER = Verdict(VerdictKind.BLOCK, Reason.NO_DEAD_LETTER)
_POISON = Verdict(VerdictKind.DEAD_LETTER, Reason.POISON)
_UNDECODABLE_KEY = Verdict(VerdictKind.DEAD_LETTER, Reason.UNDECODABLE_KEY)
_UNDECODABLE_VALUE = Verdict(VerdictKind.DEAD_LETTER, Reason.UNDECODABLE_VALUE)
_UNAVAILABLE = Verdict(VerdictKind.WAIT, Reason.DEPENDENCY_UNAVAILABLE)
_CLAIMED = Verdict(VerdictKind.POSTPONE, Reason.CLAIMED)
_LOST = Verdict(VerdictKind.WAIT, Reason.OWNERSHIP_LOST)
_REWOUND = Verdict(VerdictKind.BLOCK, Reason.FOREIGN_REWIND)
_FATAL = Verdict(VerdictKind.STOP, Reason.FATAL)
_OF_ACTION = {
    Action.RETRY: _RETRY,
    Action.DEAD_LETTER: Verdict(VerdictKind.DEAD_LETTER, Reason.RULE),
    Action.SKIP: Verdict(VerdictKind.SKIP, Reason.SKIPPED),
    Action.STOP: Verdict(VerdictKind.STOP, Reason.RULE),
}


def judge(
    error: BaseException,
    *,
    attempt: int,
    attempts: int,
    rules: Sequence[Rule],
    has_dead_letter: bool,
    on_exhausted: OnExhausted,
    spares: bool = False,
    defers: bool = False,
    puts_aside: bool = False,
) -> Verdict:
    """Judge `error`, raised by call number `attempt` (the first is 1) of at most `attempts`.

    Of a `BatchFailed`, pass the cause. With `defers` there is a retry topic for what is exhausted,
    with `puts_aside` one for what spends no attempt.
    """
    if isinstance(error, _CRITICAL):
        return Verdict(VerdictKind.STOP, Reason.CRITICAL)
    if isinstance(error, Defect):
        return _FATAL
    if (verdict := _of_no_call(error)) is not None:
        return verdict
    action, note = _action_of_rules(rules, error)
    verdict = _built_in(error) if action is None else _OF_ACTION[action]
    if verdict.kind is VerdictKind.DEFER and not puts_aside:
        verdict = _RETRY
    if spares and verdict.kind is VerdictKind.RETRY:
        verdict = _SPARED
    if verdict.kind is VerdictKind.RETRY and attempt >= attempts:
        blocks = has_dead_letter and on_exhausted is OnExhausted.BLOCK
        verdict = _BLOCKED if blocks else _DEFERRED if defers else _EXHAUSTED
        if isinstance(error, CallKilled):
            verdict = replace(verdict, reason=Reason.KILLED_WORKER)
    if verdict.kind in _NEEDS_DEAD_LETTER and not has_dead_letter:
        verdict = _NO_DEAD_LETTER
    return replace(verdict, note=note) if note else verdict


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from, and so on; the implicit context is not followed."""
    return _chain(error, lambda link: link.__cause__)


def links(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from or, if it does not say, amid, and so on."""
    return _chain(
        error,
        lambda link: link.__context__ if link.__cause__ is None and not link.__suppress_context__ else link.__cause__,
    )


def is_of_a_dependency(error: BaseException, matches: Matcher | None) -> bool:
    """Whether `error` is a dependency's by what `matches`, None being connection errors and timeouts."""
    try:
        return any(_has_known_name(link) if matches is None else _is_match(matches, link) for link in causes(error))
    except Exception:  # noqa: BLE001 - a user's predicate; the record is judged without it
        return False


def _chain(error: BaseException, before: Callable[[BaseException], BaseException | None]) -> Iterator[BaseException]:
    """Each error and those of a group (as a TaskGroup raises them) before what they were raised from."""
    waiting = [error]
    for _ in range(_MAX_CAUSES):
        if not waiting:
            return
        link = waiting.pop()
        yield link
        if (cause := before(link)) is not None:
            waiting.append(cause)
        if isinstance(link, BaseExceptionGroup):
            waiting += reversed(link.exceptions)


def _has_known_name(link: BaseException) -> bool:
    return any(kind.__name__ in _COUNTED_NAMES for kind in type(link).__mro__)


def _action_of_rules(rules: Sequence[Rule], error: BaseException) -> tuple[Action | None, str]:
    notes: list[str] = []
    for rule in rules:
        if _matches(rule, error, notes):
            return rule.action, "; ".join(notes)
    return None, "; ".join(notes)


def _matches(rule: Rule, error: BaseException, notes: list[str]) -> bool:
    try:
        return any(_is_match(rule.matches, link) for link in causes(error))
    except Exception as broken:  # noqa: BLE001 - a user's predicate; the record is judged without it
        notes.append(f"the predicate of Rule.{rule.action.value}({rule.matches!r}) raised {type(broken).__name__}")
        return False


def _is_match(matches: Matcher, link: BaseException) -> bool:
    if isinstance(matches, type | tuple):
        return isinstance(link, matches)
    return bool(matches(link))


def _of_no_call(error: BaseException) -> Verdict | None:
    """Of what a sink says of the partition as a whole, or who keeps claims of a record."""
    match error:
        case OwnershipLost():
            return _LOST
        case ForeignRewind():
            return _REWOUND
        case ClaimBusy():
            return _CLAIMED
        case ClaimsUnavailable():
            return _UNAVAILABLE
        case _:
            return None


def _built_in(error: BaseException) -> Verdict:
    for link in causes(error):
        verdict = _of_class(link)
        if verdict is not None:
            return verdict
    return _RETRY if isinstance(error, Exception) else _FATAL


def _of_class(link: BaseException) -> Verdict | None:
    match link:
        case FatalError():
            return _FATAL
        case PoisonError():
            return _POISON
        case DecodeError():
            return _UNDECODABLE_KEY if link.part == "key" else _UNDECODABLE_VALUE
        case DependencyUnavailable():
            return _UNAVAILABLE
        case RetryableError() | Defer():
            return _ASIDE if isinstance(link, Defer) else _RETRY
        case _:
            return None
