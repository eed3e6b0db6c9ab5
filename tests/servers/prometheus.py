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
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

import yaml
from servers.kafka_jars import ServerUnavailable
from servers.ports import free_ports
from servers.program import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ANSWER_TIMEOUT_S = 5.0
_SETTINGS = "prometheus.yaml"
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
    """A Prometheus, with an Alertmanager if it has somebody to tell; they answer when this is made."""

    url: str
    file: Path  # its configuration
    settings: Mapping[str, object]  # all of that but what is scraped
    programs: Sequence[Program]

    def scrape(self, *jobs: Mapping[str, object]) -> None:
        """Scrape these from now on, each second, and nothing else."""
        _write(self.file, {**self.settings, "scrape_configs": list(jobs)})
        reload = urllib.request.Request(f"{self.url}/-/reload", method="POST")
        urllib.request.urlopen(reload, timeout=_ANSWER_TIMEOUT_S).close()

    def ask(self, expr: str) -> list[tuple[Mapping[str, str], float]]:
        """The series of an expression, as they are now; raises urllib.error.HTTPError if it cannot be answered."""
        asked = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.urlopen(asked, timeout=_ANSWER_TIMEOUT_S) as answer:
            found = json.load(answer)["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def close(self) -> None:
        """End them and remove what they know. Idempotent."""
        for program in self.programs:
            program.close()


def start_prometheus(rules: Mapping[str, object] | None = None, webhook: str | None = None) -> Prometheus:
    """One that scrapes nothing yet, goes by `rules` each second and tells `webhook` at once. Raises ServerUnavailable.

    50 MB, and as much with a webhook.
    """
    needed = ["prometheus"] if webhook is None else ["prometheus", "prometheus-alertmanager"]
    for name in needed:
        if shutil.which(name) is None:
            raise ServerUnavailable(f"no {name} on the PATH (Debian: {name})")
    port, alerting = free_ports(2)
    folder = Path(tempfile.mkdtemp(prefix="streamworker-prometheus-"))
    settings = {
        "global": {"scrape_interval": _EVERY, "scrape_timeout": _EVERY, "evaluation_interval": _EVERY},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alerting}"]}]}]},
    }
    _write(folder / "rules.yaml", rules or {"groups": []})
    _write(folder / _SETTINGS, settings)
    command = ["prometheus", f"--config.file={_SETTINGS}", "--storage.tsdb.path=data", "--web.enable-lifecycle"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    programs = [] if webhook is None else [_start_alertmanager(alerting, webhook)]
    try:
        programs.append(Program("Prometheus", command, folder, partial(_ready, port)))
    except ServerUnavailable:
        for program in programs:
            program.close()
        raise
    return Prometheus(f"http://127.0.0.1:{port}", folder / _SETTINGS, settings, programs)


def _start_alertmanager(port: int, webhook: str) -> Program:
    folder = Path(tempfile.mkdtemp(prefix="streamworker-alertmanager-"))
    settings = {
        "route": {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": _EVERY},
        "receivers": [{"name": "test", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
    }
    _write(folder / "alertmanager.yaml", settings)
    command = ["prometheus-alertmanager", "--config.file=alertmanager.yaml", "--storage.path=data"]
    # Alone, it looks for no others and waits for none.
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    return Program("Alertmanager", command, folder, partial(_ready, port))


def _write(file: Path, settings: Mapping[str, object]) -> None:
    """As YAML."""
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:  # it does not listen yet, or says that it is not ready
        return False
