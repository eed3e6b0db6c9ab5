"""The schema registry that tests run against: the one given, else an Apicurio Registry started by Java.

Decided here: where its program is kept (fetched by Maven into the ignored build folder, until
deploy/registry/pom.xml asks for another version) and how it is run. What is started listens on the
loopback interface, keeps its schemas in a temporary folder and ends with the test run.
`PYTHONPATH=tests python -m servers.registry` fetches it ahead of the tests.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servers.kafka_jars import ServerUnavailable, require_java
from servers.ports import free_ports
from servers.tethered import Tethered

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[2]
_POM = _ROOT / "deploy" / "registry" / "pom.xml"
_APP = _ROOT / "build" / "registry" / "app"
_FETCH_TIMEOUT_S = 600.0  # 109 MB and Maven's own plugins, on a slow line

_START_TIMEOUT_S = 60.0  # 4 s on two idle cores
_STOP_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = 5.0
_BETWEEN_ANSWERS_S = 0.1  # nothing tells when it listens
_API = "apis/ccompat/v7"  # Confluent's; the other paths are Apicurio's own
_JAVA = ("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


@dataclass(frozen=True, slots=True)
class GivenRegistry:
    """A registry that somebody else runs; `url` ends where Confluent's API begins."""

    url: str

    def __post_init__(self) -> None:
        _wait_until_it_answers(self.url, alive=lambda: True)

    def close(self) -> None: ...


class StartedRegistry:
    """A registry of this test run, which answers when made. Its schemas outlive `kill` and `restart`."""

    def __init__(self, program: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/{_API}"
        self._folder = Path(tempfile.mkdtemp(prefix="streamworker-registry-"))
        # Written at once, because SIGKILL leaves no time for it later.
        database = f"jdbc:h2:file:{self._folder}/schemas;WRITE_DELAY=0"
        settings = {"quarkus.http.host": "127.0.0.1", "quarkus.http.port": port, "apicurio.datasource.url": database}
        self._command = [*_JAVA, *(f"-D{name}={value}" for name, value in settings.items()), "-jar", str(program)]
        self._process = self._start()

    def kill(self) -> None:
        """End it by SIGKILL; it is gone when this returns, until `restart`."""
        self._process.send(signal.SIGKILL)
        self._process.wait(_STOP_TIMEOUT_S)

    def restart(self) -> None:
        """Stop it in order if it runs, start it again on the same port and wait until it answers."""
        if self._process.running:
            self._process.send(signal.SIGTERM)
            self._process.wait(_STOP_TIMEOUT_S)
        self._process.close()
        self._process = self._start()

    def close(self) -> None:
        """End it and remove its schemas. Idempotent."""
        self._process.close()
        shutil.rmtree(self._folder, ignore_errors=True)  # still there if it was killed before

    def _start(self) -> Tethered:
        process = Tethered(self._command, self._folder)
        try:
            _wait_until_it_answers(self.url, alive=lambda: process.running)
        except ServerUnavailable as error:
            log = process.log.read_text(errors="replace")[-2000:]
            process.close()
            raise ServerUnavailable(f"{error}; the end of its output:\n{log}") from error
        return process


Registry = GivenRegistry | StartedRegistry


def obtain_registry(given: str | None) -> Registry:
    """The registry at `given`, else one of this run. Raises ServerUnavailable."""
    return GivenRegistry(given) if given else start_registry()


def start_registry() -> StartedRegistry:
    """A registry in a Java process; 226 MB of memory. Raises ServerUnavailable."""
    require_java()
    return StartedRegistry(fetch_registry())


def fetch_registry() -> Path:
    """The program of the version that the pom names; fetched if it is not there yet. Raises ServerUnavailable."""
    program = _APP / f"apicurio-registry-app-{_version()}-runner.jar"
    if not program.exists():
        _unpack()
    return program


def _version() -> str:
    found = re.search(r"<registry\.version>(.+?)</registry\.version>", _POM.read_text())
    assert found is not None, f"{_POM} names no registry.version"
    return found[1]


def _unpack() -> None:
    if shutil.which("mvn") is None:
        raise ServerUnavailable("no mvn on the PATH to fetch a schema registry with")
    # Beside the real folder and renamed when complete: an interrupted download must not be taken for one.
    partial = _APP.with_name("app.partial")
    shutil.rmtree(partial, ignore_errors=True)
    maven = subprocess.run(
        ["mvn", "-q", "-B", "-f", str(_POM), "dependency:unpack", f"-DoutputDirectory={partial}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_FETCH_TIMEOUT_S,
    )
    if maven.returncode:
        raise ServerUnavailable(f"Maven could not fetch a schema registry: {maven.stdout.strip()[-500:]}")
    shutil.rmtree(_APP, ignore_errors=True)
    partial.rename(_APP)


def _wait_until_it_answers(url: str, *, alive: Callable[[], bool]) -> None:
    pause = threading.Event()
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while alive() and time.monotonic() < deadline_s:
        # Its errors, refused connections and answers other than 200, are all OSError.
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/subjects", timeout=_ANSWER_TIMEOUT_S):
            return
        pause.wait(_BETWEEN_ANSWERS_S)
    what = f"no answer within {_START_TIMEOUT_S} s" if alive() else "it ended by itself"
    raise ServerUnavailable(f"the schema registry at {url}: {what}")


if __name__ == "__main__":
    try:
        require_java()
        print(f"The schema registry: {fetch_registry()}")
    except ServerUnavailable as error:
        sys.exit(str(error))
