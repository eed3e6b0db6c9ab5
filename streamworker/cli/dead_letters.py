"""The command `console` over a desk that follows its topics: what it is given is not known where it is made."""

from __future__ import annotations

from streamworker.cli.console import console_command
from streamworker.cli.desks import desk_options, open_following_desk
from streamworker.cli.lag_serve import observed

console = console_command(desk_options, open_following_desk, observed)
