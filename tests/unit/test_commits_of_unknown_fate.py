"""A commit that ends with an error may have been taken all the same."""

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


def test_an_older_offset_is_committed_over_if_its_commit_ends_with_an_error_after_a_newer_one() -> None:
    """The client sent the older one again after the newer one; it was taken, and the answer was lost."""
    sent: list[Mapping[TopicPartition, OffsetMark]] = []
    time, tracker = VirtualTime(), OffsetTracker(0)
    committer = Committer(
        send=sent.append,
        send_now=lambda _: (),
        config=CommitConfig(timeout_s=TIMEOUT_S),
        clock=time,
        listener=Listener(),
    )
    committer.own(P0, tracker)
    for offset in (0, 1):
        tracker.deliver(offset, 1)
        tracker.complete([offset])
        committer.progressed(P0)
        committer.step()
        if offset == 0:
            time.wait(TIMEOUT_S, lambda: False)
    older, newer = sent

    committer.answered([CommitAnswer(P0, newer[P0], None)])
    committer.answered([CommitAnswer(P0, older[P0], "_TRANSPORT")])
    time.wait(TIMEOUT_S, lambda: False)
    committer.step()

    assert [marks[P0].offset for marks in sent] == [1, 2, 2]


def test_a_commit_proves_membership_from_when_it_was_sent_and_only_to_the_ownership_it_was_sent_for() -> None:
    sent: list[Mapping[TopicPartition, OffsetMark]] = []
    time = VirtualTime()
    committer = Committer(
        send=sent.append, send_now=lambda _: (), config=CommitConfig(), clock=time, listener=Listener()
    )
    proofs = []
    for answered in (True, False):
        tracker = OffsetTracker(0)
        committer.own(P0, tracker)
        tracker.deliver(0, 1)
        tracker.complete([0])
        committer.progressed(P0)
        committer.step()
        time.wait(1.5, lambda: False)
        if not answered:
            committer.disown([P0])
            committer.own(P0, OffsetTracker(0))
        committer.answered([CommitAnswer(P0, sent[-1][P0], None)])
        proofs.append(committer.proven_s)

    assert proofs == [1000.0, 1000.0]
