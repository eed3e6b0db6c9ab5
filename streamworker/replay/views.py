"""The views of a desk by topic, and what fills them: at once for a command, or on a thread for as long as a console is.

Decided here: what happens to a view when its topic cannot be read: it stays as it is, and says why. One whose topic is
gone, or was made anew, is thrown away. Any thread may ask; one thread at a time reads.
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from streamworker.errors import ClientError, ConfigurationError, nearest
from streamworker.replay import families
from streamworker.replay.states import state_topic
from streamworker.replay.view import View
from streamworker.replay.view_builder import ViewBuilder
from streamworker.replay.view_database import ViewError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.cluster import Cluster, TopicShape
    from streamworker.replay.clients import Clients
    from streamworker.replay.topic_log import TopicLog

_FOLLOW_S = 1.0  # between two looks for what is new
_SHAPES_S = 30.0  # between two looks for topics
_ENDS_S = 10.0

_log = logging.getLogger(__name__)


class Views:
    """Of dead-letter topics of `cluster`."""

    def __init__(self, cluster: Cluster, clients: Clients, clock: Clock, timeout_s: float) -> None:
        self._cluster = cluster
        self._clients = clients
        self._clock = clock
        self._timeout_s = timeout_s
        self._views: dict[str, View] = {}
        self._builders: dict[str, ViewBuilder] = {}  # of the one thread that reads, like the ids of their topics
        self._topic_ids: dict[str, str | None] = {}
        self._lock = threading.Lock()  # the views
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self, topic: str, told: Callable[[float], None]) -> None:
        """Read all that there is of `topic`; `told` hears the share that is read, 0 to 1.

        Raises ConfigurationError if there is no such topic, or topics are followed, and ClientError.
        """
        if self._thread is not None:
            raise ConfigurationError(f"{topic!r} is not among the dead-letter topics that are read here, or not yet")
        with closing(self._clients.new_log()) as log:
            builder = self._builder(topic, log)
            while builder.step():
                told(self.of(topic).built)
            told(1.0)

    def follow(self, chosen: Callable[[Collection[str]], Collection[str]]) -> None:
        """From now on keep views of those topics that `chosen` picks from all there are, on a thread of its own."""
        self._thread = threading.Thread(target=self._run, args=(chosen,), name="streamworker-views", daemon=True)
        self._thread.start()

    def of(self, topic: str) -> View:
        """Raises ConfigurationError for a topic that is not read here."""
        with self._lock:
            if topic in self._views:
                return self._views[topic]
            known = list(self._views)
        raise ConfigurationError(f"{topic!r} is no dead-letter topic that is read here; {nearest(topic, known)}")

    def __contains__(self, topic: str) -> bool:
        with self._lock:
            return topic in self._views

    @property
    def all(self) -> Mapping[str, View]:
        """By topic."""
        with self._lock:
            return dict(sorted(self._views.items()))

    def close(self) -> None:
        """Throw all away. Idempotent."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(_ENDS_S)
        with self._lock:
            for view in self._views.values():
                view.close()

    def _run(self, chosen: Callable[[Collection[str]], Collection[str]]) -> None:
        looked_s: float | None = None
        topics: Sequence[str] = ()
        with closing(self._clients.new_log()) as log:
            while not self._ending.is_set():
                now_s = self._clock.monotonic_s()
                if looked_s is None or now_s - looked_s >= _SHAPES_S:
                    looked_s = now_s
                    topics = self._found(chosen, topics)
                busy = [self._step(topic, log) for topic in topics if not self._ending.is_set()]
                self._ending.wait(0.0 if any(busy) else _FOLLOW_S)

    def _found(self, chosen: Callable[[Collection[str]], Collection[str]], before: Sequence[str]) -> Sequence[str]:
        try:
            shapes = self._cluster.topics(self._timeout_s)
            found = sorted(chosen(shapes.keys()))
            topic_ids = self._cluster.topic_ids(found, self._timeout_s) if found else {}
        except ClientError as error:
            _log.warning("topics cannot be listed: %s", error)
            return before
        for topic in [*self._builders]:
            if topic not in found or _differ(self._topic_ids[topic], topic_ids.get(topic)):
                self._forget(topic)
        for topic, builder in self._builders.items():
            builder.partitions = shapes[topic].partitions
            builder.state_partitions = _state_partitions(topic, shapes)
        return found

    def _forget(self, topic: str) -> None:
        del self._builders[topic], self._topic_ids[topic]
        with self._lock:
            view = self._views.pop(topic)
        view.close()

    def _step(self, topic: str, log: TopicLog) -> bool:
        try:
            return self._builder(topic, log).step()
        except (ClientError, ViewError, ConfigurationError) as error:
            if not self._ending.is_set():
                _log.warning("dead letters of %s cannot be read: %s", topic, error)
        except Exception:  # noqa: BLE001 - whatever it is, the other topics are to be read on
            _log.exception("dead letters of %s cannot be read", topic)
        return False

    def _builder(self, topic: str, log: TopicLog) -> ViewBuilder:
        found = self._builders.get(topic)
        if found is not None:
            return found
        shapes = self._cluster.topics(self._timeout_s)
        if topic not in shapes:
            letters = [name for name in shapes if name.endswith(".dlq")] or list(shapes)
            raise ConfigurationError(f"there is no topic {topic!r}; {nearest(topic, letters)}")
        topic_id = self._cluster.topic_ids([topic], self._timeout_s).get(topic)
        view = View(topic, self._clock, topic_id=topic_id)
        with self._lock:
            self._views[topic] = view
        self._topic_ids[topic] = topic_id
        found = self._builders[topic] = ViewBuilder(
            view,
            log,
            families.read,
            partitions=shapes[topic].partitions,
            state_partitions=_state_partitions(topic, shapes),
            timeout_s=self._timeout_s,
        )
        return found


def _state_partitions(topic: str, shapes: Mapping[str, TopicShape]) -> int:
    states = shapes.get(state_topic(topic))
    return 0 if states is None else states.partitions


def _differ(one: str | None, other: str | None) -> bool:
    """Whether two topics have other ids, as far as the cluster tells them."""
    return None not in (one, other) and one != other
