"""An environment for each peer under build/peers, made when it is asked for and again when its requirements change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
_INSTALLATION_S = 600


class CannotBeInstalled(Exception):
    """With the last line of what pip said."""


def python_of(peer: str) -> Path:
    """The interpreter of the peer's environment. Raises CannotBeInstalled."""
    return python_with(REQUIREMENTS / f"{peer}.txt", ROOT / "build" / "peers" / peer)


def python_with(requirements: Path, folder: Path) -> Path:
    """The interpreter of the environment in `folder`, made if it has not just these. Raises CannotBeInstalled."""
    installed = folder / "installed.txt"
    python = folder / "bin" / "python"
    if installed.is_file() and installed.read_text() == requirements.read_text():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements))
    shutil.copyfile(requirements, installed)
    return python


def versions(python: Path, packages: Sequence[str]) -> Mapping[str, str]:
    """The versions that are installed beside this interpreter."""
    (site_packages,) = python.parents[1].glob("lib/python*/site-packages")
    return {
        package: next(iter(Distribution.discover(name=package, path=[str(site_packages)]))).version
        for package in packages
    }


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=_INSTALLATION_S)
    except subprocess.TimeoutExpired as error:
        raise CannotBeInstalled(f"not within {_INSTALLATION_S} s") from error
    if done.returncode:
        raise CannotBeInstalled((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
