"""What follows from the answer of an HTTP server. Pure.

What says nothing about the record is tried again, and breakers count it: no answer, a server error, a redirect. What
refuses the request for its own sake is poison.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from streamworker.errors import PoisonError, RetryableError
from streamworker.observability.redaction import HIDDEN, one_line, safe_text

if TYPE_CHECKING:
    from collections.abc import Collection

# Request timeout, too early, too many requests: the server asks for another try of a request that is good.
TRY_AGAIN = frozenset({408, 425, 429})
SHOWN_BYTES = 200  # of an answer's body, in the error: enough for the words of most, too little for a page

_GREATEST_DELAY_DIGITS = 9  # of seconds; more are as much as for ever


class HttpUnavailable(ConnectionError):
    """There was no answer, or one that says nothing about the record. Breakers know it by its base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered. `body` is the beginning of it; `retry_after` and `date` are headers as they came."""

    status: int
    body: bytes = b""
    retry_after: str | None = None
    date: str | None = None


def failure_of(
    request: str,
    answer: Answer,
    *,
    also_retry: Collection[int],
    max_retry_after_s: float,
    now_ms: int,
    secrets: Collection[str] = (),
) -> RetryableError | PoisonError | None:
    """The error that `answer` to `request` (in words) means, none for 2xx; `secrets` are not shown of its body."""
    status = answer.status
    if 200 <= status < 300:
        return None
    said = f"{request} was answered with {status}"
    if 300 <= status < 400:
        # Not poison: it is the URL that is wrong, and each record of the topic would become a dead letter for it.
        return try_later(f"{said}, a redirect, and none is followed; configure the URL that it leads to")
    if shown := _shown(answer.body, secrets):
        said = f"{said}: {shown}"
    if 400 <= status < 500 and status not in TRY_AGAIN and status not in also_retry:
        return PoisonError(said)
    return try_later(said, retry_after_s=wait_asked_for_s(answer, max_retry_after_s, now_ms))


def try_later(said: str, *, retry_after_s: float | None = None, cause: BaseException | None = None) -> RetryableError:
    """An error that has the record tried again, whose cause breakers count; `cause` is why."""
    unavailable = HttpUnavailable(said)
    unavailable.__cause__ = cause
    error = RetryableError(said, retry_after_s=retry_after_s)
    error.__cause__ = unavailable
    return error


def wait_asked_for_s(answer: Answer, most_s: float, now_ms: int) -> float | None:
    """Seconds from 0 to `most_s` that `Retry-After` asks for; None if it is not there or cannot be read.

    A date is taken relative to the answer's own, if it has one: then it does not matter that the clocks differ.
    """
    asked = (answer.retry_after or "").strip()
    if asked.isascii() and asked.isdigit():
        return most_s if len(asked) > _GREATEST_DELAY_DIGITS else min(float(asked), most_s)
    due_s = _seconds_of(asked)
    if due_s is None:
        return None
    now_s = _seconds_of(answer.date or "")
    return min(max(due_s - (now_ms / 1000 if now_s is None else now_s), 0.0), most_s)


def _seconds_of(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError):  # the parser lets IndexError through for some texts
        return None


def _shown(body: bytes, secrets: Collection[str]) -> str:
    text = body.decode("utf-8", "replace")
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    text = one_line(safe_text(text.encode()[:SHOWN_BYTES].decode("utf-8", "ignore")))
    return text + ("…" if len(body) > SHOWN_BYTES else "")
