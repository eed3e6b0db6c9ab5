"""What commands about dead letters share: their options, and the desk that they work at."""

from __future__ import annotations

import functools
import importlib
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.assembly import replay_key
from streamworker.cli.console_output import progress_bar
from streamworker.cli.handlers import import_handlers
from streamworker.cli.options import TEXT, connect, settings_options, timeout_option
from streamworker.clock import SystemClock
from streamworker.declaration import declarations
from streamworker.errors import ConfigurationError
from streamworker.garbage import seldom_collected
from streamworker.key_file import read_key
from streamworker.repairs import repairs_in
from streamworker.replay.kafka_desk import KafkaDesk
from streamworker.replay.masking import Masking, rule_of
from streamworker.replay.showing import Showing
from streamworker.replay.states import state_topic
from streamworker.replay.worker_pages import WorkerPages

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from types import ModuleType

    from streamworker.cli.options import Sources
    from streamworker.config import Config

_SUFFIX = ".dlq"  # of the names that dead-letter topics have in our examples
_SHARES = 1000  # steps of the progress bar while a topic is read


@dataclass(frozen=True, slots=True)
class DeskOptions:
    """What the command line said of it."""

    sources: Sources
    groups: Sequence[str]
    handlers: Sequence[str]
    repairs: Sequence[str]
    unmasked: bool
    timeout_s: float


def desk_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options of a desk, as its argument `options`."""

    @click.option(
        "--group",
        "groups",
        type=TEXT,
        multiple=True,
        help="A consumer group whose replay topics may be sent to; kafka.group by itself. May be repeated.",
    )
    @click.option(
        "--handlers", multiple=True, metavar="MODULE:CLASS", help="Whose types say how values are read and checked."
    )
    @click.option("--repairs", multiple=True, metavar="MODULE", help="Where the application's repairs are.")
    @click.option("--unmasked", is_flag=True, help="Show values as they are, whatever is configured to be masked.")
    @timeout_option
    @settings_options
    @functools.wraps(command)
    def with_desk(
        *,
        sources: Sources,
        groups: Sequence[str],
        handlers: Sequence[str],
        repairs: Sequence[str],
        unmasked: bool,
        timeout_s: float,
        **others: object,
    ) -> None:
        options = DeskOptions(sources, groups, handlers, repairs, unmasked, timeout_s)
        command(options=options, **others)

    return with_desk


@contextmanager
def open_desk(options: DeskOptions, topic: str | None) -> Iterator[KafkaDesk]:
    """A desk that has read all of dead-letter topic `topic`, with a progress bar; None: it reads no letters."""
    desk = make_desk(options)
    with seldom_collected(), closing(desk):
        if topic is not None:
            with progress_bar(f"reading {topic}", _SHARES) as advance:
                desk.read(topic, lambda share: advance(int(share * _SHARES)))
        yield desk


@contextmanager
def open_following_desk(options: DeskOptions) -> Iterator[KafkaDesk]:
    """A desk that reads all dead-letter topics there are, and goes on as long as it is open.

    Raises ConfigurationError for one that would show everybody what is masked.
    """
    if options.unmasked:
        raise ConfigurationError("--unmasked: a console never shows what is masked; use `streamworker dlq show`")
    desk = make_desk(options)
    with seldom_collected(), closing(desk):
        desk.follow(dead_letter_topics)
        yield desk


def dead_letter_topics(there: Collection[str]) -> list[str]:
    """Those that are named like one, and those beside which a topic says what became of their records."""
    return [topic for topic in there if topic.endswith(_SUFFIX) or state_topic(topic) in there]


def make_desk(options: DeskOptions) -> KafkaDesk:
    """A desk that has read nothing yet; raises ConfigurationError. To be closed."""
    config = options.sources.load_aloud().config
    sys.path.insert(0, str(Path.cwd()))
    masking = Masking([] if options.unmasked else [rule_of(name, how) for name, how in config.masking.items()])
    return KafkaDesk(
        config,
        connect(config.kafka),
        SystemClock(),
        groups=options.groups or [group for group in (config.kafka.group,) if group],
        handlers=declarations(import_handlers(options.handlers, Path.cwd())) if options.handlers else (),
        repairs=repairs_in(map(_module, options.repairs)),
        showing=Showing(masking=masking),
        workers=WorkerPages(_listed(config.console.workers), SystemClock()),
        replay_key=replay_key(config.replay),
        audit_key=audit_key(config),
        timeout_s=options.timeout_s,
    )


def audit_key(config: Config) -> bytes | None:
    """What signs entries of the audit, None without; raises ConfigurationError for a file that has no secret."""
    key_file = config.audit.key_file
    return None if key_file is None else read_key("audit.key_file", key_file)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"--repairs {name}: {error}") from error
