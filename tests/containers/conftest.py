"""The images that the tests here run; built once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from containers.engine import ROOT, base, build

from streamworker import __version__

# Its Python is 3.13, as that of the image which the Dockerfile names.
SUITE = "trixie"
TESTS = Path(__file__).parents[1]

_LEDGER_APP = f"""\
FROM streamworker:{__version__}
COPY fleet/ /app/fleet/
CMD ["run", "fleet.apps:LedgerWithDeadLetters"]
"""


@pytest.fixture(scope="session")
def base_image() -> str:
    """A minimal Debian with its Python."""
    return base(SUITE)


@pytest.fixture(scope="session")
def image(base_image: str) -> tuple[str, float]:
    """The image of this version on that base, and how long the build took. `make test-image` has made the wheels."""
    tag = f"streamworker:{__version__}"
    began_s = time.monotonic()
    given = {"BASE": base_image, "VERSION": __version__, "REVISION": "none", "CREATED": "1970-01-01T00:00:00Z"}
    arguments = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
    build(tag, ROOT, "--layers", "--file", str(ROOT / "deploy" / "Dockerfile"), *arguments)
    return tag, time.monotonic() - began_s


@pytest.fixture(scope="session")
def ledger_image(image: tuple[str, float], tmp_path_factory: pytest.TempPathFactory) -> str:
    """An application in three lines: the handlers that other tests' workers run."""
    folder = tmp_path_factory.mktemp("ledger")
    shutil.copytree(TESTS / "fleet", folder / "fleet", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "Dockerfile").write_text(_LEDGER_APP)
    build("ledger:1", folder)
    return "ledger:1"


@pytest.fixture(scope="session")
def orders_image(image: tuple[str, float]) -> str:
    """The example application, as the compose file builds it."""
    build("orders:1", ROOT / "examples" / "orders")
    return "orders:1"
