"""Runs workers as a hardened pod does, without a container engine: nobody's user, no capability, nothing to write to.

A command in it is process 1 of namespaces of its own. All that is mounted is read-only, but for its own `/tmp`
(`TMPDIR`) and `writable`. Needs Linux, root, and `unshare`, `mount` and `setpriv` of util-linux.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.workers import Surroundings
from servers.kafka_jars import ServerUnavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

NOBODY = 65534
_PROGRAMS = ("unshare", "mount", "setpriv")
_CHECKOUT = Path(__file__).parents[2]
_TMP_BYTES = 64 * 1024 * 1024
# The checkout and the environment are mounted into the folder, because those above them may be closed to others.
_SCRIPT = f"""
set -eu
cd "$1"
mount --bind "$2" checkout
mount --bind "$3" environment
cut -d " " -f 5 /proc/self/mountinfo | while read -r at; do
    mount -o remount,bind,ro "$(printf %b "$at")" 2>/dev/null || true
done
mount -t tmpfs -o size={_TMP_BYTES},mode=1777 tmpfs tmp
mount --bind writable writable
mount -o remount,bind,rw writable
cd checkout/tests
shift 3
export TMPDIR="$OLDPWD/tmp"
exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --no-new-privs \\
    --bounding-set -all --inh-caps -all --ambient-caps -all "$@"
"""
# Prints whether a file can be made in the folder for temporary ones, and in those that are named.
WHERE_IT_WRITES = """
import json, sys, tempfile

def may_write(folder):
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror
    return "yes"

print(json.dumps({folder: may_write(folder) for folder in [tempfile.gettempdir(), *sys.argv[1:]]}))
"""


@dataclass(frozen=True, slots=True)
class Confinement:
    """A place for workers; `writable` is the one folder that they share with the test."""

    surroundings: Surroundings
    writable: Path


@contextmanager
def confinement() -> Iterator[Confinement]:
    """One that is gone afterwards. Raises ServerUnavailable."""
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    if lacking or os.geteuid() != 0:
        raise ServerUnavailable(f"confined workers need root, and {', '.join(_PROGRAMS)} on the PATH")
    folder = Path(tempfile.mkdtemp(prefix="streamworker-confined-"))
    try:
        folder.chmod(0o755)
        for name in ("checkout", "environment", "tmp", "writable"):
            (folder / name).mkdir()
        os.chown(folder / "writable", NOBODY, NOBODY)
        yield Confinement(Surroundings(_python(folder), folder / "checkout", _before(folder)), folder / "writable")
    finally:
        for name in ("checkout", "environment", "tmp"):
            (folder / name).rmdir()  # which fails if something is in it, as where a mount was not the worker's own
        shutil.rmtree(folder)


def _python(folder: Path) -> Path:
    return folder / "environment" / Path(sys.executable).relative_to(sys.prefix)


def _before(folder: Path) -> list[str]:
    # It ends with the run, however that ends; what knows a worker's parent knows none in a namespace of its own.
    tied = ["setpriv", "--pdeathsig", "KILL"]
    namespaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*tied, *namespaces, "sh", "-c", _SCRIPT, "sh", str(folder), str(_CHECKOUT), sys.prefix]


def process_1(worker: subprocess.Popen[bytes]) -> int:
    """The process of a worker that runs, as this machine numbers it."""
    (child,) = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    return int(child)


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process, see proc(5)."""
    return dict(re.findall(r"^(\w+):[ \t]*(.*?)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
