"""`streamworker audit`: who did what to dead letters, and whether all of that is still there. Nothing is changed."""

from __future__ import annotations

import functools
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import moment, progress_bar, say, show_json, show_table
from streamworker.cli.desks import audit_key
from streamworker.cli.options import TEXT, connect, examples, json_option, settings_options, timeout_option
from streamworker.clock import SystemClock
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode
from streamworker.librdkafka import topic_log_settings
from streamworker.replay.audit import TOPIC, Check
from streamworker.replay.audit_log import AuditLog, Place
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from streamworker.cli.options import Sources
    from streamworker.config import Config
    from streamworker.replay.audit import Finding, Verdict
    from streamworker.replay.desk import Audited

_SHOWN = 20  # findings


@dataclass(frozen=True, slots=True)
class _Where:
    """Where the audit is read."""

    config: Config
    topic: str
    timeout_s: float

    @contextmanager
    def opened(self) -> Iterator[AuditLog]:
        partitions = connect(self.config.kafka).partitions(self.topic, self.timeout_s)
        if not partitions:
            raise ConfigurationError(f"there is no topic {self.topic!r}; `streamworker topics create` makes it")
        with closing(TopicLog(topic_log_settings(self.config.kafka), SystemClock())) as log:
            yield AuditLog(log, partitions, self.timeout_s)


def _reading(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options that say where the audit is, as its argument `where`."""

    @click.option(
        "--audit-topic",
        type=TEXT,
        default=TOPIC,
        show_default=True,
        help="Where it is; a mirror may call it otherwise.",
    )
    @json_option
    @timeout_option
    @settings_options
    @functools.wraps(command)
    def with_where(*, sources: Sources, audit_topic: str, timeout_s: float, **others: object) -> None:
        command(where=_Where(sources.load_aloud().config, audit_topic, timeout_s), **others)

    return with_where


@click.group()
def audit() -> None:
    """Show and check the record of what people have done to dead letters."""


@audit.command(
    epilog=examples(
        "streamworker audit ls",
        "streamworker audit ls --topic orders.dlq --what replay --limit 200",
        "streamworker audit ls --actor anna --text denied --json",
    )
)
@click.option("--topic", type=TEXT, help="Only what was done to this dead-letter topic.")
@click.option("--actor", type=TEXT, help="Only what this one did; the whole name, or its beginning up to the @.")
@click.option("--what", type=TEXT, help="Only this: replay, repair, discard, plan, denied, login, …")
@click.option("--text", help="Only what has this text anywhere, without regard to capitals.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="So many at most.")
@click.option("--after", help="Go on behind the page before: what it said last.")
@_reading
def ls(
    where: _Where,
    *,
    topic: str | None,
    actor: str | None,
    what: str | None,
    text: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List entries of the audit, the newest first."""

    def wanted(entry: Audited) -> bool:
        return (
            topic in (None, entry.topic)
            and actor in (None, entry.actor, entry.actor.partition("@")[0])
            and what in (None, entry.what)
            and (text is None or text.casefold() in " ".join(map(str, _plain(entry).values())).casefold())
        )

    before = None if after is None else Place.parse(after)
    with where.opened() as log:
        found, following = log.newest(limit, before=before, wanted=wanted)
    if as_json:
        show_json({"entries": [_plain(one) for one in found], "next": following})
        return
    show_table(
        ("at", "who", "via", "what", "topic", "operation", "detail"),
        [
            (moment(one.at_ms), _who(one), one.via, one.what, one.topic, one.op_id, _details(one.detail))
            for one in found
        ],
    )
    if following is not None:
        say(f"more with --after {following}", to_stderr=True)


@audit.command(epilog=examples("streamworker audit verify", "streamworker audit verify --json"))
@_reading
@click.pass_context
def verify(ctx: click.Context, where: _Where, *, as_json: bool) -> None:
    """Check that no entry of the audit is missing or changed, from the oldest that is kept.

    Each writer numbers its entries, and each entry has the hash of the one before. With audit.key_file each also has a
    seal that needs the key; without, who may write to the topic can write a chain of his own. That the last entries of
    a writer were cut off shows nowhere. Ends with 3 if something is wrong.
    """
    check = Check(audit_key(where.config))
    with where.opened() as log:
        ranges = log.ranges()
        total = sum(end - start for start, end in ranges.values())
        with progress_bar(f"checking {where.topic}", total) as advance:
            for number, one in enumerate(log.kept(ranges), 1):
                check.take(one)
                advance(number)
    verdict = check.verdict()
    if as_json:
        show_json(_plain_verdict(verdict, sealed=where.config.audit.key_file is not None))
    else:
        _tell(verdict, sealed=where.config.audit.key_file is not None)
    ctx.exit(ExitCode.PARTIAL if verdict.faults else ExitCode.OK)


def _tell(verdict: Verdict, *, sealed: bool) -> None:
    say(
        f"{verdict.entries} entries of {verdict.chains} writers;"
        f" of {verdict.beginnings} writers the first entry is still kept"
    )
    if not sealed:
        say("seals were not checked: audit.key_file is not set", style="yellow")
    if not verdict.faults:
        say("nothing is missing or changed", style="green")
        return
    say(f"{verdict.faults} faults:", style="red")
    show_table(("at", "fault", "writer", ""), [_finding(one) for one in verdict.findings[:_SHOWN]])
    if verdict.faults > _SHOWN:
        say(f"these are the first {_SHOWN}; --json names a thousand")


def _finding(one: Finding) -> tuple[object, ...]:
    return (one.at, one.fault, one.writer, one.message)


def _who(entry: Audited) -> str:
    return entry.actor if entry.verified else f"{entry.actor} (unverified)"


def _details(detail: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in detail.items() if value is not None)


def _plain(entry: Audited) -> dict[str, object]:
    return {
        "at_ms": entry.at_ms,
        "actor": entry.actor,
        "verified": entry.verified,
        "via": entry.via,
        "what": entry.what,
        "topic": entry.topic,
        "operation": entry.op_id,
        "detail": dict(entry.detail),
        "writer": entry.writer,
        "sequence": entry.sequence,
    }


def _plain_verdict(verdict: Verdict, *, sealed: bool) -> dict[str, object]:
    return {
        "entries": verdict.entries,
        "writers": verdict.chains,
        "beginnings": verdict.beginnings,
        "seals_checked": sealed,
        "faults": verdict.faults,
        "findings": [
            {"at": one.at, "fault": one.fault, "writer": one.writer, "message": one.message} for one in verdict.findings
        ],
    }
