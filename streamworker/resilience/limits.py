"""How fast a handler may be given records, how many again, how many at once. Pure; the loop thread owns each object.

Tokens come with time and go with calls. What is given in one piece, as a batch, may take more than there are, and the
next then waits for longer: over any time a limit holds to within one piece.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from streamworker.resilience.verdict import is_of_a_dependency

if TYPE_CHECKING:
    from streamworker.options import Adaptive, Rate, RetryBudget

# For so long tokens for retries are kept: what was earned long ago says nothing of now.
_KEPT_S = 10
# Tokens come as sums of floats; a wait that is shorter than the loop's step is no use.
_NEARLY, _SHORTEST_WAIT_S = 1e-6, 0.001


class RetryAllowance:
    """How many retries a handler may make: a share of its first calls, and a few a second."""

    def __init__(self, budget: RetryBudget, now_s: float) -> None:
        self._ratio = budget.ratio
        self._per_s = budget.min_per_s
        self._tokens = self._floor = budget.min_per_s * _KEPT_S
        self._at_s = now_s
        self._earned: deque[tuple[int, float]] = deque()  # by the second, oldest first
        self._postponed = 0

    def first_calls(self, calls: int, now_s: float) -> None:
        """So many calls ended that were the first for their records."""
        self._move_on(now_s)
        earned, second = calls * self._ratio, int(now_s)
        self._tokens += earned
        if self._earned and self._earned[-1][0] == second:
            earned += self._earned.pop()[1]
        self._earned.append((second, earned))

    def wait_s(self, calls: int, now_s: float) -> float:
        """0 if that many retries may be made now, which takes their tokens; else after how long to ask again."""
        self._move_on(now_s)
        missing = min(calls, self._floor) - self._tokens
        if missing > _NEARLY:
            self._postponed += 1
            return max(missing / self._per_s, _SHORTEST_WAIT_S)
        self._tokens -= calls
        return 0.0

    def postponed(self) -> int:
        """How often retries were postponed since the last call."""
        postponed, self._postponed = self._postponed, 0
        return postponed

    def _move_on(self, now_s: float) -> None:
        while self._earned and self._earned[0][0] <= now_s - _KEPT_S:
            self._earned.popleft()
        most = self._floor + sum(earned for _, earned in self._earned)
        self._tokens = min(self._tokens + (now_s - self._at_s) * self._per_s, most)
        self._at_s = now_s


class Pace:
    """The rate of all records of a handler together."""

    def __init__(self, rate: Rate, now_s: float) -> None:
        self._per_s = rate.per_s
        self._burst = self._tokens = rate.most_at_once
        self._at_s = now_s
        self._refused_s: float | None = None  # when it was refused last, if nothing was given since
        self._waited_s = 0.0

    def most(self, now_s: float, *, needed: bool) -> int:
        """How many records may go now; `needed` says that some wait for it."""
        self._tokens = min(self._tokens + (now_s - self._at_s) * self._per_s, self._burst)
        self._at_s = now_s
        if self._refused_s is not None:
            self._waited_s += now_s - self._refused_s
        most = max(int(self._tokens + _NEARLY), 0)
        self._refused_s = now_s if needed and not most else None
        return most

    def spend(self, records: int) -> None:
        """So many go."""
        self._tokens -= records

    @property
    def ready_at_s(self) -> float | None:
        """When the next may go, if some were refused at the last question; else None."""
        if self._refused_s is None:
            return None
        return self._at_s + max((1 - self._tokens) / self._per_s, _SHORTEST_WAIT_S)

    def waited_s(self) -> float:
        """For how long records waited, since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s


class KeyPace:
    """The rate of each key's records; of the keys that went last only, since what is kept must have an end."""

    def __init__(self, rate: Rate) -> None:
        self._each_s = 1 / rate.per_s
        self._ahead_s = (rate.most_at_once - 1) / rate.per_s
        self._max_keys = rate.max_keys
        # When the next record of a key would go if its records came at the rate exactly; it may go ahead by the burst.
        self._even_s: OrderedDict[bytes, float] = OrderedDict()
        self._waited_s = 0.0

    def __len__(self) -> int:
        return len(self._even_s)

    def wait_s(self, key: bytes, now_s: float) -> float:
        """After how long a record of `key` may go."""
        left_s = self._even_s.get(key, now_s) - self._ahead_s - now_s
        return 0.0 if left_s <= _NEARLY else max(left_s, _SHORTEST_WAIT_S)

    def spend(self, key: bytes, now_s: float) -> None:
        """One record of `key` goes."""
        self._even_s[key] = max(self._even_s.pop(key, now_s), now_s) + self._each_s
        if len(self._even_s) > self._max_keys:
            self._even_s.popitem(last=False)

    def waits(self, seconds: float) -> None:
        """A record has to wait for its key's turn."""
        self._waited_s += seconds

    def waited_s(self) -> float:
        """For how long records have to wait that were made to wait since the last call."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s


class AdaptiveLimit:
    """How many calls at once: less by a share after a failure, one more after as many successes as it allows.

    Successes count only while the limit is what holds records back (`saturated`): else it would grow in quiet times
    without having been tried. Each failure counts: to count those of one moment once lets it grow, where failures come
    slowly as timeouts do, to several times of what can be taken.
    """

    def __init__(self, rules: Adaptive, most: int) -> None:
        self._rules = rules
        self._most = most
        self._limit = float(most)
        self._successes = 0
        self.saturated = False

    @property
    def calls(self) -> int:
        """How many calls may be made at once."""
        return int(self._limit)

    def ended(self, succeeded: int, error: BaseException | None) -> None:
        """Calls came back; the last of them raised `error`, if there is one."""
        if error is not None and is_of_a_dependency(error, self._rules.counts):
            self._successes = 0
            self._limit = max(self._limit * self._rules.backoff, float(self._rules.least))
            return
        if self.saturated:
            self._successes += succeeded
        if self._successes >= self.calls:
            self._successes = 0
            self._limit = min(self._limit + 1, float(self._most))
