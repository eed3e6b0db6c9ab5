"""The configuration, read again while the worker runs.

Decided here: what of it may change at run time, which is what `[degradation]` says; and that a configuration that is
wrong changes nothing. `ask` is for signal handlers; the rest runs on the loop thread, between two steps, and costs it
the reading of a file.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.cli.settings import Settings

_log = logging.getLogger(__name__)
_RELOADED = "degradation."


class Reload:
    """Reads again when it was asked to; `switch` puts in force what `[degradation]` says."""

    def __init__(
        self, load: Callable[[], Settings], running: Settings, switch: Callable[[Mapping[str, str]], None]
    ) -> None:
        self._load = load
        self._running = running
        self._switch = switch
        self._asked = False

    def ask(self) -> None:
        """Read again before the next step; only sets a flag."""
        self._asked = True

    def __call__(self) -> None:
        """Do what was asked. Never raises for a configuration that is wrong."""
        if not self._asked:
            return
        self._asked = False
        try:
            settings = self._load()
            self._switch(settings.config.degradation)
        except ConfigurationError as error:
            _log.error("the configuration is wrong, the one before stays in force: %s", error)
            return
        _log.warning("configuration read again", extra={"degradation": dict(settings.config.degradation)})
        changed = changed_options(self._running, settings)
        if changed:
            _log.warning("these options have changed as well, and need a restart: %s", ", ".join(changed))


def changed_options(running: Settings, settings: Settings) -> Sequence[str]:
    """Names of the options that are different and cannot change while the worker runs."""
    before, after = dict(running.values()), dict(settings.values())
    names = sorted(before.keys() | after.keys())
    return [name for name in names if not name.startswith(_RELOADED) and before.get(name) != after.get(name)]
