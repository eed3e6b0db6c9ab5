"""A partition whose start could not be found out yet has nothing to commit."""

from __future__ import annotations

from streamworker import Handler, Record, TopicPartition
from streamworker.testing.virtual_world import VirtualWorld

P0 = TopicPartition("in", 0)


class Ignore(Handler[bytes]):
    topics = ("in",)

    def handle(self, record: Record[bytes]) -> None:
        pass


def test_a_late_answer_of_an_earlier_ownership_does_not_commit_the_beginning() -> None:
    """A partition comes back while its offset cannot be read; then the answer to a commit from before arrives."""
    world = VirtualWorld({"in": 1})
    for _ in range(10):
        world.broker.produce("in", 0, b"")
    member = world.start(Ignore)
    world.broker.commit_latency_s = 1.5
    world.run(lambda: world.broker.committed(P0) == 10)
    world.broker.offsets_error = lambda: "STALE_MEMBER_EPOCH"

    world.broker.expel(member.source)
    world.run_for(60)

    assert [commit.mark.offset for commit in world.broker.commits] == [0, 10]
