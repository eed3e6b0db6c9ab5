"""Asks workers for their `/status` over HTTP, all at once and for no longer than is said.

Decided here: where a worker is looked for, and that nothing is followed or retried, and only JSON of a bounded size is
taken. The addresses are those that were configured and no others. Each question has a thread; any thread may ask.
"""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamworker.clock import Clock

_AT_ONCE = 16
_MOST_WORKERS = 500
_PART_BYTES = 64 * 1024
_TARGET = "/status"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker's pages are. `path` is what comes before `/status`."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `http://HOST:PORT` or `HOST:PORT`; raises ConfigurationError."""
        try:
            url = urlsplit(text if "://" in text else f"//{text}", scheme="")
            host, port = url.hostname, url.port
        except ValueError:
            host = port = None
            url = urlsplit("")
        scheme = url.scheme or "http"
        if not host or scheme not in ("http", "https") or url.username is not None or url.query or url.fragment:
            raise ConfigurationError(
                f"expected a worker as http://HOST:PORT, or HOST:PORT for all addresses of a name, got {text!r}"
            )
        return cls(scheme, host, port or (443 if scheme == "https" else 80), url.path.rstrip("/"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker, or the supervisor of several, has said. `content` is None if it said nothing, and `error` why."""

    place: str
    content: object | None
    error: str | None = None


class WorkerPages:
    """Asks at `workers`: URLs, of which each is one, and `HOST:PORT`, which stands for all addresses of that name.

    Raises ConfigurationError for what is neither.
    """

    def __init__(
        self,
        workers: Sequence[str],
        clock: Clock,
        *,
        most_bytes: int = 8 * 1024 * 1024,  # of one answer; a partition is some 500
        addresses: Callable[[str, int], Sequence[str]] | None = None,
    ) -> None:
        self._places = [(Place.parse(one), "://" not in one) for one in workers]
        self._monotonic_s = clock.monotonic_s
        self._most_bytes = most_bytes
        self._addresses = _addresses if addresses is None else addresses

    @property
    def configured(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._places)

    def ask(self, timeout_s: float) -> Sequence[Answer]:
        """What all of them say; blocks for about that long, and a name's look-up."""
        until_s = self._monotonic_s() + timeout_s
        places = list(self._found())
        asked = [one for one in places if isinstance(one, Place)][:_MOST_WORKERS]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="streamworker-worker-pages") as threads:
            answers = list(threads.map(lambda place: self._answer(place, until_s), asked))
        left_out = len(places) - len(asked) - sum(isinstance(one, Answer) for one in places)
        more = [Answer(f"{left_out} more", None, f"expected at most {_MOST_WORKERS} workers")] if left_out else []
        return [*answers, *(one for one in places if isinstance(one, Answer)), *more]

    def _found(self) -> Iterator[Place | Answer]:
        """Each worker once, and each name that leads nowhere."""
        seen: set[Place] = set()
        for place, is_name in self._places:
            try:
                hosts = self._addresses(place.host, place.port) if is_name else [place.host]
            except OSError as error:
                yield Answer(str(place), None, f"its name leads nowhere: {error.strerror or error}")
                continue
            for host in hosts:
                found = Place(place.scheme, host, place.port, place.path)
                if found not in seen:
                    seen.add(found)
                    yield found

    def _answer(self, place: Place, until_s: float) -> Answer:
        try:
            return Answer(str(place), json.loads(self._fetched(place, until_s)))
        except _Refused as error:
            return Answer(str(place), None, str(error))
        except (OSError, http.client.HTTPException) as error:
            return Answer(str(place), None, "no answer in time" if isinstance(error, TimeoutError) else _brief(error))
        except (ValueError, RecursionError):
            return Answer(str(place), None, "its answer is no JSON")

    def _fetched(self, place: Place, until_s: float) -> bytes:
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.host, place.port, timeout=self._left_s(until_s))
        try:
            connection.request("GET", f"{place.path}{_TARGET}", headers={"Accept": "application/json"})
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise _Refused(f"it answered {response.status}")
            return self._body(connection, response, until_s)
        finally:
            connection.close()

    def _body(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, until_s: float
    ) -> bytes:
        """In parts, so that one that sends a byte now and then does not hold us for ever."""
        found = bytearray()
        while part := response.read1(_PART_BYTES):
            found += part
            if len(found) > self._most_bytes:
                raise _Refused(f"its answer has more than {self._most_bytes} bytes")
            if connection.sock is not None:
                connection.sock.settimeout(self._left_s(until_s))
        return bytes(found)

    def _left_s(self, until_s: float) -> float:
        left_s = until_s - self._monotonic_s()
        if left_s <= 0:
            raise TimeoutError
        return left_s


class _Refused(Exception):
    """An answer of no use; says why."""


def _addresses(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def _brief(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
