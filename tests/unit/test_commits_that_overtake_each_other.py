"""Commits that the client sends again may reach the coordinator in another order than they were made in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.config import CommitConfig
from streamworker.events import Listener
from streamworker.interfaces import CommitAnswer, OffsetMark
from streamworker.offsets.committer import Committer
from streamworker.offsets.tracker import OffsetTracker
from streamworker.record import TopicPartition
from streamworker.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    from collections.abc import Mapping

P0 = TopicPartition("t", 0)
TIMEOUT_S = 2.0


def test_an_offset_that_an_older_commit_has_written_over_is_committed_again() -> None:
    """Seen when the coordinator was killed: 761 was acknowledged after 762, and the group stood at 761 from then on."""
    sent: list[Mapping[TopicPartition, OffsetMark]] = []
    time = VirtualTime()
    committer = Committer(
        send=sent.append,
        send_now=lambda _: (),
        config=CommitConfig(timeout_s=TIMEOUT_S),
        clock=time,
        listener=Listener(),
    )
    tracker = OffsetTracker(761)
    committer.own(P0, tracker)
    committer.commit_again(P0)
    committer.step()
    tracker.deliver(761, 1)
    tracker.complete([761])
    committer.progressed(P0)
    time.wait(TIMEOUT_S, lambda: False)
    committer.step()
    older, newer = sent

    for marks in (newer, older):
        committer.answered([CommitAnswer(P0, marks[P0], None)])
    time.wait(TIMEOUT_S, lambda: False)
    committer.step()

    assert [marks[P0].offset for marks in sent] == [761, 762, 762]
