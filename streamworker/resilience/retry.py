"""How long a failed record waits for its next call.

The door to tenacity: its wait strategies are asked, its retry loop is not used, because that would sleep in the
thread. Whether there is a next call at all is decided in `verdict.py`. Loop thread only.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_random_exponential

from streamworker.errors import RetryableError
from streamworker.resilience.verdict import causes

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.options import Retry


class Backoff:
    """The delays of one handler's `Retry`."""

    def __init__(self, retry: Retry) -> None:
        self._cap_s = retry.cap_s
        # The exponential overflows at attempt 1 025, and tenacity takes `max` then, even where the base is 0.
        longest_s = retry.cap_s if retry.base_s else 0.0
        self._default = wait_random_exponential(multiplier=retry.base_s, max=longest_s)
        self._wait: Callable[..., float] = retry.wait or self._default
        self._retrying = Retrying(wait=self._wait)
        self._said: set[str] = set()

    def delay_s(self, attempt: int, error: BaseException) -> float:
        """Seconds from now until the call after call number `attempt` (the first is 1), which raised `error`.

        A `retry_after_s` on the error or one of its causes goes before the strategy. Neither is held to
        `cap_s`, but what is no finite number from 0 becomes `cap_s`. Never raises: the default stands in for a
        strategy that does. The log says either once.
        """
        for link in causes(error):
            if isinstance(link, RetryableError) and link.retry_after_s is not None:
                return self._sound(link.retry_after_s)
        return self._sound(self._ask(self._state(attempt, error)))

    def _state(self, attempt: int, error: BaseException) -> RetryCallState:
        state = RetryCallState(self._retrying, fn=None, args=(), kwargs={})
        state.attempt_number = attempt
        state.set_exception((type(error), error, error.__traceback__))
        return state

    def _ask(self, state: RetryCallState) -> object:
        try:
            return self._wait(state)
        except Exception as broken:  # noqa: BLE001 - a user's strategy must not cost the record its retry
            self._say_once(f"Retry.wait {self._wait!r} failed, the default back-off stands in", broken)
            return self._default(state)

    def _say_once(self, what: str, broken: Exception | None = None) -> None:
        if what not in self._said:
            self._said.add(what)
            logging.getLogger(__name__).error("%s; said once", what, exc_info=broken)

    def _sound(self, delay: object) -> float:
        try:
            seconds = float(delay)  # type: ignore[arg-type]  # what a user's strategy returned: anything
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
        what = type(delay).__name__
        self._say_once(f"Retry.wait or retry_after_s gave what cannot be waited ({what}), cap_s stands in")
        return self._cap_s
