"""`streamworker dlq`: what people do with dead letters. Each family of commands has a module."""

from __future__ import annotations

import click

from streamworker.cli.dlq_act import assign, discard, repair, replay, restore, snooze
from streamworker.cli.dlq_files import export, import_
from streamworker.cli.dlq_keys import keys, release_key
from streamworker.cli.dlq_operations import abort, ops, resume
from streamworker.cli.dlq_process import process
from streamworker.cli.dlq_purge import purge
from streamworker.cli.dlq_show import ls, show, stats
from streamworker.cli.options import examples

_HELP = """Find dead letters, send them to be handled again, mended or as they are, or discard them.

A FILTER has terms, of which all must hold: state:pending, reason:, handler:, group:, exception:, fp: (that of the
mistake), topic: (of the origin), partition:, offset:100..200, id:3:1042, key:, header.NAME:, written:2026-11-28,
age:>1h, attempts:>2, replays:0, assigned:, snoozed:, text:"timed out" (in the error), payload:"EUR" (reads the
values). Alternatives are parted by commas, * stands for any rest, - before a term turns it round.

What changes something is only shown without --yes.

\b
Exit codes:
    0  Done; or what would be done was shown.
    1  The cluster made going on impossible, or it was refused.
    2  Wrong usage or configuration, or there is no such letter; nothing was changed.
    3  Something is left to be done: letters were left alone or failed, or a run was paused or aborted.
  130  SIGINT before a run began.
"""


@click.group(
    help=_HELP,
    epilog=examples(
        "streamworker dlq stats orders.dlq",
        "streamworker dlq ls orders.dlq reason:poison 'age:>1h'",
        "streamworker dlq replay orders.dlq reason:exhausted --yes",
    ),
)
def dlq() -> None:
    """See the help."""


_LOOKING = (ls, stats, show)
_ACTING = (replay, repair, process, discard, restore, snooze, assign, purge)
_OPERATIONS = (ops, resume, abort)
_FILES = (export, import_)
_KEYS = (keys, release_key)

for command in (*_LOOKING, *_ACTING, *_OPERATIONS, *_FILES, *_KEYS):
    dlq.add_command(command)
