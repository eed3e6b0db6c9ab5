"""What was seen of groups as numbers for metrics and as plain values for JSON. Pure; any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.observability.catalogue import ObserverMetric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.lag.group_lag import GroupLag, PartitionLag, TopicLag
    from streamworker.observability.series import Labels

Figures = dict[ObserverMetric, "Mapping[Labels, float]"]

UNKNOWN = "unknown"


def figures(groups: Sequence[GroupLag]) -> Figures:
    """The gauges of groups. They are made anew at each scrape, so a group that is gone leaves no series."""
    by_topic = {(one.group, topic): lag for one in groups for topic, lag in one.topics.items()}
    return {
        ObserverMetric.LAG: {key: lag.lag for key, lag in by_topic.items() if lag.lag is not None},
        ObserverMetric.LAG_SECONDS: {key: lag.lag_s for key, lag in by_topic.items() if lag.lag_s is not None},
        ObserverMetric.STATE: {
            (one.group, part.partition.topic, str(part.partition.partition), part.state.value): 1
            for one in groups
            for part in one.partitions
            if part.state is not None
        },
        ObserverMetric.UNOWNED: {key: lag.unowned for key, lag in by_topic.items() if lag.unowned is not None},
        ObserverMetric.MEMBERS: {(one.group,): one.members for one in groups if one.members is not None},
        ObserverMetric.DATA_LOSS: {
            key: lag.data_loss_s for key, lag in by_topic.items() if lag.data_loss_s is not None
        },
    }


def plain(group: GroupLag) -> dict[str, object]:
    """A group for JSON."""
    return {
        "group": group.group,
        "status": group.status,
        "members": group.members,
        "state": UNKNOWN if group.state is None else group.state.value,
        "error": group.error,
        "topics": [_topic(name, topic) for name, topic in group.topics.items()],
        "partitions": [_partition(one) for one in group.partitions],
    }


def _topic(name: str, topic: TopicLag) -> dict[str, object]:
    return {
        "topic": name,
        "lag": topic.lag,
        "lag_s": _rounded(topic.lag_s),
        "data_loss_s": _rounded(topic.data_loss_s),
        "unowned": topic.unowned,
    }


def _partition(one: PartitionLag) -> dict[str, object]:
    return {
        "topic": one.partition.topic,
        "partition": one.partition.partition,
        "state": UNKNOWN if one.state is None else one.state.value,
        "reason": one.reason,
        "lag": one.lag,
        "lag_s": _rounded(one.lag_s),
        "data_loss_s": _rounded(one.data_loss_s),
        "committed": one.committed,
        "start": one.start,
        "end": one.end,
        "owner": one.owner,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
