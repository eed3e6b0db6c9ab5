"""The jars of an Apache Kafka server, fetched by Maven into the ignored build folder.

`python tests/servers/kafka_jars.py` fetches them ahead of the tests; they are kept until
deploy/kafka/pom.xml asks for another version.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_POM = _ROOT / "deploy" / "kafka" / "pom.xml"
_LIBS = _ROOT / "build" / "kafka" / "libs"
_LOWEST_JAVA = 17  # what Kafka 4's brokers need
_FETCH_TIMEOUT_S = 600.0  # 54 MB and Maven's own plugins, on a slow line


class ServerUnavailable(Exception):
    """A server cannot be had on this machine; the message says what is missing."""


def fetch_jars() -> Path:
    """Folder with the jars of the version that the pom names; fetched if they are not there yet."""
    version = _version()
    if not (_LIBS / f"kafka_2.13-{version}.jar").exists():
        _copy_dependencies()
    return _LIBS


def require_java() -> None:
    """Raise ServerUnavailable unless a Java is there that can run a broker."""
    if shutil.which("java") is None:
        raise ServerUnavailable("no java on the PATH")
    answer = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', answer)
    if found is None or int(found[1]) < _LOWEST_JAVA:
        raise ServerUnavailable(f"Java {_LOWEST_JAVA} or later is needed, `java -version` says: {answer.strip()!r}")


def _version() -> str:
    found = re.search(r"<kafka\.version>(.+?)</kafka\.version>", _POM.read_text())
    assert found is not None, f"{_POM} names no kafka.version"
    return found[1]


def _copy_dependencies() -> None:
    if shutil.which("mvn") is None:
        raise ServerUnavailable("no mvn on the PATH to fetch Kafka's jars with")
    # Beside the real folder and renamed when complete: an interrupted download must not be taken for one.
    partial = _LIBS.with_name("libs.partial")
    shutil.rmtree(partial, ignore_errors=True)
    maven = subprocess.run(
        ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_FETCH_TIMEOUT_S,
    )
    if maven.returncode:
        raise ServerUnavailable(f"Maven could not fetch Kafka's jars: {maven.stdout.strip()[-500:]}")
    shutil.rmtree(_LIBS, ignore_errors=True)
    partial.rename(_LIBS)


if __name__ == "__main__":
    try:
        require_java()
        print(f"Kafka's jars: {fetch_jars()}")
    except ServerUnavailable as error:
        sys.exit(str(error))
