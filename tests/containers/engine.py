"""Images built and run without a daemon: buildah, podman and runc, as root.

Decided here: how they are called on any Debian, and the base that takes the place of a slim Python where none can be
pulled. Images and layers are kept in the ignored build folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
_KEPT = ROOT / "build" / "containers"
_STORE = ["--storage-driver", "overlay", "--root", str(_KEPT / "store"), "--runroot", str(_KEPT / "run")]
_PODMAN = ["podman", *_STORE, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
_BUILD = ["buildah", *_STORE, "bud", "--isolation", "chroot", "--format", "docker"]
_TIMEOUT_S = 600.0

# As the chart's securityContext says, with the host's network, on which the tests' servers are. The writable /run and
# /var/tmp of podman's own are taken away. The ulimits are below those of hosts that allow no more.
HARDENED = (
    *("--network", "host", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--memory", "256m", "--user", "10001"),
    *("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"),
)


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return _run([*_PODMAN, *arguments], check=check)


def build(tag: str, folder: Path, *arguments: str) -> None:
    """Build an image from the Dockerfile that `arguments` name, else from that of `folder`."""
    _run(
        [
            "buildah",
            *_STORE,
            "bud",
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--tag",
            tag,
            *arguments,
            str(folder),
        ]
    )


def base(suite: str) -> str:
    """An image with nothing but a minimal Debian and its Python, made by debootstrap unless it is there."""
    tag = f"streamworker-base:{suite}"
    if podman("image", "exists", tag, check=False).returncode == 0:
        return tag
    with tempfile.TemporaryDirectory(prefix="streamworker-base-") as made:
        folder = Path(made)
        packages = "python3,python3-venv,ca-certificates"
        _run(["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(folder / "root"), _mirror()])
        shutil.rmtree(folder / "root" / "var" / "cache" / "apt")
        shutil.rmtree(folder / "root" / "var" / "lib" / "apt")
        _run(["tar", "-C", str(folder / "root"), "-cf", str(folder / "root.tar"), "."])
        shutil.rmtree(folder / "root")
        (folder / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
        build(tag, folder)
    return tag


def _mirror() -> str:
    """The archive that this machine has its own packages from."""
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).stdout.split()
    return next(one for one in listed if "security" not in one)


def inspected(image: str) -> Mapping[str, Any]:
    """What the engine knows of an image."""
    (found,) = json.loads(podman("image", "inspect", image).stdout)
    return found


def hardened(image: str, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run `command` in a container that is gone afterwards."""
    return podman("run", "--rm", *HARDENED, *options, image, *command, check=False)


class Container:
    """A container that runs in the background until the `with` block ends."""

    def __init__(self, name: str, image: str, *command: str, options: Sequence[str] = ()) -> None:
        self.name = name
        podman("run", "--detach", "--log-driver", "k8s-file", "--name", name, *HARDENED, *options, image, *command)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        podman("rm", "--force", "--time", "0", self.name)

    @property
    def pid(self) -> int:
        """Its process 1, as this machine numbers it."""
        return int(self._state("Pid"))

    @property
    def running(self) -> bool:
        return self._state("Running") == "true"

    @property
    def healthy(self) -> bool:
        """Whether the image's own check passes now."""
        return podman("healthcheck", "run", self.name, check=False).returncode == 0

    def stop(self, grace_s: int) -> int:
        """SIGTERM, and SIGKILL after the grace period; the exit code."""
        podman("stop", "--time", str(grace_s), self.name)
        return int(self._state("ExitCode"))

    def changed(self) -> str:
        """What differs from the image."""
        return podman("diff", self.name).stdout

    def log(self) -> str:
        done = podman("logs", self.name, check=False)
        return done.stdout + done.stderr

    def _state(self, field: str) -> str:
        return podman("inspect", "--format", f"{{{{.State.{field}}}}}", self.name).stdout.strip()


def _run(command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if check and done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise AssertionError(f"{' '.join(command)}\n ended with {done.returncode}:\n{end}")
    return done
