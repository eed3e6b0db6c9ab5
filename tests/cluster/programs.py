"""The programs of tests/cluster: those in CONTROL_PLANE_BIN, else those that build_control_plane.sh has made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from servers.kafka_jars import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUILT = Path(__file__).parents[2] / "build" / "control-plane" / "bin"
_COMMAND_TIMEOUT_S = 240.0


class Refused(Exception):
    """A command failed; the message is what it printed."""


def program(name: str) -> Path:
    """A program, or the folder `manifests`. Raises ServerUnavailable."""
    folder = _folder()
    if not (folder / name).exists():
        raise ServerUnavailable(f"no {name} in {folder}: `make test-cluster` and `make test-keda` build what they need")
    return folder / name


def etcd() -> Path:
    """The database of the API server, which Debian has."""
    built, packaged = _folder() / "etcd", shutil.which("etcd")
    if built.exists():
        return built
    if packaged is None:
        raise ServerUnavailable("no etcd on the PATH (Debian: etcd-server)")
    return Path(packaged)


def run(command: Sequence[str | Path], stdin: str | None = None) -> str:
    """What the command prints. Raises Refused when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=_COMMAND_TIMEOUT_S)
    if done.returncode:
        raise Refused(f"`{Path(command[0]).name} {' '.join(map(str, command[1:6]))} …`: {done.stderr.strip()}")
    return done.stdout


def _folder() -> Path:
    return Path(os.environ.get("CONTROL_PLANE_BIN") or _BUILT)
