"""The commands about dead letters, imported together when one of them is asked for: workers do without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.cli.audit import audit
from streamworker.cli.console import console_account, console_command
from streamworker.cli.desks import desk_options, open_following_desk
from streamworker.cli.dlq import dlq

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

COMMANDS: Mapping[str, click.Command] = {
    "audit": audit,
    "console": console_command(desk_options, open_following_desk),
    "console-account": console_account,
    "dlq": dlq,
}
