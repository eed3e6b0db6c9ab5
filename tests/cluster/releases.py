"""The chart, installed with values of a test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.kubernetes import Kubernetes, Object

CHART = Path(__file__).parents[2] / "deploy" / "charts" / "streamworker"
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
_WAIT = "90s"
WORKER = "orders"


def values_of(worker: Mapping[str, object] | None = None, **others: object) -> dict[str, object]:
    """Values of a worker of two pods that does not wait between them, with changes."""
    one: dict[str, object] = {
        "handlers": ["app.handlers:StoreOrders"],
        "group": "shop",
        "topics": ["orders"],
        "partitions": 12,
        "replicas": 2,
        "minReadySeconds": 0,
    }
    return {
        "kafka": {"bootstrapServers": "kafka:9092"},
        "workers": {WORKER: {**one, **(worker or {})}},
        **others,
    }


@dataclass(frozen=True, slots=True)
class Release:
    """One release of the chart in a namespace. `folder` is for its values."""

    cluster: Kubernetes
    namespace: str
    folder: Path
    name: str = "w"

    def install(self, values: Path | Mapping[str, object], *options: str) -> None:
        """Install it and wait until all runs. Raises Refused."""
        self.start(values, "--wait", "--timeout", _WAIT, *options)

    def start(self, values: Path | Mapping[str, object], *options: str) -> None:
        """Install it. Raises Refused."""
        self._helm("install", self.name, CHART, "-f", self._file(values), *options)

    def upgrade(self, values: Mapping[str, object]) -> None:
        """Change it and wait until all runs. Raises Refused."""
        self._helm("upgrade", self.name, CHART, "-f", self._file(values), "--wait", "--timeout", _WAIT)

    def roll_back(self, revision: int) -> None:
        """Go back and wait until all runs. Raises Refused."""
        self._helm("rollback", self.name, str(revision), "--wait", "--timeout", _WAIT)

    def test(self) -> str:
        """What `helm test` prints. Raises Refused if a test fails."""
        return self._helm("test", self.name, "--timeout", _WAIT)

    def manifest(self) -> str:
        """Its objects, as YAML; those of hooks are not among them."""
        return self._helm("get", "manifest", self.name)

    def uninstall(self) -> None:
        """Remove it, and wait until its objects are gone. Raises Refused."""
        self._helm("uninstall", self.name, "--wait", "--timeout", _WAIT)

    def workloads(self) -> Sequence[Object]:
        """Deployments and StatefulSets."""
        return self.objects("deployments,statefulsets")

    def objects(self, kinds: str) -> Sequence[Object]:
        """Those of the release."""
        return self.cluster.items(kinds, self.namespace, f"app.kubernetes.io/instance={self.name}")

    def pods(self) -> Sequence[Object]:
        """Those of its workloads that are not on their way out; those of Jobs and tests are no workers."""
        return [one for one in self.objects("pods") if lives(one)]

    def tests(self) -> Sequence[Object]:
        """Pods of `helm test`."""
        chosen = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component=test"
        return self.cluster.items("pods", self.namespace, chosen)

    def pods_of(self, selector: Object) -> Sequence[Object]:
        """Those that a selector finds, which may be another's."""
        chosen = [f"{name}={value}" for name, value in selector.get("matchLabels", {}).items()]
        for one in selector.get("matchExpressions", ()):
            assert one["operator"] == "In", one
            chosen.append(f"{one['key']} in ({','.join(one['values'])})")
        return [one for one in self.cluster.items("pods", self.namespace, ",".join(chosen)) if lives(one)]

    def _helm(self, *arguments: str | Path) -> str:
        return self.cluster.helm(*arguments, "-n", self.namespace)

    def _file(self, values: Path | Mapping[str, object]) -> Path:
        if isinstance(values, Path):
            return values
        file = self.folder / "values.json"
        file.write_text(json.dumps(values))
        return file


def lives(pod: Object) -> bool:
    """Whether it runs or is about to."""
    return "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") in ("Pending", "Running")


def names(objects: Sequence[Object]) -> set[str]:
    return {one["metadata"]["name"] for one in objects}
