"""KEDA beside a control plane of this run: its operator, which asks for lag, and the adapter that autoscalers ask."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cluster.certificates import new_member
from cluster.control_plane import as_flags, says_ok, start_program
from cluster.programs import program
from servers.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cluster.control_plane import ControlPlane
    from cluster.kubernetes import Kubernetes, Object
    from servers.program import Program

_NAMESPACE = "keda"
_SERVICE = "keda-metrics-apiserver"
_API = "v1beta1.external.metrics.k8s.io"
_WAIT = "120s"
# As of a pod of its namespace that serves all others.
_PLACE = [f"POD_NAMESPACE={_NAMESPACE}", f"KEDA_CLUSTER_OBJECT_NAMESPACE={_NAMESPACE}", "WATCH_NAMESPACE="]


@dataclass(frozen=True, slots=True)
class Keda:
    """Answers; ScaledObjects of all namespaces are served."""

    programs: Sequence[Program]

    def close(self) -> None:
        """End it. Idempotent."""
        for each in reversed(self.programs):
            each.close()


def start_keda(cluster: Kubernetes, plane: ControlPlane) -> Keda:
    """The operator and the adapter, as processes of this machine; 230 MB. Raises ServerUnavailable."""
    operator, adapter = program("keda-operator"), program("keda-adapter")
    certificates = _certificates(plane)
    metrics, health, grpc, secure, adapter_metrics = free_ports(5)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
    cluster.apply(*_registration(secure), namespace=_NAMESPACE)
    started = []
    try:
        started.append(_start_operator(operator, plane, certificates, metrics, health, grpc))
        started.append(_start_adapter(adapter, plane, certificates, secure, adapter_metrics, grpc))
        cluster.wait(f"apiservice/{_API}", "condition=Available", "default", _WAIT)
    except BaseException:
        Keda(started).close()
        raise
    return Keda(started)


def _certificates(plane: ControlPlane) -> Path:
    """A folder with the names that both expect."""
    folder = plane.folder / "keda"
    folder.mkdir()
    member = new_member(folder, "keda", plane.authority)
    shutil.copy(plane.authority.certificate, folder / "ca.crt")
    shutil.copy(member.certificate, folder / "tls.crt")
    shutil.copy(member.key, folder / "tls.key")
    return folder


def _start_operator(
    operator: Path, plane: ControlPlane, certificates: Path, metrics: int, health: int, grpc: int
) -> Program:
    options = {
        "kubeconfig": plane.kubeconfig,
        "cert-dir": certificates,
        "metrics-bind-address": f"127.0.0.1:{metrics}",
        "health-probe-bind-address": f"127.0.0.1:{health}",
        "metrics-service-bind-address": f"127.0.0.1:{grpc}",
        # Those are for certificates that it makes itself.
        "enable-webhook-patching": "false",
        "enable-apiservice-patching": "false",
    }
    command = ["env", *_PLACE, operator, *as_flags(options)]
    return start_program("keda-operator", command, partial(says_ok, f"http://127.0.0.1:{health}/readyz"))


def _start_adapter(
    adapter: Path, plane: ControlPlane, certificates: Path, secure: int, metrics: int, grpc: int
) -> Program:
    options = {
        "kubeconfig": plane.kubeconfig,
        "lister-kubeconfig": plane.kubeconfig,
        "authentication-kubeconfig": plane.kubeconfig,
        "authorization-kubeconfig": plane.kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": secure,
        "port": metrics,
        "cert-dir": certificates,
        "tls-cert-file": certificates / "tls.crt",
        "tls-private-key-file": certificates / "tls.key",
        "metrics-service-address": f"localhost:{grpc}",
    }
    command = ["env", *_PLACE, adapter, *as_flags(options)]
    return start_program("keda-adapter", command, partial(says_ok, f"http://127.0.0.1:{metrics}/metrics"))


def _registration(port: int) -> Sequence[Object]:
    """The adapter is no pod: a name leads the API server to this machine."""
    service = {"namespace": _NAMESPACE, "name": _SERVICE}
    group, version = "external.metrics.k8s.io", "v1beta1"
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": service,
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": _API},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {**service, "port": port},
            },
        },
    ]
