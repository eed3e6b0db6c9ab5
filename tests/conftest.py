"""What all tiers share: how hypothesis searches, the real servers, and a summary that hides no skip."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings
from missing import IN_CI, obtained

# By name as well as by entry point, so that the tests also run where the package is on the path only.
from streamworker.testing.fixtures import mock_kafka  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers.kafka import SharedKafka
    from servers.postgres import Postgres
    from servers.redis import Redis

_FIGURE = "figure"  # a property of a report: so it comes from all processes of a run

# No deadline: on a machine under load the time of one example says nothing.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
# Of a change that is to be noticed nobody reads the example: it is not made small.
settings.register_profile("mutants", deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
settings.load_profile("ci" if IN_CI else "dev")


@pytest.fixture(scope="session")
def kafka() -> Iterator[SharedKafka]:
    """A real Apache Kafka: at STREAMWORKER_TEST_KAFKA if that is set, else started for this run."""
    from servers.kafka import SharedKafka, obtain_kafka  # noqa: PLC0415 - unit tests need no client

    given = os.environ.get("STREAMWORKER_TEST_KAFKA")
    shared = SharedKafka(obtained(lambda: obtain_kafka(given), asked_for=bool(given)))
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A real Redis: at STREAMWORKER_TEST_REDIS if that is set, else started for this run."""
    from servers.redis import obtain_redis  # noqa: PLC0415 - as above

    given = os.environ.get("STREAMWORKER_TEST_REDIS")
    server = obtained(lambda: obtain_redis(given), asked_for=bool(given))
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL: at STREAMWORKER_TEST_POSTGRES if that is set, else started for this run."""
    from servers.postgres import obtain_postgres  # noqa: PLC0415 - as above

    given = os.environ.get("STREAMWORKER_TEST_POSTGRES")
    server = obtained(lambda: obtain_postgres(given), asked_for=bool(given))
    yield server
    server.close()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Note what a fault did, for the table at the end: the row of the catalogue, what was done, and figures."""

    def note(row: str, fault: str, **values: object) -> None:
        text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
        request.node.user_properties.append((_FIGURE, f"{row:5} {fault}: {text}"))

    return note


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of each folder evenly over the run: what runs side by side seldom all starts clusters, or computes."""
    numbers: dict[Path, dict[Path, int]] = {}
    for item in items:
        files = numbers.setdefault(item.path.parent, {})
        files.setdefault(item.path, len(files))

    def part(item: pytest.Item) -> float:
        files = numbers[item.path.parent]
        return (files[item.path] + 0.5) / len(files)

    items.sort(key=part)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ran = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    figures = sorted(text for report in ran for name, text in report.user_properties if name == _FIGURE)
    if figures:
        terminalreporter.section("faults")
    for text in figures:
        terminalreporter.write_line(text)
    reasons = Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped"))
    if reasons:
        terminalreporter.section("skipped on this machine")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:3} {reason.removeprefix('Skipped: ')}")
