"""`streamworker acl`: the least rights at the brokers that handlers and what goes with them need."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import show_json
from streamworker.cli.findings import MISSING_GROUP
from streamworker.cli.handlers import fitting_declarations, import_handlers
from streamworker.cli.options import TEXT, examples, settings_options
from streamworker.cli.rights import Role, rights
from streamworker.errors import ConfigurationError
from streamworker.sinks.kafka import KafkaSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.cli.options import Sources
    from streamworker.cli.rights import Right
    from streamworker.declaration import Declaration


@click.command(
    epilog=examples(
        "streamworker acl app.handlers:StoreOrders --group orders --principal User:orders",
        "streamworker acl app.handlers:StoreOrders --group orders --console --principal User:console",
        "streamworker acl app.handlers:StoreOrders --group orders --lag --format json",
    )
)
@click.argument("handlers", nargs=-1, required=True, metavar="MODULE:CLASS…")
@click.option("--group", help="Consumer group; the same as --set kafka.group=….")
@click.option("--worker", is_flag=True, help="Of workers; by itself.")
@click.option("--replay", is_flag=True, help="Of `streamworker dlq` and `audit`.")
@click.option("--console", is_flag=True, help="Of the console.")
@click.option("--lag", is_flag=True, help="Of `streamworker lag`.")
@click.option("--principal", type=TEXT, default="User:streamworker", show_default=True, help="Who is to have them.")
@click.option(
    "--format",
    "shown_as",
    type=click.Choice(["kafka-acls", "json"]),
    default="kafka-acls",
    show_default=True,
    help="Commands for Kafka's own tool, or a list.",
)
@settings_options
def acl(
    sources: Sources,
    handlers: Sequence[str],
    group: str | None,
    worker: bool,
    replay: bool,
    console: bool,
    lag: bool,
    principal: str,
    shown_as: str,
) -> None:
    """Print the least rights that HANDLERS need, or what goes with them; nothing is asked or changed.

    Topics are those that the handlers declare, and what stands beside them. A right for a pattern covers all topics
    that begin like it. What a handler says only when it returns a record, a KafkaRecord with a topic of its own, cannot
    be known here, nor what it does by itself.
    """
    config = sources.load_aloud(group=group).config
    if not config.kafka.group:
        raise ConfigurationError(MISSING_GROUP)
    declared = fitting_declarations(import_handlers(handlers, Path.cwd()), config)
    instance = config.kafka.librdkafka.get("group.instance.id")
    asked = {Role.WORKER: worker, Role.REPLAY: replay, Role.CONSOLE: console, Role.LAG: lag}
    roles = [role for role, is_asked in asked.items() if is_asked] or [Role.WORKER]
    found = rights(declared, config.kafka.group, roles, None if instance is None else str(instance))
    if shown_as == "json":
        show_json([_plain(one, principal) for one in found])
        return
    for note in _notes(declared):
        click.echo(f"# {note}")
    for one in found:
        click.echo(f"# {one.why}")
        click.echo(_command(one, principal, config.kafka.bootstrap_servers))


def _notes(handlers: Sequence[Declaration]) -> Iterator[str]:
    for one in handlers:
        sink = one.sink
        if isinstance(sink, KafkaSink) and sink.connection is not None:
            yield f"{one.name} also writes to {sink.topic} of another cluster ({sink.connection}): Write, there"


def _command(right: Right, principal: str, servers: str) -> str:
    resource = right.resource
    words = ["kafka-acls.sh", "--bootstrap-server", servers, "--add", "--allow-principal", principal]
    words += [word for operation in right.operations for word in ("--operation", operation.value)]
    words += [f"--{resource.kind.value}", resource.name]
    if resource.prefixed:
        words += ["--resource-pattern-type", "prefixed"]
    return shlex.join(words)


def _plain(right: Right, principal: str) -> dict[str, object]:
    return {
        "principal": principal,
        "resource_type": right.resource.kind.value,
        "name": right.resource.name,
        "pattern_type": "prefixed" if right.resource.prefixed else "literal",
        "operations": [one.value for one in right.operations],
        "why": right.why,
    }
