"""What the HTTP port of an observer shows. Called on the HTTP server's threads, which only read the latest look."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from streamworker.lag.figures import figures, plain
from streamworker.observability import merged_metrics
from streamworker.observability.catalogue import ObserverMetric
from streamworker.observability.health import Verdict
from streamworker.observability.metrics import gauge
from streamworker.observability.site import Page, Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.lag.figures import Figures
    from streamworker.lag.observer import Observer

_log = logging.getLogger(__name__)


class ObserverSite(Site):
    """The pages of an observer. `more` is asked at each scrape for what is counted elsewhere; it may raise."""

    def __init__(self, observer: Observer, more: Callable[[], Figures] = dict) -> None:
        self._observer = observer
        self._more = more
        super().__init__(
            {
                "/health/live": lambda _accept: _probe("looking", passes=observer.is_looking),
                "/health/ready": lambda _accept: _probe("seen_lately", passes=observer.is_fresh),
                "/health/startup": lambda _accept: _probe("seen", passes=observer.latest is not None),
                "/metrics": self._metrics,
                "/status": self._status,
            }
        )

    def _metrics(self, accept: str) -> Page:
        found = {**self._of_groups(), **self._of_others()}
        body, content_type = merged_metrics.render([gauge(one.value, values) for one, values in found.items()], accept)
        return Page(HTTPStatus.OK, content_type, body)

    def _of_groups(self) -> Figures:
        latest = self._observer.latest
        if latest is None:
            return {}
        seen: Figures = {ObserverMetric.OBSERVED: {(): latest.at_ms / 1000}}
        return {**figures(latest.groups), **seen} if self._observer.is_fresh else seen

    def _of_others(self) -> Figures:
        try:
            return self._more()
        except Exception as error:  # noqa: BLE001 - whatever it is, the lag is to be told all the same
            _log.warning("figures are left out: %s", error)
            return {}

    def _status(self, _accept: str) -> Page:
        latest = self._observer.latest
        groups = [] if latest is None else [plain(one) for one in latest.groups]
        at_ms = None if latest is None else latest.at_ms
        return Page.of_json(HTTPStatus.OK, {"observed_at_ms": at_ms, "groups": groups})


def _probe(check: str, *, passes: bool) -> Page:
    return Page.of_verdict(Verdict({check: passes}))
