"""`streamworker dlq ls | stats | show`: dead letters for people, and as JSON for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streamworker.cli.console_output import key_text, moment, say, show_json, show_table
from streamworker.cli.desks import desk_options, open_desk
from streamworker.cli.options import TEXT, examples, json_option
from streamworker.replay.dead_record import LetterId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamworker.cli.desks import DeskOptions
    from streamworker.record import Origin
    from streamworker.replay.desk import Decoded, Detail, FingerprintGroup, Row
    from streamworker.replay.states import Disposition, Target

_CUT_CHARS = 60  # of an error's message in a table
filter_argument = click.argument("words", nargs=-1, metavar="[FILTER]…")


@click.command(
    epilog=examples(
        "streamworker dlq ls orders.dlq",
        "streamworker dlq ls orders.dlq state:pending reason:poison 'age:>1h'",
        "streamworker dlq ls orders.dlq 'text:\"timed out\"' --limit 500 --json",
    )
)
@click.argument("topic", type=TEXT)
@filter_argument
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="So many at most.")
@click.option("--after", help="Go on behind the page before: what it said last.")
@json_option
@desk_options
def ls(options: DeskOptions, topic: str, words: Sequence[str], limit: int, after: str | None, as_json: bool) -> None:
    """List the dead letters of TOPIC that FILTER chooses, the newest first."""
    with open_desk(options, topic) as desk:
        page = desk.page(topic, desk.filter_of(" ".join(words)), limit=limit, after=after)
        keys = [_key(one, desk.key(one.letter)) for one in page.letters]
    if as_json:
        rows = [_plain_row(one, key) for one, key in zip(page.letters, keys, strict=True)]
        show_json({"letters": rows, "next": page.next, "matching": page.matching})
        return
    show_table(
        ("letter", "written", "state", "reason", "handler", "key", "exception", "message"),
        [
            (
                one.letter.id,
                moment(one.letter.written_ms),
                one.state,
                one.letter.reason,
                one.letter.handler,
                key,
                one.letter.exception,
                _cut(one.letter.message),
            )
            for one, key in zip(page.letters, keys, strict=True)
        ],
    )
    if page.next is not None:
        count = "" if page.matching is None else f" of {page.matching}"
        say(f"{len(page.letters)}{count}; more with --after {page.next}", to_stderr=True)


@click.command(
    epilog=examples(
        "streamworker dlq stats orders.dlq", "streamworker dlq stats orders.dlq state:pending 'age:<1d' --json"
    )
)
@click.argument("topic", type=TEXT)
@filter_argument
@json_option
@desk_options
def stats(options: DeskOptions, topic: str, words: Sequence[str], as_json: bool) -> None:
    """How many dead letters of TOPIC are in which state, and the mistakes that they are of."""
    with open_desk(options, topic) as desk:
        found = next(one for one in desk.topics() if one.topic == topic)
        groups = desk.groups_of_errors(topic, desk.filter_of(" ".join(words)))
    if as_json:
        show_json(
            {
                "topic": topic,
                "records": found.records,
                "states": {str(state): count for state, count in found.states.items()},
                "oldest_pending_ms": found.oldest_pending_ms,
                "newest_ms": found.newest_ms,
                "expiring": found.expiring,
                "ignored": found.ignored,
                "groups": [_plain_group(one) for one in groups],
            }
        )
        return
    states = ", ".join(f"{count} {state}" for state, count in found.states.items() if count)
    say(f"{topic}: {found.records} letters ({states or 'none'})")
    if found.oldest_pending_ms is not None:
        say(f"the oldest that is pending is of {moment(found.oldest_pending_ms)}")
    if found.expiring:
        say(f"{found.expiring} that are pending expire within a day", style="yellow")
    if found.ignored:
        say(f"{found.ignored} records of the state topic are not believed", style="yellow")
    show_table(
        ("mistake", "letters", "pending", "reason", "handler", "exception", "last", "message"),
        [
            (
                one.fingerprint,
                one.count,
                one.pending,
                one.reason,
                one.handler,
                one.exception,
                moment(one.last_ms),
                _cut(one.message),
            )
            for one in groups
        ],
    )


@click.command(
    epilog=examples("streamworker dlq show orders.dlq 3:1042", "streamworker dlq show orders.dlq 3:1042 --json")
)
@click.argument("topic", type=TEXT)
@click.argument("letter", metavar="PARTITION:OFFSET")
@json_option
@desk_options
def show(options: DeskOptions, topic: str, letter: str, as_json: bool) -> None:
    """All that is known of one dead letter: where it is from, why it failed, its value, and what became of it."""
    with open_desk(options, topic) as desk:
        detail = desk.detail(topic, LetterId.parse(letter))
    if as_json:
        show_json(_plain_detail(detail))
        return
    for name, text in _facts(detail):
        say(f"{name:>12}  {text}")
    for title, decoded in (("key", detail.key), ("value", detail.value)):
        say(f"\n{title}, {decoded.kind}, {decoded.size_bytes} bytes{', its beginning' if decoded.cut else ''}")
        say(decoded.text)
    headers = _own_headers(detail)
    if headers:
        say("\nheaders")
        show_table(("name", "value"), [(name, _text(value)) for name, value in headers])
    if detail.listed.letter.stacktrace:
        say(f"\nstack trace\n{detail.listed.letter.stacktrace}")


def _facts(detail: Detail) -> Iterable[tuple[str, object]]:
    letter, said, newer = detail.listed.letter, detail.listed.disposition, detail.newer_of_key
    yield "letter", f"{letter.topic} {letter.id}"
    yield "state", f"{detail.listed.state}{_of_disposition(said)}"
    if detail.outcome is not None:
        yield "outcome", detail.outcome
    facts: Iterable[tuple[str, object]] = (
        ("written", moment(letter.written_ms)),
        ("by", letter.family),
        ("origin", letter.origin_topic if letter.origin is None else _place(letter.origin)),
        ("group", letter.group),
        ("handler", letter.handler),
        ("reason", letter.reason),
        ("exception", letter.exception),
        ("message", letter.message),
        ("mistake", letter.fingerprint),
        ("attempts", letter.attempts),
        ("replays", letter.replay_count or None),
        ("parent", letter.parent),
        ("line", ", ".join(map(str, detail.lineage)) or None),
        ("newer", None if newer is None else f"{_place(newer)}, of the same key"),
        ("may go to", ", ".join(detail.targets) or None),
        ("damaged", ", ".join(letter.damaged) or None),
    )
    yield from ((name, text) for name, text in facts if text is not None)


def _of_disposition(said: Disposition | None) -> str:
    if said is None:
        return ""
    parts = [f" by {said.actor} at {moment(said.at_ms)}"]
    if said.target is not None:
        parts.append(f"to {_place(said.target)}")
    if said.assigned_to is not None:
        parts.append(f"assigned to {said.assigned_to}")
    if said.snoozed_until_ms is not None:
        parts.append(f"snoozed until {moment(said.snoozed_until_ms)}")
    parts += [text for text in (said.reason_code, said.note, said.of and f"of {said.of}") if text]
    return ", ".join(parts)


def _place(where: Origin | Target) -> str:
    offset = "" if where.offset is None else f"@{where.offset}"
    return f"{where.topic}[{where.partition}]{offset}"


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    line = " ".join(text.split())
    return line if len(line) <= _CUT_CHARS else line[: _CUT_CHARS - 1] + "…"


def _own_headers(detail: Detail) -> Sequence[tuple[str, Decoded]]:
    """Those that the record had before it failed, as far as people may see them."""
    own = {name for name, _ in detail.listed.letter.own_headers}
    return [(name, value) for name, value in detail.headers if name in own]


def _text(decoded: Decoded) -> str | None:
    """Of a header; None for one that has no value."""
    if decoded.kind == "null":
        return None
    return f"0x{decoded.text.replace(' ', '')}" if decoded.kind == "hex" else decoded.text


def _key(row: Row, shown: Decoded) -> str | None:
    """In one piece; of one that is masked what people may see."""
    return (" ".join(shown.text.split()) or "hidden") if shown.masked else key_text(row.letter.key)


def _plain_row(row: Row, key: str | None) -> dict[str, object]:
    letter = row.letter
    return {
        "letter": str(letter.id),
        "written_ms": letter.written_ms,
        "state": row.state,
        "reason": letter.reason,
        "handler": letter.handler,
        "group": letter.group,
        "origin": None if letter.origin is None else letter.origin._asdict(),
        "key": key,
        "key_hex": None if letter.key is None or key != key_text(letter.key) else letter.key.hex(),
        "size_bytes": letter.size_bytes,
        "exception": letter.exception,
        "message": letter.message,
        "fingerprint": letter.fingerprint,
        "attempts": letter.attempts,
        "replay_count": letter.replay_count,
        "parent": letter.parent,
        "family": letter.family,
        "disposition": _plain_disposition(row.disposition),
    }


def _plain_disposition(said: Disposition | None) -> dict[str, object] | None:
    if said is None:
        return None
    return {name: value for name in said.__struct_fields__ if (value := getattr(said, name)) is not None}


def _plain_group(group: FingerprintGroup) -> dict[str, object]:
    return {
        "fingerprint": group.fingerprint,
        "exception": group.exception,
        "message": group.message,
        "reason": group.reason,
        "handler": group.handler,
        "count": group.count,
        "pending": group.pending,
        "first_ms": group.first_ms,
        "last_ms": group.last_ms,
    }


def _plain_detail(detail: Detail) -> dict[str, object]:
    letter = detail.listed.letter
    return {
        "letter": str(letter.id),
        "topic": letter.topic,
        "state": detail.listed.state,
        "outcome": detail.outcome,
        "family": letter.family,
        "written_ms": letter.written_ms,
        "origin": None if letter.origin is None else letter.origin._asdict(),
        "delivered": None if letter.delivered is None else letter.delivered._asdict(),
        "group": letter.group,
        "handler": letter.handler,
        "reason": letter.reason,
        "exception": letter.exception,
        "message": letter.message,
        "stacktrace": letter.stacktrace,
        "fingerprint": letter.fingerprint,
        "attempts": letter.attempts,
        "attempt_log": [{"at_ms": one.at_ms, "error": one.error} for one in letter.attempt_log],
        "replay_count": letter.replay_count,
        "parent": letter.parent,
        "replay_id": letter.replay_id,
        "lineage": [str(one) for one in detail.lineage],
        "key": _plain_decoded(detail.key),
        "value": _plain_decoded(detail.value),
        "headers": [[name, _text(value)] for name, value in _own_headers(detail)],
        "targets": list(detail.targets),
        "history": [_plain_disposition(one) for one in detail.history],
        "damaged": list(letter.damaged),
    }


def _plain_decoded(decoded: Decoded) -> dict[str, object]:
    return {"kind": decoded.kind, "text": decoded.text, "size_bytes": decoded.size_bytes, "cut": decoded.cut}
