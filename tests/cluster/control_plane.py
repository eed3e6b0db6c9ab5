"""A Kubernetes of this test run: etcd, the API server, its controllers and scheduler, and nodes that kwok simulates.

What is real: admission, defaulting and validation, Pod Security, controllers, scheduling, evictions, scaling. What is
not: no container runs, so there are no probes, logs or signals, and a pod is ready as soon as it is scheduled. Nothing
listens but on the loopback interface, and all of it ends with the run.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import ssl
import tempfile
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.certificates import Certificate, new_authority, new_member
from cluster.programs import etcd, program
from cluster.simulated import NODE_MARK, STAGES
from servers.ports import free_ports
from servers.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_START_TIMEOUT_S = 120.0  # of each; 8 s for all on two idle cores
_ANSWER_TIMEOUT_S = 5.0
_FRONT_PROXY = "front-proxy-client"
CONTEXT = "control-plane"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Answers when it is there. `folder` is for files that must live as long."""

    folder: Path
    kubeconfig: Path
    authority: Certificate
    programs: Sequence[Program]

    def close(self) -> None:
        """End it and remove all that it holds. Idempotent."""
        for each in reversed(self.programs):
            each.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_control_plane() -> ControlPlane:
    """One with admission as in any cluster; 700 MB of memory. Raises ServerUnavailable."""
    folder = Path(tempfile.mkdtemp(prefix="streamworker-cluster-"))
    started: list[Program] = []
    try:
        authority = new_authority(folder, "authority")
        database = _start_etcd(started)
        address = _start_api_server(started, folder, authority, database)
        kubeconfig = _write_kubeconfig(folder, authority, address, _token_of(folder))
        _start_controllers(started, folder, authority, kubeconfig)
        _start_simulation(started, folder, kubeconfig)
    except BaseException:
        for each in reversed(started):
            each.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return ControlPlane(folder, kubeconfig, authority, started)


def start_program(name: str, command: Sequence[str | Path], answers: Callable[[], bool]) -> Program:
    """One of the programs, in a folder of its own. Raises ServerUnavailable with the end of its output."""
    folder = Path(tempfile.mkdtemp(prefix=f"streamworker-{name}-"))
    return Program(name, [*map(str, command)], folder, answers, start_timeout_s=_START_TIMEOUT_S)


def says_ok(url: str, authority: Certificate | None = None) -> bool:
    """Whether the page is there."""
    trusted = ssl.create_default_context(cafile=authority.certificate) if authority else None
    # Its errors, refused connections and answers other than 200, are all OSError.
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=_ANSWER_TIMEOUT_S, context=trusted):
        return True
    return False


def _start_etcd(started: list[Program]) -> str:
    clients, peers = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    command = [etcd(), "--data-dir", "data", "--log-level", "warn"]
    command += ["--listen-client-urls", clients, "--advertise-client-urls", clients]
    command += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
    command += ["--initial-cluster", f"default={peers}"]
    started.append(start_program("etcd", command, partial(says_ok, f"{clients}/health")))
    return clients


def _start_api_server(started: list[Program], folder: Path, authority: Certificate, database: str) -> str:
    (port,) = free_ports(1)
    address = f"https://127.0.0.1:{port}"
    server, accounts = new_member(folder, "api-server", authority), new_member(folder, "accounts", authority)
    front = new_authority(folder, "front-proxy")
    client = new_member(folder, _FRONT_PROXY, front)
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{secrets.token_hex(16)},admin,admin,"system:masters"\n')
    options = {
        "etcd-servers": database,
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "tls-cert-file": server.certificate,
        "tls-private-key-file": server.key,
        "service-cluster-ip-range": "10.96.0.0/16",
        "service-account-issuer": "https://control-plane.test",
        "service-account-key-file": accounts.certificate,
        "service-account-signing-key-file": accounts.key,
        "authorization-mode": "Node,RBAC",
        "allow-privileged": "true",  # else it refuses such pods everywhere, and not Pod Security
        "token-auth-file": tokens,
        "feature-gates": "WatchList=false",  # etcd 3.4 cannot serve them
        # An API of somebody else's is asked as KEDA's metrics adapter wants to be.
        "requestheader-client-ca-file": front.certificate,
        "requestheader-allowed-names": _FRONT_PROXY,
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": client.certificate,
        "proxy-client-key-file": client.key,
    }
    command = [program("kube-apiserver"), *as_flags(options)]
    started.append(start_program("kube-apiserver", command, partial(says_ok, f"{address}/readyz", authority)))
    return address


def _start_controllers(started: list[Program], folder: Path, authority: Certificate, kubeconfig: Path) -> None:
    served = new_member(folder, "controllers", authority)
    manager, scheduler = free_ports(2)
    both = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "leader-elect": "false",
        "bind-address": "127.0.0.1",
        "tls-cert-file": served.certificate,
        "tls-private-key-file": served.key,
    }
    options = {
        "service-account-private-key-file": folder / "accounts.key",
        "root-ca-file": authority.certificate,
        "use-service-account-credentials": "true",
        "horizontal-pod-autoscaler-sync-period": "2s",  # 15 s by default: a test would wait for it again and again
    }
    for name, port, own in (("kube-controller-manager", manager, options), ("kube-scheduler", scheduler, {})):
        command = [program(name), *as_flags({**both, **own, "secure-port": port})]
        answers = partial(says_ok, f"https://127.0.0.1:{port}/healthz", authority)
        started.append(start_program(name, command, answers))


def _start_simulation(started: list[Program], folder: Path, kubeconfig: Path) -> None:
    (port,) = free_ports(1)
    stages = folder / "stages.yaml"
    stages.write_text((program("manifests") / "stages.yaml").read_text() + STAGES)
    mark, value = NODE_MARK
    options = {
        "kubeconfig": kubeconfig,
        "config": stages,
        "manage-all-nodes": "false",
        "manage-nodes-with-annotation-selector": f"{mark}={value}",
        "node-lease-duration-seconds": 40,
        "server-address": f"127.0.0.1:{port}",
    }
    command = [program("kwok"), *as_flags(options)]
    started.append(start_program("kwok", command, partial(says_ok, f"http://127.0.0.1:{port}/healthz")))


def as_flags(options: dict[str, object]) -> list[str]:
    """Options of a command line."""
    return [f"--{name}={value}" for name, value in options.items()]


def _token_of(folder: Path) -> str:
    return (folder / "tokens.csv").read_text().partition(",")[0]


def _write_kubeconfig(folder: Path, authority: Certificate, address: str, token: str) -> Path:
    """As JSON, which is YAML, too."""
    cluster = {"server": address, "certificate-authority": str(authority.certificate)}
    names = {"cluster": CONTEXT, "user": "admin"}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": CONTEXT, "cluster": cluster}],
                "users": [{"name": "admin", "user": {"token": token}}],
                "contexts": [{"name": CONTEXT, "context": names}],
                "current-context": CONTEXT,
            }
        )
    )
    return kubeconfig
