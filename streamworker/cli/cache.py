"""`streamworker cache`: what Redis has of the caches of a group, and making it forget.

Forgetting is dry unless --yes is given. It needs no stop of the workers: they are told.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
import msgspec

from streamworker.cache.inspection import Inspection
from streamworker.cache.redis import translated
from streamworker.cache.store import StoreFailed
from streamworker.cli.console_output import say, show_json, show_table
from streamworker.cli.options import TEXT, examples, json_option, settings_options, timeout_option
from streamworker.errors import ConfigurationError
from streamworker.redis_client import redis_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.cache.inspection import Found
    from streamworker.cli.options import Sources

_CODES = (
    "\b\nExit codes:\n"
    "    0  Done, or shown what would be.\n"
    "    1  Redis did not answer, or refused.\n"
    "    2  Wrong usage or configuration."
)


@click.group(epilog=_CODES)
def cache() -> None:
    """Show what Redis has of the caches of a group, and make it forget.

    Redis is the one of cache.redis. Its user needs more rights here than a worker: +scan +pttl +exists.
    """


group_option = click.option("--group", metavar="NAME", help="The same as --set kafka.group=….")
shared_option = click.option("--shared", type=TEXT, metavar="NAME", help="Caches that groups share under this name.")
yes_option = click.option("--yes", is_flag=True, help="Do it; without, it is only said.")


@cache.command(
    epilog=examples("streamworker cache stats --group orders", "streamworker cache stats --group orders --json")
)
@group_option
@shared_option
@json_option
@timeout_option
@settings_options
def stats(sources: Sources, group: str | None, shared: str | None, as_json: bool, timeout_s: float) -> None:
    """How many values Redis has of each cache, and since when.

    Looks at every key of the server. What the processes have, and how often they were asked, is at their /metrics.
    """
    with _inspected(sources, group, shared, timeout_s) as inspection:
        found = inspection.inventory()
    if as_json:
        show_json(msgspec.to_builtins(found))
        return
    rows = [(one.cache, one.values, one.leases, one.unreachable, _moment(one.epoch_ms)) for one in found]
    show_table(("cache", "values", "being loaded", "unreachable", "since"), rows)


@cache.command(
    epilog=examples(
        "streamworker cache show customers 4711 --group orders",
        "streamworker cache show customers 4711 --group orders --unmasked --json",
    )
)
@click.argument("name", type=TEXT)
@click.argument("key", type=TEXT)
@click.option("--unmasked", is_flag=True, help="Show the value, too, as JSON.")
@group_option
@shared_option
@json_option
@timeout_option
@settings_options
def show(
    sources: Sources,
    name: str,
    key: str,
    unmasked: bool,
    group: str | None,
    shared: str | None,
    as_json: bool,
    timeout_s: float,
) -> None:
    """What Redis has of KEY in the cache NAME: version, end, size and schema; not the value.

    A process may have it besides, for as long as the l1_ttl_s of the cache.
    """
    with _inspected(sources, group, shared, timeout_s) as inspection:
        found, leased = inspection.look(name, key)
    told = {"key": key, "there": found is not None, "being_loaded": leased, **_described(found, unmasked=unmasked)}
    if as_json:
        show_json(told)
        return
    show_table(("", ""), [(what.replace("_", " "), _word(value)) for what, value in told.items()])


@cache.command(epilog=examples("streamworker cache invalidate customers 4711 4712 --group orders --yes"))
@click.argument("name", type=TEXT)
@click.argument("keys", type=TEXT, nargs=-1, required=True)
@group_option
@shared_option
@yes_option
@timeout_option
@settings_options
def invalidate(
    sources: Sources,
    name: str,
    keys: Sequence[str],
    group: str | None,
    shared: str | None,
    yes: bool,
    timeout_s: float,
) -> None:
    """Make Redis and all processes forget KEYS of the cache NAME; each is loaded again when it is asked for."""
    with _inspected(sources, group, shared, timeout_s) as inspection:
        if yes:
            inspection.invalidate(name, keys)
    which = f"{len(keys)} {'key' if len(keys) == 1 else 'keys'} of {name}"
    say(f"Forgotten: {which}." if yes else f"Would forget {which}. Nothing was changed; add --yes to do it.")


@cache.command(epilog=examples("streamworker cache flush customers --group orders --yes"))
@click.argument("name", type=TEXT)
@group_option
@shared_option
@yes_option
@timeout_option
@settings_options
def flush(sources: Sources, name: str, group: str | None, shared: str | None, yes: bool, timeout_s: float) -> None:
    """Make Redis and all processes forget all of the cache NAME. All of it is then loaded again from its source.

    The old values stay in Redis, where nobody asks for them, until their end.
    """
    with _inspected(sources, group, shared, timeout_s) as inspection:
        if yes:
            inspection.flush(name)
    say(f"Forgotten: {name}." if yes else f"Would forget {name}. Nothing was changed; add --yes to do it.")


@contextmanager
def _inspected(sources: Sources, group: str | None, shared: str | None, timeout_s: float) -> Iterator[Inspection]:
    config = sources.load_aloud(group=group).config
    url = config.cache.redis
    app = shared or config.kafka.group
    if url is None:
        raise ConfigurationError("cache.redis is missing: the caches are in the processes only")
    if not app:
        raise ConfigurationError("kafka.group is missing: caches are kept under its name; give --group or --shared")
    cluster = urlsplit(url).scheme.endswith("+cluster")
    try:
        with translated(), redis_client(url, timeout_s=timeout_s, connections=4, option="cache.redis") as client:
            yield Inspection(client, app, timeout_s=timeout_s, cluster=cluster)
    except StoreFailed as error:
        raise click.ClickException(f"cache.redis: {error}") from error


def _described(found: Found | None, *, unmasked: bool) -> dict[str, object]:
    if found is None:
        return {}
    told: dict[str, object] = {"size_bytes": found.size_bytes, "ends_in_s": found.ends_in_s}
    head = found.head
    if head is None:
        return {**told, "readable": False}
    told |= {
        "readable": True,
        "exists": not head.negative,
        "version": head.version or None,
        "schema": head.schema,
        "expires": _moment(head.expires_ms),
        "load_cost_ms": head.cost_ms,
    }
    if unmasked and not head.negative:
        told["value"] = _value(head.payload)
    return told


def _value(payload: bytes) -> object:
    try:
        return msgspec.to_builtins(msgspec.msgpack.decode(payload))
    except msgspec.MsgspecError:
        return None  # whoever wrote it was no cache


def _moment(unix_ms: int | None) -> str | None:
    try:
        return None if unix_ms is None else datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None  # in no year that has a name


def _word(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value
