"""The process of a worker in tests: the command line, with a witness, and if told so a crash point or a planted bug.

`python -m fleet.entry run …`; the environment tells the rest.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import planted.bugs
from fleet import crash_points
from fleet.history import Journal
from fleet.witness import Witness

import streamworker.cli.run
from streamworker.assembly import assemble
from streamworker.cli.main import main

LEDGER, PLANTED = "FLEET_LEDGER", "FLEET_PLANTED"


def prepare() -> None:
    """Put everything in place before the command line starts."""
    witness = Witness(Journal(Path(os.environ[LEDGER])))
    witness.install()
    streamworker.cli.run.assemble = partial(assemble, listeners=[witness])  # type: ignore[attr-defined]
    bug = os.environ.get(PLANTED)
    if bug:
        planted.bugs.plant(bug)
    point = os.environ.get(crash_points.VARIABLE)
    if point:
        crash_points.install(point)


if __name__ == "__main__":
    prepare()
    main()
