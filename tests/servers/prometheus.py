"""A Prometheus and an Alertmanager of the test run, from the Debian packages, and what they tell by a webhook."""

from __future__ import annotations

import json
import queue
import shutil
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

import yaml
from servers.kafka import free_ports
from servers.kafka_jars import ServerUnavailable
from servers.program import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EVERY = "1s"  # the shortest that rules and scrapes are worth here


@dataclass(frozen=True, slots=True)
class Alert:
    """What the Alertmanager says of an alert; `status` is `firing` or `resolved`."""

    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.labels["alertname"]


class Webhook:
    """Whom the Alertmanager tells; its threads put alerts into a queue, the test takes them."""

    def __init__(self) -> None:
        self.told: list[Alert] = []
        self._arrived: queue.Queue[Alert] = queue.Queue()
        arrived = self._arrived

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                for one in body["alerts"]:
                    arrived.put(Alert(one["status"], one["labels"], one["annotations"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """It would go to standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def wait(self, status: str, *names: str, timeout_s: float = 30.0) -> dict[str, Alert]:
        """What was said when all of `names` have that status; fails with all that was told."""
        deadline_s = time.monotonic() + timeout_s
        latest = {one.name: one for one in self.told}
        while any(name not in latest or latest[name].status != status for name in names):
            try:
                alert = self._arrived.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not {status} within {timeout_s:g} s: {names}; told: {self.told}") from None
            self.told.append(alert)
            latest[alert.name] = alert
        return {name: latest[name] for name in names}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus with an Alertmanager; both answer when this is made."""

    url: str
    programs: Sequence[Program] = field(default_factory=tuple)

    def ask(self, expr: str) -> list[tuple[Mapping[str, str], float]]:
        """The series of an expression, as they are now; raises urllib.error.HTTPError if it cannot be answered."""
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}") as answer:
            found = json.load(answer)["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def close(self) -> None:
        for program in self.programs:
            program.close()


def start_prometheus(targets: Sequence[str], rules: Mapping[str, object], webhook: str) -> Prometheus:
    """Scrape `targets` and go by `rules`, all each second, and tell `webhook` at once. Raises ServerUnavailable."""
    for name, package in (("prometheus", "prometheus"), ("prometheus-alertmanager", "prometheus-alertmanager")):
        if shutil.which(name) is None:
            raise ServerUnavailable(f"no {name} on the PATH (Debian: {package})")
    port, alerting = free_ports(2)
    alertmanager = _start_alertmanager(alerting, webhook)
    try:
        return Prometheus(f"http://127.0.0.1:{port}", [_start_prometheus(port, alerting, targets, rules), alertmanager])
    except ServerUnavailable:
        alertmanager.close()
        raise


def _start_alertmanager(port: int, webhook: str) -> Program:
    folder = Path(tempfile.mkdtemp(prefix="streamworker-alertmanager-"))
    settings = {
        "route": {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": _EVERY},
        "receivers": [{"name": "test", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
    }
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(settings))
    command = ["prometheus-alertmanager", "--config.file=alertmanager.yaml", "--storage.path=data"]
    # Alone, it looks for no others and waits for none.
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    return Program("Alertmanager", command, folder, partial(_ready, port))


def _start_prometheus(port: int, alerting: int, targets: Sequence[str], rules: Mapping[str, object]) -> Program:
    folder = Path(tempfile.mkdtemp(prefix="streamworker-prometheus-"))
    settings = {
        "global": {"scrape_interval": _EVERY, "scrape_timeout": _EVERY, "evaluation_interval": _EVERY},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alerting}"]}]}]},
        "scrape_configs": [
            {"job_name": "streamworker", "static_configs": [{"targets": [*targets], "labels": {"namespace": "shop"}}]}
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    command = ["prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data"]
    return Program("Prometheus", [*command, f"--web.listen-address=127.0.0.1:{port}"], folder, partial(_ready, port))


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:  # it does not listen yet, or says that it is not ready
        return False
