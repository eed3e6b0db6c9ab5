"""`streamworker lag --serve`: an observer, and what it serves, for as long as the process is let."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamworker.cli.looking import Looking, LookPlan
from streamworker.cli.signals import StopRequest
from streamworker.clock import SystemClock
from streamworker.config import HttpConfig
from streamworker.lag.observer import Observer
from streamworker.lag.observer_site import ObserverSite
from streamworker.observability import logs
from streamworker.observability.catalogue import ObserverMetric
from streamworker.observability.http import HttpServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamworker.cli.desks import DeskOptions
    from streamworker.cli.looking import Groups
    from streamworker.cli.options import Sources
    from streamworker.lag.figures import Figures
    from streamworker.replay.desk import Desk, TopicSummary

_WINDOW = "24h"  # of `TopicSummary.expiring`
# As many looks as Burrow remembers commits by itself; half of them before anything is said.
SERVED = LookPlan(looks=10, interval_s=10.0, minimum_looks=5)
_log = logging.getLogger(__name__)


def serve(looking: Looking, groups: Groups, sources: Sources, *, port: int | None, dead_letters: Sequence[str]) -> None:
    """Look until a signal asks for the end. Main thread."""
    logs.configure(looking.config.log, sys.stderr)
    with (
        StopRequest() as stop,
        _dead_letter_figures(sources, dead_letters, looking.timeout_s) as more,
        _serving(looking, groups, port, more),
    ):
        stop.came()
    _log.info("observer ends")


@contextmanager
def observed(options: DeskOptions, groups: Sequence[str], desk: Desk) -> Iterator[None]:
    """An observer of `groups`, and of the dead letters of `desk`, in the process of a console; none without groups."""
    if not groups:
        yield
        return
    looking = Looking(options.sources.load().config, SERVED, options.timeout_s)
    with _serving(looking, lambda: groups, None, lambda: _figures_of(desk.topics())):
        yield


@contextmanager
def _serving(looking: Looking, groups: Groups, port: int | None, more: Callable[[], Figures]) -> Iterator[None]:
    """An observer with its port, for as long as the block lasts. Raises ConfigurationError if that is taken."""
    http = looking.config.http
    with looking.watch() as watch:
        observer = Observer(watch, groups, SystemClock(), interval_s=looking.plan.interval_s)
        server = HttpServer(
            HttpConfig(host=http.host, port=http.port if port is None else port), ObserverSite(observer, more)
        )
        bound = server.start()
        _log.info("serving lag", extra={"host": http.host, "port": bound, "interval_s": looking.plan.interval_s})
        observer.start()
        try:
            yield
        finally:
            server.stop()
            observer.stop()


@contextmanager
def _dead_letter_figures(sources: Sources, topics: Sequence[str], timeout_s: float) -> Iterator[Callable[[], Figures]]:
    """Gives what is counted in views of dead-letter `topics`, which are followed for as long as the block lasts."""
    if not topics:
        yield dict
        return
    from streamworker.cli.desks import DeskOptions, make_desk  # noqa: PLC0415 - workers do without

    options = DeskOptions(sources, groups=(), handlers=(), repairs=(), unmasked=False, timeout_s=timeout_s)
    desk = make_desk(options)
    try:
        desk.follow(lambda there: [topic for topic in topics if topic in there])
        yield lambda: _figures_of(desk.topics())
    finally:
        desk.close()


def _figures_of(summaries: Sequence[TopicSummary]) -> Figures:
    """Of views that have read their topic: before that, what is not read yet would seem to be settled."""
    now_ms = SystemClock().wall_ms()
    read = [one for one in summaries if one.built >= 1]
    return {
        ObserverMetric.DLQ_PENDING: {(one.topic,): one.pending for one in read},
        ObserverMetric.DLQ_OLDEST: {
            (one.topic,): max(now_ms - one.oldest_pending_ms, 0) / 1000
            for one in read
            if one.oldest_pending_ms is not None
        },
        ObserverMetric.DLQ_EXPIRING: {(one.topic, _WINDOW): one.expiring for one in read},
    }
