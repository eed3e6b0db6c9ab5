"""What a supervisor's port answers, by what its workers answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamworker.children import SETTLED_S, Child, ChildState
from streamworker.observability.unix_http import NoAnswer
from streamworker.observability.workers_site import WorkersSite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker.observability.site import Page

Answer = tuple[int, bytes]

WELL = (200, b'{"ok": true, "checks": {}, "degraded": []}')
UNWELL = (503, b'{"ok": false, "checks": {}, "degraded": ["redis"]}')
REFUSAL = (503, b"")
PAGE = (200, b"# HELP lag Records.\n# TYPE lag gauge\nlag 7.0\n# EOF\n")


class StillClock:
    def monotonic_s(self) -> float:
        return 1_000.0

    def wall_ms(self) -> int:
        return 0


def running(number: int, since_s: float = 0.0) -> Child:
    return Child(number=number, since_s=since_s).started(100 + number, since_s)


def waiting(number: int) -> Child:
    return running(number).exited(1, 990.0, chance=0.5, bounded=False, stopping=False)


def ended(number: int) -> Child:
    return running(number).exited(0, 990.0, chance=0.5, bounded=True, stopping=False)


def site(children: list[Child], answers: Mapping[int, Answer]) -> WorkersSite:
    def ask(number: int, _target: str, _accept: str) -> Answer:
        if number not in answers:
            raise NoAnswer
        return answers[number]

    return WorkersSite(children=lambda: children, ask=ask, clock=StillClock())


def samples(page: Page) -> dict[str, float]:
    return {
        one.name + "".join(f" {name}={value}" for name, value in sorted(one.labels.items())): one.value
        for family in text_string_to_metric_families(page.body.decode())
        for one in family.samples
    }


@pytest.mark.parametrize("probe", ["live", "ready", "startup"])
@pytest.mark.parametrize(("second", "code"), [(WELL, 200), (UNWELL, 503), (REFUSAL, 503)])
def test_a_probe_passes_if_it_does_for_all(probe: str, second: Answer, code: int) -> None:
    page = site([running(0), running(1)], {0: WELL, 1: second}).get(f"/health/{probe}")

    assert page.status == code
    assert json.loads(page.body)["checks"] == {"worker_0": True, "worker_1": code == 200}


def test_what_is_degraded_is_told_with_the_worker() -> None:
    page = site([running(0), running(1)], {0: WELL, 1: UNWELL}).get("/health/ready")

    assert json.loads(page.body)["degraded"] == ["worker 1: redis"]


@pytest.mark.parametrize(
    ("second", "live", "ready"),
    [
        pytest.param(running(1, 1_000.0 - SETTLED_S + 1), 200, 503, id="one that has just been started"),
        pytest.param(running(1, 1_000.0 - SETTLED_S), 503, 503, id="one that ought to answer"),
        pytest.param(waiting(1), 200, 503, id="one that is started again later"),
        pytest.param(ended(1), 200, 200, id="one that has reached its bound"),
    ],
)
def test_without_an_answer_it_depends_on_where_the_worker_is_in_its_life(second: Child, live: int, ready: int) -> None:
    pages = site([running(0), second], {0: WELL})

    assert [pages.get(f"/health/{probe}").status for probe in ("live", "ready", "startup")] == [live, ready, ready]


def test_the_metrics_of_all_are_on_one_page_with_those_of_the_supervisor() -> None:
    restarted = waiting(1).started(200, 995.0)

    found = samples(site([running(0), restarted, waiting(2)], {0: PAGE, 1: PAGE}).get("/metrics"))

    assert found == {
        "lag worker=0": 7,
        "lag worker=1": 7,
        "streamworker_worker_processes state=running": 2,
        "streamworker_worker_processes state=waiting": 1,
        "streamworker_worker_processes state=ended": 0,
        "streamworker_worker_restarts_total worker=0": 0,
        "streamworker_worker_restarts_total worker=1": 1,
        "streamworker_worker_restarts_total worker=2": 0,
        "streamworker_worker_scrapes_unanswered_total worker=0": 0,
        "streamworker_worker_scrapes_unanswered_total worker=1": 0,
        "streamworker_worker_scrapes_unanswered_total worker=2": 0,
    }


@pytest.mark.parametrize("answers", [{0: PAGE}, {0: PAGE, 1: REFUSAL}, {0: PAGE, 1: (500, b"internal error\n")}])
def test_metrics_that_a_running_worker_does_not_answer_are_missing_and_counted(answers: Mapping[int, Answer]) -> None:
    pages = site([running(0), running(1), waiting(2)], answers)

    pages.get("/metrics")
    found = samples(pages.get("/metrics"))

    assert [name for name in found if name.startswith("lag")] == ["lag worker=0"]
    assert [found[f"streamworker_worker_scrapes_unanswered_total worker={number}"] for number in range(3)] == [0, 2, 0]


def test_the_status_lists_the_workers_with_their_own() -> None:
    page = site([running(0), waiting(1)], {0: (200, b'{"state": "running"}')}).get("/status")

    assert json.loads(page.body) == {
        "processes": 2,
        "workers": [
            {
                "worker": 0,
                "state": "running",
                "state_age_s": 1_000.0,
                "pid": 100,
                "restarts": 0,
                "exit_code": None,
                "next_start_in_s": None,
                "status": {"state": "running"},
            },
            {
                "worker": 1,
                "state": ChildState.WAITING.value,
                "state_age_s": 10.0,
                "pid": None,
                "restarts": 0,
                "exit_code": 1,
                "next_start_in_s": 0.0,
                "status": None,
            },
        ],
    }


def test_the_pages_are_those_of_a_worker() -> None:
    page = site([running(0)], {}).get("/nothing")

    assert page.status == 404
    assert b"/health/live\n/health/ready\n/health/startup\n/metrics\n/status" in page.body
