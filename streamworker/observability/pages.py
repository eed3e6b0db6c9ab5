"""What the HTTP port shows; knows no socket.

Called on the HTTP server's threads. Reads the board's latest status and nothing else of the worker,
so that a hanging loop is told about and not waited for.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from streamworker.observability import health
from streamworker.observability.status import as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker.clock import Clock
    from streamworker.observability.health import Limits, Verdict
    from streamworker.observability.status import Board

TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes

    @classmethod
    def of_text(cls, status: HTTPStatus, text: str) -> Page:
        """A page of plain text."""
        return cls(status, TEXT, f"{text}\n".encode())

    @classmethod
    def of_json(cls, status: HTTPStatus, value: object) -> Page:
        """A page of JSON."""
        return cls(status, _JSON, json.dumps(value, indent=2).encode() + b"\n")


class Pages:
    """The pages by path. `metrics` is given the Accept header and returns a body and its content type."""

    def __init__(
        self, *, board: Board, metrics: Callable[[str], tuple[bytes, str]], clock: Clock, limits: Limits
    ) -> None:
        self._board = board
        self._metrics = metrics
        self._monotonic_s = clock.monotonic_s
        self._limits = limits
        self._verdicts: dict[str, bool] = {}
        self._lock = threading.Lock()  # protects _verdicts from two probes at once
        self._pages: dict[str, Callable[[str], Page]] = {
            "/": self._index,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/health/startup": self._startup,
            "/metrics": self._metrics_page,
            "/status": self._status,
        }

    def get(self, target: str, accept: str = "") -> Page:
        """The page at `target`; its query is passed over. Any thread."""
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return Page.of_text(HTTPStatus.NOT_FOUND, f"no such page; there are\n{self._list()}")
        return page(accept)

    def _list(self) -> str:
        return "\n".join(self._pages)

    def _index(self, _accept: str) -> Page:
        return Page.of_text(HTTPStatus.OK, f"streamworker\n{self._list()}")

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
        status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
        return Page.of_json(
            status, {"ok": verdict.ok, "checks": dict(verdict.checks), "degraded": list(verdict.degraded)}
        )

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
