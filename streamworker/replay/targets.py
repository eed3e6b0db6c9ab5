"""Where a replay may go.

Headers of a dead letter only choose among topics that somebody else has named: the replay topics of configured groups,
and topics that are listed. What a letter says of itself can so never send it into a topic that is not meant for it.
Pure, any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from streamworker.dlq.routes import replay_topic
from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from streamworker.record import Origin

SOURCE = "source"  # the topic that the record came from, addressed to its group


class NoTarget(Exception):
    """This letter cannot be sent; says why."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A partition that a copy is sent to, and the group that it is for; None: whoever reads the topic.

    `is_shared`: other groups read the topic as well, so that only a signature keeps it from them.
    """

    topic: str
    partition: int
    group: str | None
    is_shared: bool = False


@dataclass(frozen=True)
class Targets:
    """The topics that replays may go to; `partitions` has all topics of the cluster and how many partitions they have.

    `groups` are those whose replay topics may be used, `listed` are topics for letters that say of no group.
    `can_address`: whether there is a key to sign with.
    """

    partitions: Mapping[str, int]
    groups: Collection[str]
    listed: Collection[str] = ()
    can_address: bool = False
    _names: dict[tuple[str, str], str] = field(default_factory=dict, init=False, compare=False)
    _places: dict[tuple[str, str | None], Sequence[Destination]] = field(
        default_factory=dict, init=False, compare=False
    )

    def of(self, origin: Origin | None, group: str | None, wanted: str | None = None) -> Destination:
        """Where the letter of a record from `origin` that failed for `group` goes; raises NoTarget."""
        if wanted is not None and wanted != SOURCE:
            if wanted not in self._allowed:
                raise NoTarget(f"{wanted!r} is no topic that replays may go to")
            return self._there(wanted, origin, self._replay_topics.get(wanted))
        if origin is None or group is None:
            raise NoTarget("it does not say which group it failed for; name a --target")
        if group not in self.groups:
            raise NoTarget(f"group {group!r} is none that replays may go to; name it with --group")
        own = self._own_topic(origin.topic, group)
        if wanted is None:
            if own not in self.partitions:
                raise NoTarget(f"there is no topic {own!r}; create it with `streamworker topics create`")
            return self._there(own, origin, group)
        if not self.can_address:
            raise NoTarget("without replay.key_file nothing can be addressed to one group of a topic")
        if own not in self.partitions and origin.topic not in self.listed:  # nothing else says that the group reads it
            raise NoTarget(f"{origin.topic!r} has no replay topic of group {group!r}; list it in replay.targets")
        return replace(self._there(origin.topic, origin, group), is_shared=True)

    def _own_topic(self, topic: str, group: str) -> str:
        """The name of the replay topic, worked out once for all letters of a topic."""
        name = self._names.get((topic, group))
        if name is None:
            name = self._names[topic, group] = replay_topic(topic, group)
        return name

    def owner(self, topic: str) -> str | None:
        """The group whose replay topic it is; None if it is none."""
        return self._replay_topics.get(topic)

    def options(self, origin: Origin | None, group: str | None) -> Sequence[str]:
        """What may be named for a letter, the default first."""
        found = []
        for wanted in (None, SOURCE, *sorted(self.listed)):
            try:
                destination = self.of(origin, group, wanted)
            except NoTarget:
                continue
            found.append(SOURCE if wanted == SOURCE else destination.topic)
        return list(dict.fromkeys(found))

    def check(self, wanted: str | None) -> None:
        """Raises ConfigurationError for a topic that nothing may go to."""
        if wanted in (None, SOURCE) or wanted in self._allowed:
            return
        raise ConfigurationError(
            f"target {wanted!r} is neither a replay topic of a configured group nor in replay.targets;"
            f" {nearest(str(wanted), {*self._allowed, SOURCE})}"
        )

    @cached_property
    def _allowed(self) -> set[str]:
        return self._replay_topics.keys() | (set(self.listed) & self.partitions.keys())

    @cached_property
    def _replay_topics(self) -> Mapping[str, str]:
        """Those of the groups that are there, and whose they are."""
        named = {replay_topic(topic, group): group for topic in self.partitions for group in self.groups}
        return {topic: group for topic, group in named.items() if topic in self.partitions}

    def _there(self, topic: str, origin: Origin | None, group: str | None) -> Destination:
        places = self._places.get((topic, group))
        if places is None:
            count = self.partitions.get(topic)
            if not count:
                raise NoTarget(f"there is no topic {topic!r}")
            places = self._places[topic, group] = [Destination(topic, number, group) for number in range(count)]
        # Letters of one source partition stay together, and so in order.
        return places[0 if origin is None else origin.partition % len(places)]
