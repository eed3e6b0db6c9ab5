"""How much is in hand, how much more may be fetched, and which partitions have too much of it.

Rules. The worker's bounds are on records and on bytes of values. While it is full nothing is
fetched: the client's own queue is the buffer and no partition is paused for it, because a pause
throws the prefetch away. A partition is paused when it takes so much that others starve: over its
share for `pause_after_s`, or for a moment while the worker is full. Not if it is quick: the client
hands out thousands of one partition at a time, and they are through before they were fetched anew.
When the worker stays full without a gap for `pause_after_s`, and is not quick, all are paused, since the
client cannot be polled without taking a record (a few places are kept free for these), and those with
more than an even split shed what is above it: otherwise one that waits for a retry or a person would
keep the others waiting.
Paused partitions go on at `resume_at` of their share. A retry or replay topic takes part in the split only while it
has something: else every source partition would have half. Pure; the loop thread owns it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.config import FlowConfig
    from streamworker.record import Message, TopicPartition

# A partition's share when there are several: half, and less with more of them, so that two busy
# ones cannot fill the worker; half as much again as an even split, so that even load never pauses.
_LARGEST_SHARE, _ABOVE_EVEN = 0.5, 1.5
# At most one pause a second and partition, whatever the load does.
_PAUSE_SPACING_S = 1.0
_CHECK_EVERY_S = 0.02
_FADING = 0.8  # of the largest size seen, from run to run
_NEWEST = 0.3  # weight of what ended since the last look, in the pace
_QUICK = 5000.0  # records that end in a second: what the client has of a partition is through in a few
_PACE_KNOWN_S = 0.06  # after so many looks the pace is that of now
# Places for records that come with polls while the worker is full: ten a second until all are paused.
_LARGEST_RESERVE, _SHARE_OF_RESERVE = 32, 4
# What a record of unknown size may have: the default of kafka.max_record_bytes.
_FIRST_GUESS_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Load:
    beside: bool  # of a retry or replay topic
    records: int = 0
    size_bytes: int = 0
    ended: int = 0  # since the last look
    pace: float = 0.0  # records that end in a second
    over_since_s: float | None = None
    paused_s: float | None = None
    last_pause_s: float = float("-inf")

    @property
    def idle(self) -> bool:
        """Whether there is nothing to look at: of many partitions most have nothing in hand."""
        return not (self.records or self.ended) and self.paused_s is None and self.over_since_s is None

    def look(self, since_s: float) -> None:
        """Note the pace of what ended since the last look."""
        self.pace += _NEWEST * (self.ended / since_s - self.pace)
        self.ended = 0


@dataclass(frozen=True, slots=True)
class Pressure:
    """Partitions whose reason to pause came up or went away."""

    pause: Sequence[TopicPartition] = ()
    resume: Sequence[TopicPartition] = ()
    shed: Mapping[TopicPartition, int] = field(default_factory=dict)  # how many records to give up


class Backpressure:
    """Counts what was fetched and is not settled."""

    def __init__(self, config: FlowConfig) -> None:
        self._config = config
        self._loads: dict[TopicPartition, _Load] = {}
        self._reserve = min(_LARGEST_RESERVE, config.max_inflight // _SHARE_OF_RESERVE)
        self._full_since_s: float | None = None
        self._next_check_s = float("-inf")
        self._source_partitions = 0
        self._takers = 0  # partitions that the bounds are split between, as of the last look
        self._largest_bytes = float(min(_FIRST_GUESS_BYTES, config.max_buffer_bytes))
        self.records = 0
        self.size_bytes = 0

    def own(self, partition: TopicPartition, *, beside: bool = False) -> None:
        """Count for a new epoch; `beside` is for one of a topic that stands beside a source topic."""
        self.disown(partition)
        self._loads[partition] = _Load(beside)
        self._source_partitions += not beside

    def disown(self, partition: TopicPartition) -> None:
        """What the partition had in hand is dropped."""
        load = self._loads.pop(partition, None)
        if load is not None:
            self._source_partitions -= not load.beside
            self.records -= load.records
            self.size_bytes -= load.size_bytes

    def admitted(self, partition: TopicPartition, records: int, size_bytes: int) -> None:
        """Records were fetched."""
        load = self._loads[partition]
        load.records += records
        load.size_bytes += size_bytes
        self.records += records
        self.size_bytes += size_bytes
        self._largest_bytes = max(size_bytes / records, _FADING * self._largest_bytes)

    def settled(self, partition: TopicPartition, records: int, size_bytes: int) -> None:
        """Records ended."""
        load = self._loads[partition]
        load.records -= records
        load.size_bytes -= size_bytes
        load.ended += records
        self.records -= records
        self.size_bytes -= size_bytes

    def size_of(self, partition: TopicPartition, parts: Sequence[Sequence[Message]], largest_bytes: int) -> int:
        """Bytes to settle for the messages of `parts`, none of which is larger than `largest_bytes`.

        Where the largest is at most twice the mean, the mean stands for each: looking at every record again would
        be a good part of what a fast handler costs. The sum of a partition's records is exact either way.
        """
        load = self._loads[partition]
        if largest_bytes * load.records <= 2 * load.size_bytes:
            return load.size_bytes * sum(map(len, parts)) // load.records
        return sum(len(message) for messages in parts for message in messages)

    def buffered(self, partition: TopicPartition) -> int:
        """Records of `partition` in hand."""
        return self._loads[partition].records

    def room(self) -> int:
        """How many records may be fetched now, by count and by their usual size."""
        bound_bytes, largest_bytes = self._config.max_buffer_bytes, max(self._largest_bytes, 1.0)
        reserve_bytes = min(self._reserve * largest_bytes, bound_bytes / _SHARE_OF_RESERVE)
        by_bytes = int((bound_bytes - reserve_bytes - self.size_bytes) / largest_bytes)
        room = min(self._config.max_inflight - self._reserve - self.records, by_bytes)
        if room <= 0 and not self.records:
            return 1  # a record larger than the whole bound goes alone
        return max(room, 0)

    def check(self, now_s: float) -> Pressure:
        """What to pause and what to resume; looks at most every 20 ms."""
        if now_s < self._next_check_s:
            return _NONE
        since_s = now_s - self._next_check_s + _CHECK_EVERY_S
        self._next_check_s = now_s + _CHECK_EVERY_S
        full = self.room() == 0
        self._full_since_s = (self._full_since_s if self._full_since_s is not None else now_s) if full else None
        full_for_s = 0.0 if self._full_since_s is None else now_s - self._full_since_s
        busy = [(one, load) for one, load in self._loads.items() if not load.idle]
        self._takers = self._source_partitions + sum([load.beside for _, load in busy])
        for _, load in busy:
            load.look(since_s)
        stuck = full_for_s > self._config.pause_after_s and sum(load.pace for _, load in busy) < _QUICK
        looked_at, share = list(self._loads.items()) if stuck else busy, self._share()
        pause = [one for one, load in looked_at if self._must_pause(load, share, now_s, full=full, stuck=stuck)]
        resume = [one for one, load in looked_at if load.paused_s is not None and self._may_resume(load, share)]
        for partition in pause:
            self._loads[partition].paused_s = self._loads[partition].last_pause_s = now_s
        for partition in resume:
            self._loads[partition].paused_s = self._loads[partition].over_since_s = None
        return Pressure(pause, resume, self._above_even() if stuck else {})

    def _share(self) -> float:
        return 1.0 if self._takers < 2 else min(_LARGEST_SHARE, _ABOVE_EVEN / self._takers)

    def _resume_below(self) -> float:
        """Share of the bounds at which one goes on: the others may keep their even split."""
        return max(self._config.resume_at, 1 - 0.5 / max(self._takers, 1))

    def _above_even(self) -> Mapping[TopicPartition, int]:
        if self._takers < 2:
            return {}
        above = {one: self._above(load, 1 / self._takers) for one, load in self._loads.items()}
        return {one: records for one, records in above.items() if records > 0}

    def _must_pause(self, load: _Load, share: float, now_s: float, *, full: bool, stuck: bool) -> bool:
        if load.paused_s is not None or now_s - load.last_pause_s < _PAUSE_SPACING_S:
            return False
        if stuck:
            return True
        excess = 0 if share == 1 else self._above(load, share)
        if excess <= 0:
            load.over_since_s = None
            return False
        load.over_since_s = now_s if load.over_since_s is None else load.over_since_s
        patience_s = min(_PACE_KNOWN_S, self._config.pause_after_s) if full else self._config.pause_after_s
        return load.pace < _QUICK and now_s - load.over_since_s >= patience_s

    def _above(self, load: _Load, share: float) -> int:
        """Records above `share` of the places, or of the bytes by their mean size."""
        most, most_bytes = share * self._config.max_inflight, share * self._config.max_buffer_bytes
        by_places = load.records - int(most)
        if load.size_bytes <= most_bytes:
            return by_places
        return max(by_places, load.records - int(load.records * most_bytes / load.size_bytes))

    def _may_resume(self, load: _Load, share: float) -> bool:
        limit, of_all = self._config.resume_at * share, self._resume_below()
        return (
            load.records <= limit * self._config.max_inflight
            and load.size_bytes <= limit * self._config.max_buffer_bytes
            and self.records <= of_all * self._config.max_inflight
            and self.size_bytes <= of_all * self._config.max_buffer_bytes
        )


_NONE = Pressure()
