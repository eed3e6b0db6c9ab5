"""What Prometheus is told to scrape for a PodMonitor, as prometheus-operator tells it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.kubernetes import Object


def job(monitor: Object, pod: Object, port: int) -> Object:
    """For `pod`, which answers at this port of the loopback interface."""
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    metadata = pod["metadata"]
    annotations = metadata.get("annotations", {})
    about = {f"__meta_kubernetes_pod_annotation_{_label(name)}": value for name, value in annotations.items()}
    about |= {"namespace": metadata["namespace"], "pod": metadata["name"]}
    return {
        "job_name": "workers",
        "metrics_path": endpoint["path"],
        "honor_labels": endpoint.get("honorLabels", False),
        "relabel_configs": [
            {_snake(name): value for name, value in one.items()} for one in endpoint.get("relabelings", ())
        ],
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": about}],
    }


def _label(name: str) -> str:
    """As Prometheus makes labels of what Kubernetes calls by other names."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def _snake(name: str) -> str:
    """As Prometheus calls what prometheus-operator calls `sourceLabels`."""
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)
