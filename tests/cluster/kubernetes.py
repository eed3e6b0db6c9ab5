"""The Kubernetes that tests install charts into: the one given, or one of this run; and what they ask of it.

A cluster that is given must be given twice, by its kubeconfig and by the name of its context, and all its nodes must
be simulated: tests install, drain and delete in it, and no image of the chart exists there.
"""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.control_plane import CONTEXT, ControlPlane, start_control_plane
from cluster.programs import Refused, program, run
from cluster.simulated import NODE_MARK, node
from servers import chart_tools
from servers.kafka_jars import ServerUnavailable
from servers.program import wait_until_it_answers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Object = dict[str, Any]  # as the API server shows it

NODES = 3
_WAIT = "60s"  # seconds on idle cores
# What a namespace has or keeps without anybody's doing.
_ITS_OWN = ("ConfigMap/kube-root-ca.crt", "ServiceAccount/default")
_PASSING = ("events", "events.events.k8s.io", "leases.coordination.k8s.io", "pods.metrics.k8s.io")


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """Answers, and has nodes that are simulated only. `control_plane` is None if somebody else runs it."""

    kubeconfig: Path
    context: str
    control_plane: ControlPlane | None = None
    _run_id: str = field(default_factory=lambda: f"sw{secrets.token_hex(3)}")
    _numbers: count[int] = field(default_factory=count)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints. Raises Refused with what the API server says."""
        return run([program("kubectl"), *self._here("context"), *arguments], stdin)

    def helm(self, *arguments: str | Path) -> str:
        """What helm prints. Raises Refused with what it or the API server says."""
        return run([chart_tools.program("helm"), *self._here("kube-context"), *map(str, arguments)])

    def apply(self, *objects: Object, namespace: str = "default") -> None:
        """Create or change objects. Raises Refused."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", stdin=json.dumps(listed))

    def items(self, kinds: str, namespace: str, labels: str = "") -> Sequence[Object]:
        """Objects of these kinds that a selector as on kubectl's command line finds."""
        found: Object = json.loads(self.kubectl("get", kinds, "-n", namespace, "-l", labels, "-o", "json"))
        listed: list[Object] = found["items"]
        return listed

    def one(self, kind: str, name: str, namespace: str) -> Object:
        """An object. Raises Refused without it."""
        found: Object = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def raw(self, path: str) -> Object:
        """The answer at a path of the API. Raises Refused."""
        answer: Object = json.loads(self.kubectl("get", "--raw", path))
        return answer

    def wait(self, what: str, condition: str, namespace: str, timeout: str = _WAIT) -> None:
        """Wait until `kubectl wait --for` is content. Raises Refused when that takes too long."""
        self.kubectl("wait", what, f"--for={condition}", "-n", namespace, f"--timeout={timeout}")

    def all_in(self, namespace: str) -> set[str]:
        """Kind and name of whatever is in the namespace, but for what is there by itself and what passes."""
        kinds = self.kubectl("api-resources", "--namespaced", "--verbs=list,delete", "-o", "name").split()
        wanted = ",".join(kind for kind in kinds if kind not in _PASSING)
        listed: Object = json.loads(self.kubectl("get", wanted, "-n", namespace, "-o", "json"))
        found = {f"{one['kind']}/{one['metadata']['name']}" for one in listed["items"]}
        return found - {*_ITS_OWN}

    @contextmanager
    def namespace(self, hint: str, pod_security: str = "restricted") -> Iterator[str]:
        """Name of a new namespace that refuses pods as it is told; afterwards it goes, with all that is in it."""
        name = f"{self._run_id}-{hint}-{next(self._numbers)}"
        labels = {"pod-security.kubernetes.io/enforce": pod_security}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.wait("serviceaccount/default", "create", name)
        yield name
        self.kubectl("delete", "namespace", name, "--wait=false")

    def close(self) -> None:
        """End it if it is ours. Idempotent."""
        if self.control_plane is not None:
            self.control_plane.close()

    def _here(self, context: str) -> list[str]:
        return ["--kubeconfig", str(self.kubeconfig), f"--{context}", self.context]


def obtain_kubernetes(given: str | None, owned_context: str | None) -> Kubernetes:
    """The cluster of the kubeconfig `given`, if the caller owns the context it names, else one of this run.

    It knows the kinds of KEDA, prometheus-operator and Argo Rollouts. Raises ServerUnavailable.
    """
    cluster = _given(Path(given), owned_context) if given else start_kubernetes()
    _apply_kinds(cluster)
    return cluster


def start_kubernetes() -> Kubernetes:
    """One of this run, with nodes. Raises ServerUnavailable."""
    program("kubectl")
    chart_tools.program("helm")
    plane = start_control_plane()
    cluster = Kubernetes(plane.kubeconfig, CONTEXT, plane)
    cluster.apply(*map(node, range(NODES)))
    wait_until_it_answers("kwok", partial(_has_ready_nodes, cluster))
    return cluster


def _given(kubeconfig: Path, owned_context: str | None) -> Kubernetes:
    current = run([program("kubectl"), "--kubeconfig", kubeconfig, "config", "current-context"]).strip()
    if owned_context != current:
        raise ServerUnavailable(
            f"the current context of {kubeconfig} is {current!r}, and tests install, drain and delete in it:"
            f" say I_OWN_THIS_CLUSTER={current} if they may (found: {owned_context or 'nothing'})"
        )
    cluster = Kubernetes(kubeconfig, current)
    real = [name for name, marked in nodes_of(cluster).items() if not marked]
    if real:
        raise ServerUnavailable(f"only simulated nodes have no use for an image; these are real ones: {real}")
    return cluster


def nodes_of(cluster: Kubernetes) -> dict[str, bool]:
    """Names of the nodes, and whether each is simulated."""
    mark, value = NODE_MARK
    found = cluster.items("nodes", "default")
    return {one["metadata"]["name"]: one["metadata"].get("annotations", {}).get(mark) == value for one in found}


def _has_ready_nodes(cluster: Kubernetes) -> bool:
    try:
        cluster.kubectl("wait", "node", "--all", "--for=condition=Ready", f"--timeout={_WAIT}")
    except Refused:
        return False
    return True


def _apply_kinds(cluster: Kubernetes) -> None:
    folder = str(program("manifests") / "crds")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", f"--timeout={_WAIT}")
