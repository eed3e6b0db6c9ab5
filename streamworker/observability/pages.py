"""What the HTTP port of a worker shows.

Called on the HTTP server's threads. Reads the board's latest status and nothing else of the worker,
so that a hanging loop is told about and not waited for.
"""

from __future__ import annotations

import logging
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from streamworker.observability import health
from streamworker.observability.site import Page, Site
from streamworker.observability.status import as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.clock import Clock
    from streamworker.observability.health import Limits, Verdict
    from streamworker.observability.status import Board


class Pages(Site):
    """The pages of one worker. `metrics` is given the Accept header and returns a body and its content type."""

    def __init__(
        self, *, board: Board, metrics: Callable[[str], tuple[bytes, str]], clock: Clock, limits: Limits
    ) -> None:
        self._board = board
        self._metrics = metrics
        self._monotonic_s = clock.monotonic_s
        self._limits = limits
        self._verdicts: dict[str, bool] = {}
        self._lock = threading.Lock()  # protects _verdicts from two probes at once
        super().__init__(
            {
                "/health/live": self._live,
                "/health/ready": self._ready,
                "/health/startup": self._startup,
                "/metrics": self._metrics_page,
                "/status": self._status,
            }
        )

    def _metrics_page(self, accept: str) -> Page:
        body, content_type = self._metrics(accept)
        return Page(HTTPStatus.OK, content_type, body)

    def _status(self, _accept: str) -> Page:
        return Page.of_json(HTTPStatus.OK, as_json(self._board.latest(), self._monotonic_s()))

    def _startup(self, _accept: str) -> Page:
        return self._probe("startup", health.startup(self._board.latest()))

    def _live(self, _accept: str) -> Page:
        return self._probe("live", health.live(self._board.latest(), self._monotonic_s(), self._limits))

    def _ready(self, _accept: str) -> Page:
        return self._probe("ready", health.ready(self._board.latest(), self._monotonic_s(), self._limits))

    def _probe(self, name: str, verdict: Verdict) -> Page:
        self._log_flip(name, verdict)
        return Page.of_verdict(verdict)

    def _log_flip(self, name: str, verdict: Verdict) -> None:
        """Log a change of the answer, because Kubernetes shows no more than the code."""
        with self._lock:
            before = self._verdicts.get(name)
            self._verdicts[name] = verdict.ok
        if before is None or before == verdict.ok:
            return
        failing = [check for check, passed in verdict.checks.items() if not passed]
        level = logging.INFO if verdict.ok else logging.WARNING
        logging.getLogger(__name__).log(level, "probe flipped", extra={"probe": name, "failing": failing})
