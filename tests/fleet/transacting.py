"""A handler of real worker processes that copies its topic by transactions."""

from __future__ import annotations

from fleet.copying import Copies


class Transacts(Copies):
    """Copies, dead letters and offsets are there together or not at all."""

    delivery = "transactional"
