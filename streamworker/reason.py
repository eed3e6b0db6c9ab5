"""Why a record or its partition was treated as it was. Standard library only.

The values are in dead letters (`sw-reason`), logs and `/status`; the page of failures says what each of them means.
"""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """Of a verdict, a dead letter, a deferral, or a partition that stands still."""

    # What a failed call says.
    RETRYABLE = "retryable"
    DEPENDENCY_UNAVAILABLE = "dependency_unavailable"
    POISON = "poison"
    UNDECODABLE_KEY = "undecodable_key"
    UNDECODABLE_VALUE = "undecodable_value"
    DEFERRED = "deferred"  # put aside: no attempt is spent
    CRITICAL = "critical"
    FATAL = "fatal"
    RULE = "rule"
    SKIPPED = "skipped"
    # What the calls before it say.
    EXHAUSTED = "exhausted"
    FAILS_ALONE = "fails_alone"
    KILLED_WORKER = "killed_worker"
    BLOCKED = "blocked"
    NO_DEAD_LETTER = "no_dead_letter"
    # What no call says.
    HEAD_OF_LINE = "head_of_line"
    PARKED_BEHIND = "parked_behind"
    # What the sink says, or who keeps claims.
    CLAIMED = "claimed"
    OWNERSHIP_LOST = "ownership_lost"
    FOREIGN_REWIND = "foreign_rewind"
    OUTPUT_REFUSED = "output_refused"
    # What the partition says.
    DEAD_LETTER_REFUSED = "dead_letter_refused"
    KILLS_BEFORE_DELIVERY = "kills_before_delivery"
    TOPIC_MADE_ANEW = "topic_made_anew"
    OFFSET_WENT_BACK = "offset_went_back"
    OFFSET_OUT_OF_RANGE = "offset_out_of_range"
    LOG_TRUNCATED = "log_truncated"
    UNREADABLE_BATCH = "unreadable_batch"
    UNAUTHORIZED = "unauthorized"
