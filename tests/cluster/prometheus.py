"""A Prometheus of this test run, which scrapes each second what it is told to."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import urllib.parse
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.control_plane import says_ok
from servers.kafka import free_ports
from servers.kafka_jars import ServerUnavailable
from servers.program import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.kubernetes import Object

_ANSWER_TIMEOUT_S = 5.0
_SETTINGS = "prometheus.yml"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Answers at `url`."""

    url: str
    folder: Path
    program: Program

    def scrape(self, port: int, monitor: Object, pod: Object) -> None:
        """Scrape this port of the loopback interface as prometheus-operator makes it scrape `pod` for a PodMonitor."""
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        metadata = pod["metadata"]
        annotations = metadata.get("annotations", {})
        about = {f"__meta_kubernetes_pod_annotation_{_label(name)}": value for name, value in annotations.items()}
        about |= {"namespace": metadata["namespace"], "pod": metadata["name"]}
        job = {
            "job_name": "workers",
            "metrics_path": endpoint["path"],
            "honor_labels": endpoint.get("honorLabels", False),
            "relabel_configs": [
                {_snake(name): value for name, value in one.items()} for one in endpoint.get("relabelings", ())
            ],
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": about}],
        }
        (self.folder / _SETTINGS).write_text(settings([job]))
        asked = urllib.request.Request(f"{self.url}/-/reload", method="POST")
        urllib.request.urlopen(asked, timeout=_ANSWER_TIMEOUT_S).close()

    def values(self, query: str) -> Mapping[tuple[tuple[str, str], ...], float]:
        """The value of each series that the query finds now, by its labels."""
        asked = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(asked, timeout=_ANSWER_TIMEOUT_S) as answer:
            found = json.load(answer)["data"]["result"]
        return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in found}

    def close(self) -> None:
        """End it and remove what it knows. Idempotent."""
        self.program.close()


def start_prometheus() -> Prometheus:
    """One that has nothing to scrape yet; 50 MB. Raises ServerUnavailable."""
    if shutil.which("prometheus") is None:
        raise ServerUnavailable("no prometheus on the PATH (Debian: prometheus)")
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="streamworker-prometheus-"))
    (folder / _SETTINGS).write_text(settings([]))
    url = f"http://127.0.0.1:{port}"
    command = ["prometheus", f"--config.file={_SETTINGS}", "--storage.tsdb.path=data", "--web.enable-lifecycle"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    return Prometheus(url, folder, Program("prometheus", command, folder, partial(says_ok, f"{url}/-/ready")))


def settings(jobs: Sequence[Object]) -> str:
    """What is scraped, as JSON, which is YAML, too."""
    return json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs})


def _label(name: str) -> str:
    """As Prometheus makes labels of what Kubernetes calls by other names."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def _snake(name: str) -> str:
    """As Prometheus calls what prometheus-operator calls `sourceLabels`."""
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)
