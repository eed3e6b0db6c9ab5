"""What became of a replay, derived from what the cluster shows and never stored. Pure, any thread.

It is exact because a worker's dead letter is acknowledged before the offset of the record behind it is committed: once
the group has passed the copy, a letter that came of it is in the dead-letter topic, or there is none.
"""

from __future__ import annotations

from streamworker.replay.desk import Outcome


def outcome(*, known: bool, passed: bool, returned: bool, deferred: bool) -> Outcome:
    """`known`: where the copy is, and how far its group. `passed`: the group has done it.

    `returned`, `deferred`: a dead letter, or a copy in a retry topic, that names the replay was found. The dead-letter
    topic must have been read to an end that was asked for after the group's offset.
    """
    if returned:
        return Outcome.RETURNED
    if deferred:
        return Outcome.DEFERRED
    if not known:
        return Outcome.UNKNOWN
    return Outcome.HANDLED if passed else Outcome.WAITING
