"""The whole way: real workers and an observer on a real Kafka, a real Prometheus and Alertmanager, and who is told."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml
from alerts.board_files import expressions, filled_in
from alerts.prometheus_tools import ROOT, RULES, promtool, rules
from fleet.workers import Fleet, page, produce, wait_for
from missing import obtained
from servers.ports import free_port
from servers.prometheus import Prometheus, Webhook, start_prometheus
from servers.redis import Redis, start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from servers.kafka import SharedKafka

PARTITIONS = 3
# Behind a port: one is a worker of its own, the other a supervisor with two.
PROCESSES = (1, 2)
# As `rules.overrides` of the chart: nobody waits for minutes here.
SOON: Mapping[str, Mapping[str, str]] = {
    "StreamWorkerLagHigh": {"for": "1s"},
    "StreamWorkerBreakerOpen": {"for": "1s"},
}
MORE_THAN_THE_LIMIT = 10_500


def shortened() -> dict[str, object]:
    """The rules of the chart, with what is in `SOON` over them."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    for group in groups:
        group["rules"] = [{**rule, **SOON.get(rule.get("alert", ""), {})} for rule in group["rules"]]
    return {"groups": groups}


@dataclass(frozen=True, slots=True)
class Watched:
    """All that runs."""

    fleet: Fleet
    redis: Redis
    prometheus: Prometheus
    webhook: Webhook
    ports: list[int]  # of the workers, and at last of the observer

    def send(self, records: int) -> None:
        assert produce(self.fleet.bootstrap_servers, self.fleet.topic, [(None, "x")] * records, PARTITIONS) == records

    def wait_for_scrapes(self) -> None:
        processes = "count(streamworker_build_info)"
        wait_for(
            lambda: (
                [value for _, value in self.prometheus.ask(processes)] == [sum(PROCESSES)]
                and bool(self.prometheus.ask("streamworker_group_lag_records"))
            ),
            lambda: f"scraped: {self.prometheus.ask('up')}",
            20,
        )


@pytest.fixture(scope="module")
def watched(kafka: SharedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    topic, group = kafka.topic("watched", PARTITIONS), kafka.group("watched")
    kafka.dead_letters(topic)
    ports = [free_port() for _ in (*PROCESSES, "observer")]
    with ExitStack() as everything:
        webhook = everything.enter_context(Webhook())
        redis = obtained(start_redis)
        everything.callback(redis.close)
        options = {"app.sink": redis.url, "http.enabled": "true", "http.host": "127.0.0.1"}
        fleet = everything.enter_context(
            Fleet(kafka.bootstrap_servers, group, topic, folder, "alerts.watched:Store", options)
        )
        for port, processes in zip(ports, PROCESSES, strict=False):
            fleet.start("--processes", str(processes), **{"http.port": port})
        everything.callback(_end, _observer(kafka.bootstrap_servers, group, ports[-1], folder))
        targets = [f"127.0.0.1:{port}" for port in ports]
        prometheus = obtained(lambda: start_prometheus(shortened(), webhook.url))
        everything.callback(prometheus.close)
        workers = {"targets": targets, "labels": {"namespace": "shop"}}
        prometheus.scrape({"job_name": "streamworker", "static_configs": [workers]})
        fleet.wait(lambda: all(page(port, "health/ready")[0] == 200 for port in ports[:-1]), "ready")
        yield Watched(fleet, redis, prometheus, webhook, ports)


def _observer(bootstrap_servers: str, group: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "streamworker", "lag", group, "--serve", "--port", str(port), "--interval-s", "1"]
    command += ["--bootstrap-servers", bootstrap_servers, "--set", "http.host=127.0.0.1"]
    with (folder / "worker-observer.log").open("wb") as log:  # beside those that a failure shows
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)


def test_pages_are_as_prometheus_wants_them(watched: Watched) -> None:
    watched.send(10)
    watched.fleet.wait(lambda: len(watched.fleet.effects()) == 10, "handled")
    watched.fleet.wait(lambda: "streamworker_group_lag_records{" in page(watched.ports[-1], "metrics")[1], "observed")

    for port in watched.ports:
        result = promtool("check", "metrics", text=page(port, "metrics")[1])

        assert result.stdout + result.stderr == ""
        assert result.returncode == 0


def test_every_query_of_rules_and_boards_is_answered(watched: Watched) -> None:
    watched.wait_for_scrapes()

    for expr in (*(one.expr for one in rules()), *(filled_in(one) for _, one in expressions())):
        watched.prometheus.ask(expr)  # raises if it fits the syntax and not what is there


def test_a_sink_that_goes_away_is_told_and_so_is_its_return(watched: Watched) -> None:
    assert watched.redis.program is not None
    watched.wait_for_scrapes()

    watched.redis.program.end()
    watched.send(MORE_THAN_THE_LIMIT)
    fired = watched.webhook.wait("firing", *SOON)
    told = {one.name for one in watched.webhook.told}
    lag = watched.prometheus.ask("sum(streamworker_group_lag_records)")
    watched.redis.program.restart()
    resolved = watched.webhook.wait("resolved", *SOON)

    assert told == set(SOON)
    assert lag[0][1] > 10_000
    assert {(one.labels["group"], one.labels["namespace"]) for one in fired.values()} == {(watched.fleet.group, "shop")}
    assert fired["StreamWorkerLagHigh"].labels["topic"] == watched.fleet.topic
    assert fired["StreamWorkerBreakerOpen"].labels["name"] == "redis"
    assert watched.fleet.topic in fired["StreamWorkerLagHigh"].annotations["description"]
    assert {name: one.labels for name, one in resolved.items()} == {name: one.labels for name, one in fired.items()}
