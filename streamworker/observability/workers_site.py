"""What the HTTP port of a supervisor shows: what its workers answer, put together.

Called on the HTTP server's threads. Reads the latest state of the children and asks each that runs, all at once, so
that one that hangs costs no more than its own timeout. What a worker does not answer is left out and counted.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Generic, TypeVar

from streamworker.children import ChildState
from streamworker.observability import merged_metrics
from streamworker.observability.catalogue import SupervisorMetric
from streamworker.observability.health import Verdict
from streamworker.observability.metrics import counter, gauge
from streamworker.observability.site import Page, Site
from streamworker.observability.unix_http import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.children import Child
    from streamworker.clock import Clock

    # The number of a worker, the page, the Accept header; raises NoAnswer.
    Ask = Callable[[int, str, str], tuple[int, bytes]]

T = TypeVar("T")
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    ok: bool
    content: T


Answers = dict[int, _Answer[T]]  # by the number of the worker; who does not answer is not in it


class WorkersSite(Site):
    """The pages of a supervisor. `children` gives their latest state, and `ask` the page of one of them; any thread."""

    def __init__(self, *, children: Callable[[], Sequence[Child]], ask: Ask, clock: Clock) -> None:
        self._children = children
        self._ask = ask
        self._monotonic_s = clock.monotonic_s
        self._unanswered: Counter[int] = Counter()
        self._lock = threading.Lock()  # protects _unanswered from two scrapes at once
        super().__init__(
            {
                "/health/live": self._live,
                "/health/ready": lambda _accept: self._all_pass("/health/ready"),
                "/health/startup": lambda _accept: self._all_pass("/health/startup"),
                "/metrics": self._metrics,
                "/status": self._status,
            }
        )

    def _live(self, _accept: str) -> Page:
        children, answers = self._gather("/health/live", _from_json)
        now_s = self._monotonic_s()
        return _probe({child.number: _is_live(child, answers.get(child.number), now_s) for child in children}, answers)

    def _all_pass(self, target: str) -> Page:
        children, answers = self._gather(target, _from_json)
        return _probe({child.number: _passes(child, answers.get(child.number)) for child in children}, answers)

    def _metrics(self, accept: str) -> Page:
        children, answers = self._gather("/metrics", merged_metrics.families, merged_metrics.ACCEPT)
        with self._lock:
            self._unanswered.update(one.number for one in children if _runs(one) and one.number not in answers)
            unanswered = self._unanswered.copy()
        workers = {number: answer.content for number, answer in answers.items()}
        whole = merged_metrics.merged(workers, _own_metrics(children, unanswered))
        body, content_type = merged_metrics.render(whole, accept)
        return Page(HTTPStatus.OK, content_type, body)

    def _status(self, _accept: str) -> Page:
        children, answers = self._gather("/status", _from_json)
        now_s = self._monotonic_s()
        workers = [_as_json(child, answers.get(child.number), now_s) for child in children]
        return Page.of_json(HTTPStatus.OK, {"processes": len(workers), "workers": workers})

    def _gather(self, target: str, read: Callable[[bytes], T], accept: str = "") -> tuple[Sequence[Child], Answers[T]]:
        children = self._children()
        numbers = [child.number for child in children if _runs(child)]
        with ThreadPoolExecutor(len(children), thread_name_prefix="streamworker-ask") as threads:
            found = threads.map(lambda number: self._answer(number, target, read, accept), numbers)
            answers = zip(numbers, found, strict=True)
            return children, {number: answer for number, answer in answers if answer is not None}

    def _answer(self, number: int, target: str, read: Callable[[bytes], T], accept: str) -> _Answer[T] | None:
        """None also for what is not the page, such as the refusal of a server that has too much to do."""
        try:
            status, body = self._ask(number, target, accept)
            return _Answer(status == HTTPStatus.OK, read(body))
        except (NoAnswer, ValueError):
            return None


def _from_json(body: bytes) -> Json:
    found: Json = json.loads(body)
    return found


def _runs(child: Child) -> bool:
    return child.state is ChildState.RUNNING


def _is_live(child: Child, answer: _Answer[Json] | None, now_s: float) -> bool:
    """Whether it needs no help from outside: one that is away is started again, and a new one may not answer yet."""
    if not _runs(child):
        return True
    return not child.settled(now_s) if answer is None else answer.ok


def _passes(child: Child, answer: _Answer[Json] | None) -> bool:
    """Whether it answers that it is well; one that has reached its bound has nothing more to be well for."""
    return child.state is ChildState.ENDED or (answer is not None and answer.ok)


def _probe(passed: Mapping[int, bool], answers: Answers[Json]) -> Page:
    checks = {f"worker_{number}": ok for number, ok in passed.items()}
    return Page.of_verdict(Verdict(checks, tuple(_degraded(answers))))


def _degraded(answers: Answers[Json]) -> Iterator[str]:
    for number, answer in answers.items():
        parts = answer.content["degraded"]
        assert isinstance(parts, list)  # as Page.of_verdict writes it
        yield from (f"worker {number}: {part}" for part in parts)


def _own_metrics(children: Sequence[Child], unanswered: Mapping[int, int]) -> Iterator[merged_metrics.Family]:
    states = Counter(child.state for child in children)
    yield gauge(SupervisorMetric.PROCESSES.value, {(state.value,): states[state] for state in ChildState})
    yield counter(SupervisorMetric.RESTARTS.value, {(str(one.number),): one.restarts for one in children})
    yield counter(
        SupervisorMetric.UNANSWERED.value, {(str(one.number),): unanswered.get(one.number, 0) for one in children}
    )


def _as_json(child: Child, answer: _Answer[Json] | None, now_s: float) -> Json:
    return {
        "worker": child.number,
        "state": child.state.value,
        "state_age_s": round(now_s - child.since_s, 3),
        "pid": child.pid,
        "restarts": child.restarts,
        "exit_code": child.exit_code,
        "next_start_in_s": None if child.next_start_s is None else round(max(0.0, child.next_start_s - now_s), 3),
        "status": None if answer is None else answer.content,
    }
