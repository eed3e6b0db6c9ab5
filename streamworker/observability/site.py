"""Pages by path, and what is answered where there is none; knows no socket and nothing of what pages show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streamworker.observability.health import Verdict

_TEXT = "text/plain; charset=utf-8"
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
        return cls(status, _TEXT, f"{text}\n".encode())

    @classmethod
    def of_json(cls, status: HTTPStatus, value: object) -> Page:
        """A page of JSON."""
        return cls(status, _JSON, json.dumps(value, indent=2).encode() + b"\n")

    @classmethod
    def of_verdict(cls, verdict: Verdict) -> Page:
        """The answer of a probe."""
        status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
        return cls.of_json(
            status, {"ok": verdict.ok, "checks": dict(verdict.checks), "degraded": list(verdict.degraded)}
        )


class Site:
    """What an HTTP server shows. Each page is made by a function that is given the Accept header."""

    def __init__(self, pages: Mapping[str, Callable[[str], Page]]) -> None:
        self._pages = {"/": self._index, **pages}

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
