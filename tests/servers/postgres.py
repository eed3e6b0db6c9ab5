"""The PostgreSQL that tests run against: the one given, else one started from the Debian package `postgresql`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from servers.kafka_jars import ServerUnavailable
from servers.ports import free_ports
from servers.program import Program, wait_until_it_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

_USER = "postgres"
_INIT_TIMEOUT_S = 60.0  # 2 s on two idle cores
_ANSWER_TIMEOUT_S = 2  # the client's smallest

# `pg_ctl stop -m immediate`: all its processes end at once, and the next start recovers as after a crash.
HARD = signal.SIGQUIT


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server that answers. `program` is None if somebody else runs it, so that it is neither stopped nor ended."""

    url: str
    program: Program | None = None

    def close(self) -> None:
        """End it if it is ours. Idempotent."""
        if self.program is not None:
            self.program.close()


def obtain_postgres(given: str | None) -> Postgres:
    """The PostgreSQL at the URL `given`, else one of this run; 2 s. Raises ServerUnavailable."""
    if given:
        wait_until_it_answers("the PostgreSQL that was given", partial(_answers, given))
        return Postgres(given)
    programs, (port,) = _programs(), free_ports(1)
    url = f"postgresql://{_USER}@127.0.0.1:{port}/postgres"
    folder = Path(tempfile.mkdtemp(prefix="streamworker-postgres-"))
    try:
        _make_cluster(programs, folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    # Without `fsync` a crash of the machine would cost data; one of the server does not.
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    command = [*_as_its_user(), str(programs / "postgres"), "-D", str(folder / "data")]
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Postgres(url, Program(f"PostgreSQL at {url}", command, folder, partial(_answers, url)))


def _programs() -> Path:
    """Where initdb and postgres are; Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        raise ServerUnavailable("no PostgreSQL server in /usr/lib/postgresql or on the PATH (Debian: postgresql)")
    return (found[-1] if found else Path(str(on_path))).parent


def _make_cluster(programs: Path, folder: Path) -> None:
    if os.geteuid() == 0:
        try:
            shutil.chown(folder, _USER)
        except LookupError as error:
            raise ServerUnavailable(f"PostgreSQL does not run as root, and there is no user {_USER}") from error
        if shutil.which("setpriv") is None:
            raise ServerUnavailable("PostgreSQL does not run as root, and there is no setpriv on the PATH")
    options = ["--username", _USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
    done = subprocess.run(
        [*_as_its_user(), str(programs / "initdb"), "-D", str(folder / "data"), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_INIT_TIMEOUT_S,
    )
    if done.returncode:
        raise ServerUnavailable(f"initdb failed: {done.stderr.strip()[-500:]}")


def _as_its_user() -> Sequence[str]:
    """PostgreSQL does not run as root. A change of the user forgets that it is to die with its parent: say it anew."""
    if os.geteuid():
        return []
    return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups", "--pdeathsig=KILL"]


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=_ANSWER_TIMEOUT_S).close()
    except psycopg.OperationalError:  # it does not listen yet, or recovers
        return False
    return True
