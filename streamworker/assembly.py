"""Puts a worker together from a configuration and handler classes: the only place that knows all the parts."""

from __future__ import annotations

import gc
import logging
import os
import secrets
from functools import partial
from typing import TYPE_CHECKING

from streamworker import __version__
from streamworker.cache.caches import BREAKER, Caches
from streamworker.cache.figures import figures as cache_figures
from streamworker.clock import SystemClock
from streamworker.cluster import Cluster
from streamworker.declaration import declarations, is_transactional, keys_topics
from streamworker.dlq.figures import figures as outbox_figures
from streamworker.dlq.key_log import KafkaKeyLog
from streamworker.dlq.outbox import KafkaOutbox
from streamworker.dlq.replays import ReplayKey
from streamworker.errors import ClientError, ConfigurationError
from streamworker.events import Listener, Listeners
from streamworker.garbage import seldom_collected
from streamworker.idempotency.figures import figures as claim_figures
from streamworker.idempotency.provision import claimer_of
from streamworker.key_file import read_key
from streamworker.librdkafka import (
    admin_settings,
    consumer_settings,
    credentials,
    key_log_settings,
    producer_settings,
    transactional_settings,
)
from streamworker.observability.health import Limits
from streamworker.observability.http import HttpServer
from streamworker.observability.lag import LagWatch
from streamworker.observability.logs import LevelCounts, LogListener
from streamworker.observability.memory import MemoryWatch, resident_bytes
from streamworker.observability.metrics import Metrics
from streamworker.observability.pages import Pages
from streamworker.observability.process_figures import config_hash
from streamworker.observability.process_figures import figures as process_figures
from streamworker.observability.status import Board
from streamworker.observability.watchdog import Watchdog
from streamworker.observer import Observer, first_status
from streamworker.processing.pools import Pools
from streamworker.resilience.breaker import CircuitBreaker
from streamworker.resilience.provision import Provision
from streamworker.sinks.kafka import KafkaSink
from streamworker.source.kafka import KafkaSource
from streamworker.transactions.transactor import KafkaTransactor
from streamworker.work import InHand
from streamworker.worker import Bounds, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.config import Config, LifecycleConfig, ReplayConfig
    from streamworker.declaration import Declaration
    from streamworker.handler import BatchHandler, Handler
    from streamworker.record import TopicPartition
    from streamworker.scheduling.lane import LaneSlice

_log = logging.getLogger(__name__)
_METADATA_TIMEOUT_S = 10.0
_DENIED = "TOPIC_AUTHORIZATION_FAILED"


class Application:
    """A worker with everything around it: the port, the lag thread, the watchdog."""

    def __init__(
        self,
        config: Config,
        handlers: Sequence[type[Handler[object]] | type[BatchHandler[object]]],
        *,
        bounds: Bounds,
        listeners: Sequence[Listener] = (),
    ) -> None:
        declared = declarations(handlers)
        refuse_loops(declared)
        clock = SystemClock()
        board = Board(first_status(declared, config, clock))
        in_hand = InHand("in_hand", default=None)
        self._levels = LevelCounts()
        hashed = config_hash(config)
        self._caches = caches_of(config, in_hand, clock)
        claimers = {
            one.name: claimer
            for one in declared
            if (claimer := claimer_of(one, config.claims, config.kafka.group, clock)) is not None
        }
        metrics = Metrics(
            board,
            clock,
            declared,
            version=__version__,
            track=config.deployment.track,
            counted=lambda: (
                cache_figures(self._caches.stats())
                .and_those(claim_figures(claimers))
                .and_those(outbox_figures(self._outbox.queued))
                .and_those(process_figures(self._levels, hashed))
            ),
        )
        listener = Listeners([metrics, LogListener(clock), _Dropping(self._caches), *listeners])
        self._cluster = Cluster(admin_settings(config.kafka))
        self._declarations = declared
        producer = producer_settings(config.kafka, config.dead_letters)
        self._outbox = KafkaOutbox(producer, clock)
        noted = keys_topics(declared)
        self._key_log = KafkaKeyLog(key_log_settings(config.kafka), noted) if noted else None
        self._lag = LagWatch(self._cluster, clock)
        self._watchdog = Watchdog(clock=clock, stall_timeout_s=config.lifecycle.stall_timeout_s, die=os._exit)
        pages = Pages(board=board, metrics=metrics.render, clock=clock, limits=Limits.of(config))
        self._observer = Observer(
            board=board,
            lag=self._lag,
            watchdog=self._watchdog,
            clock=clock,
            listener=listener,
            memory=memory_watch(config.lifecycle),
        )
        self._also: Callable[[], None] = lambda: None
        self._http = HttpServer(config.http, pages) if config.http.enabled else None
        provision = Provision(
            declared,
            config=config,
            clock=clock,
            claimer=lambda one: claimers.get(one.name),
            caches=self._caches,
            in_hand=in_hand,
        )
        pools: Pools[LaneSlice] = Pools(
            declared,
            provision.contexts,
            clock=clock,
            max_record_bytes=config.kafka.max_record_bytes,
            log=config.log,
            claims=config.claims,
        )
        self._contexts = provision.contexts
        self._consumer_settings = consumer_settings(config.kafka, end_of_partition=bounds.until_end)
        self._source: KafkaSource | None = None
        self._transactor = _transactor(config, self._cluster, clock) if is_transactional(declared) else None
        self.worker = Worker(
            declarations=declared,
            config=config,
            source=partial(self._new_source, clock),
            executor=pools,
            outbox=self._outbox,
            log=self._cluster,
            key_log=self._key_log,
            clock=clock,
            listener=listener,
            breakers=provision.breakers,
            degradation=provision.degradation,
            transactor=self._transactor,
            caches=self._caches,
            replay_key=replay_key(config.replay),
            bounds=bounds,
            letter_max_bytes=int(producer["message.max.bytes"]),
            observe=self._between_steps,
            deadline=self._watchdog.deadline,
        )

    def run(self, between_steps: Callable[[], None] = lambda: None) -> int:
        """Work until stopped; returns the exit code. `between_steps` is called on this thread and must not block."""
        self._also = between_steps
        self._refuse_missing_topics()
        self._look_for_replay_topics()
        if self._http:
            _log.info("serving metrics, probes and status", extra={"port": self._http.start()})
        self._lag.start()
        self._watchdog.start()
        # What was loaded until here lives as long as the worker: without this every full collection, which
        # thousands of records in hand bring about often, walks through all of it again.
        gc.collect()
        with seldom_collected():
            try:
                with self._levels:
                    return self.worker.run()
            finally:
                if self._key_log:
                    self._key_log.close()
                if self._transactor:
                    self._transactor.close(self.worker.config.lifecycle.close_timeout_s)
                self._caches.close()
                self._watchdog.stop()
                self._lag.stop()
                if self._http:
                    self._http.stop()

    def take_credentials(self, username: str, password: str) -> None:
        """Show brokers another name and password of SASL from the next connection on. Thread of `run` only.

        Child processes of handlers that compute have them when they are started anew.
        """
        self._consumer_settings |= credentials(username, password)
        doors = (self._source, self._cluster, self._outbox, self._key_log, self._transactor)
        takers: list[Callable[[str, str], None]] = [one.take_credentials for one in doors if one is not None]
        for context in self._contexts:
            context.producer_settings = {**context.producer_settings, **credentials(username, password)}
            takers += context.credential_takers
        for take in takers:
            take(username, password)

    def _new_source(self, clock: Clock) -> KafkaSource:
        self._source = KafkaSource(self._consumer_settings, clock)
        return self._source

    def switch(self, degradation: Mapping[str, str]) -> None:
        """Put in force what a configuration says of reads that may degrade.

        Thread of `run` only. Raises ConfigurationError and changes nothing if it is wrong.
        """
        self.worker.switch(degradation)

    def _between_steps(self, worker: Worker) -> None:
        self._also()
        self._observer(worker)

    def stop(self, reason: str) -> None:
        """Drain and end; safe in a signal handler and from any thread."""
        self.worker.stop(reason)

    def _refuse_missing_topics(self) -> None:
        for route in self.worker.routes.retries:
            if self._outbox.partitions(route.name, _METADATA_TIMEOUT_S) is None:
                name = self._declarations[route.handler].name
                raise ConfigurationError(
                    f"{name}.retry: there is no topic {route.name!r}; make it with"
                    f" `streamworker topics create MODULE:{name} --group {self.worker.config.kafka.group}`"
                )
        for one in self._declarations:
            written = own_topic(one)
            if written is not None and self._outbox.partitions(written, _METADATA_TIMEOUT_S) is None:
                raise ConfigurationError(f"{one.name}.sink: there is no topic {written!r}; make it first")
            letter = one.dead_letter
            for topic in () if letter is None else (letter.topic, letter.keys_topic):
                if topic is not None and self._outbox.partitions(topic, _METADATA_TIMEOUT_S) is None:
                    raise ConfigurationError(
                        f"{one.name}.dead_letter: there is no topic {topic!r}; make it with"
                        f" `streamworker topics create MODULE:{one.name}`"
                    )

    def _look_for_replay_topics(self) -> None:
        """Begin without those that are not there, or cannot be read: nothing but replays needs them."""
        absent, denied = [], []
        for route in self.worker.routes.replays:
            try:
                if self._outbox.partitions(route.name, _METADATA_TIMEOUT_S) is None:
                    absent.append(route.name)
            except ClientError as error:
                if error.code != _DENIED:
                    raise
                denied.append(route.name)
        self.worker.without(absent=absent, denied=denied)
        if absent:
            _log.warning(
                "no replay topic: dead letters cannot be sent back to this group; it is waited for",
                extra={"topics": absent, "mend": "`streamworker topics create`, or DeadLetter(…, replay=False)"},
            )
        if denied:
            _log.warning(
                "no right to read a replay topic: dead letters cannot be sent back to this group",
                extra={"topics": denied, "mend": "give it READ and start again, or DeadLetter(…, replay=False)"},
            )


def assemble(
    config: Config,
    handlers: Sequence[type[Handler[object]] | type[BatchHandler[object]]],
    *,
    until_end: bool = False,
    max_records: int | None = None,
    listeners: Sequence[Listener] = (),
) -> Application:
    """An application ready to `run` on this thread; raises ConfigurationError for what cannot work.

    `until_end` and `max_records` bound the run; `listeners` are told of every event.
    """
    bounds = Bounds(until_end=until_end, max_records=max_records)
    return Application(config, handlers, bounds=bounds, listeners=listeners)


class _Dropping(Listener):
    """Lets caches forget what belongs to partitions that others have now."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches

    def revoked(self, partitions: Sequence[TopicPartition], seconds: float) -> None:  # noqa: ARG002 - as of `Listener`
        """As of `Listener`."""
        self.lost(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """As of `Listener`."""
        for partition in partitions:
            self._caches.drop(partition)


def caches_of(config: Config, in_hand: InHand, clock: Clock) -> Caches:
    """The caches of a process; it connects to Redis once a handler asks for one."""

    def partition() -> TopicPartition | None:
        slice_ = in_hand.get()
        return None if slice_ is None else slice_.ownership.partition

    gate = CircuitBreaker(BREAKER, clock=clock)
    return Caches(config.cache, app=config.kafka.group, clock=clock, gate=gate, partition=partition)


def _transactor(config: Config, cluster: Cluster, clock: Clock) -> KafkaTransactor:
    """What makes the transactions of this process: under the name of its static membership, else one of its own."""
    instance = config.kafka.librdkafka.get("group.instance.id") or f"{os.getpid()}-{secrets.token_hex(8)}"
    group, timeout_s = config.kafka.group, config.transactions.timeout_s
    return KafkaTransactor(
        transactional_settings(config.kafka, timeout_s, f"sw-{group}-{instance}"),
        committed=partial(cluster.stable_group_offsets, group),
        clock=clock,
        timeout_s=timeout_s,
    )


def replay_key(config: ReplayConfig) -> ReplayKey | None:
    """What signs replays to source topics, None without; raises ConfigurationError for a file that has no secret."""
    return None if config.key_file is None else ReplayKey(read_key("replay.key_file", config.key_file))


def memory_watch(config: LifecycleConfig, resident: Callable[[], int | None] = resident_bytes) -> MemoryWatch | None:
    """Watches the memory of the process, if a limit is set; raises ConfigurationError for one that cannot work."""
    if config.max_rss_bytes is None:
        return None
    now_bytes = resident()
    if now_bytes is None:
        raise ConfigurationError("lifecycle.max_rss_bytes: this system does not tell the memory of a process; leave it")
    if now_bytes >= config.max_rss_bytes:
        raise ConfigurationError(
            f"lifecycle.max_rss_bytes: expected more than the process has before it does anything ({now_bytes}),"
            f" got {config.max_rss_bytes}"
        )
    return MemoryWatch(limit_bytes=config.max_rss_bytes, patience_s=config.max_rss_s, read=resident)


def own_topic(declared: Declaration) -> str | None:
    """The topic of the worker's own cluster that the handler writes to, as far as its class says it."""
    sink = declared.sink
    return sink.topic if isinstance(sink, KafkaSink) and sink.connection is None else None


def refuse_loops(declared: Sequence[Declaration]) -> None:
    """Refuse a dead-letter topic that a handler of the process reads, and a sink's that the same handler reads.

    What is written there would go round for ever.
    """
    for one in declared:
        written = own_topic(one)
        if written is not None and one.subscribes_to(written):
            raise ConfigurationError(
                f"{one.name}.sink: {written!r} is also one of its topics; what it returns would go round for ever"
            )
        for other in declared:
            letter = one.dead_letter
            if letter is None:
                continue
            if other.subscribes_to(letter.topic):
                raise ConfigurationError(
                    f"{one.name}.dead_letter: {letter.topic!r} is also a topic of {other.name};"
                    f" a dead letter that fails again would go round for ever"
                )
            if letter.keys_topic is not None and other.subscribes_to(letter.keys_topic):
                raise ConfigurationError(
                    f"{one.name}.dead_letter: {letter.keys_topic!r}, which names the parked keys, is also a topic of"
                    f" {other.name}; let its topics leave it out"
                )
