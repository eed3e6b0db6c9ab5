"""How many dead letters a partition may write: the guard against a deploy that fails every record.

A token bucket. Each dead letter takes a token; records that were handled bring tokens back, and so does time, so
that a partition with nothing but bad records still moves. Decides nothing else: who finds the bucket empty pauses
the partition. Pure; time is an argument; loop thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamworker.config import DeadLetterConfig


class DeadLetterBudget:
    """The bucket of one partition in one ownership; full at the start.

    All times are monotonic seconds. At most `budget` + one per `records_per_token` records handled + one per
    `seconds_per_token` are granted in any span.
    """

    def __init__(self, config: DeadLetterConfig, now_s: float) -> None:
        self._config = config
        self._tokens = config.budget
        self._due_s = now_s + config.seconds_per_token  # when time brings the next token
        self._records = 0  # handled since records brought the last token

    def take(self, now_s: float) -> bool:
        """Take a token for one dead letter; false if there is none."""
        self._refill(now_s)
        if self._tokens == 0:
            return False
        self._tokens -= 1
        return True

    def handled(self, records: int) -> None:
        """Count `records` that were handled."""
        tokens, self._records = divmod(self._records + records, self._config.records_per_token)
        self._tokens = min(self._tokens + tokens, self._config.budget)

    def _refill(self, now_s: float) -> None:
        while self._tokens < self._config.budget and now_s >= self._due_s:
            self._tokens += 1
            self._due_s += self._config.seconds_per_token
        if self._tokens == self._config.budget:
            self._due_s = now_s + self._config.seconds_per_token  # a full bucket saves no time up
