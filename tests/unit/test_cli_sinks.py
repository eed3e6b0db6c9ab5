"""`streamworker sinks` and `marks`, over SQLite."""

from __future__ import annotations

import itertools
import json
import re
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from servers.stores import COLUMNS, Process, order, place, row, sqlite_store

from streamworker import SqliteSink
from streamworker.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result
    from servers.stores import Store

_numbers = itertools.count()

SINK = "SqliteSink('store', table='orders', key=('id',){options})"
MODULE = """
from streamworker import Handler
from streamworker import SqliteSink


class StoreOrders(Handler[bytes]):
    topics = ("orders",)
    ordering = "{ordering}"
    sink = {sink}

    def handle(self, record):
        pass
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Commands look at the current directory, and modules stay imported, so each has a name of its own."""
    monkeypatch.chdir(tmp_path)
    store = sqlite_store(tmp_path)
    (tmp_path / "streamworker.toml").write_text(f'[kafka]\ngroup = "shop"\n[sinks]\nstore = "{store.url}"\n')
    return store


def declare(options: str = "", *, ordering: str = "partition", sink: str = SINK) -> str:
    """A module with a handler in the current directory; its name for the command line."""
    name = f"handlers_{next(_numbers)}"
    text = MODULE.format(ordering=ordering, sink=sink.format(options=options))
    with open(f"{name}.py", "w", encoding="utf-8") as file:  # noqa: PTH123 - the current directory
        file.write(text)
    return f"{name}:StoreOrders"


def streamworker(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("command", ["sinks create", "sinks check", "marks show", "marks reset"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = streamworker(*command.split(), "--help")

    assert result.exit_code == 0
    assert re.search(rf"Examples:\n(.*\n)*? *\S*streamworker {command}", result.output)


def test_what_is_made_is_printed_and_then_nothing_is_lacking(store: Store) -> None:
    handler = declare(f", columns={COLUMNS!r}, version=True")

    lacking = streamworker("sinks", "check", handler)
    dry = streamworker("sinks", "create", handler, "--dry-run")
    still = streamworker("sinks", "check", handler)
    made = streamworker("sinks", "create", handler)
    again = streamworker("sinks", "create", handler)
    check = streamworker("sinks", "check", handler)

    assert (lacking.exit_code, still.exit_code, lacking.output) == (2, 2, still.output)
    assert re.search(r"StoreOrders +store +table sw_applied +made by: streamworker sinks create", lacking.output)
    assert dry.output == made.output
    assert re.findall(r"CREATE TABLE IF NOT EXISTS (\S+)", made.output) == ["sw_applied", '"orders"']
    assert (made.exit_code, again.exit_code, again.output) == (0, 0, "")
    assert (check.exit_code, check.output) == (0, "nothing is lacking\n")


def test_a_table_that_is_not_declared_is_the_users_to_make(store: Store) -> None:
    handler = declare()

    made = streamworker("sinks", "create", handler)
    check = streamworker("sinks", "check", handler, "--json")

    assert made.exit_code == 2
    assert "StoreOrders: store has no table orders; make it yourself" in made.stderr
    assert "sw_applied" in made.stdout
    assert json.loads(check.output) == [
        {"handler": "StoreOrders", "sink": "store", "lacking": "table orders", "mend": None}
    ]


def test_marks_need_an_ordering(store: Store) -> None:
    handler = declare(f", columns={COLUMNS!r}", ordering="unordered")
    streamworker("sinks", "create", handler)

    check = streamworker("sinks", "check", handler)

    assert check.exit_code == 2
    assert "an ordering: marks follow it; use guard='row'" in check.output


@pytest.mark.parametrize(
    ("sink", "arguments", "message"),
    [
        ("None", [], "StoreOrders declares no sink"),
        (
            "SqliteSink('stor', table='orders', key=('id',))",
            [],
            "no URL for 'stor', which StoreOrders writes to; did you",
        ),
        (
            "SqliteSink('store', table='orders', key=('id',))",
            ["--set", "sinks.store=oracle://x"],
            "expected sqlite:///",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_said(store: Store, sink: str, arguments: list[str], message: str) -> None:
    result = streamworker("sinks", "check", declare(sink=sink), *arguments)

    assert result.exit_code == 2
    assert message in result.stderr


def test_what_the_database_says_is_an_error_without_a_traceback(store: Store) -> None:
    result = streamworker("sinks", "check", declare(), "--set", "sinks.store=sqlite:////nowhere/at/all.db")

    assert result.exit_code == 1
    assert "Error: sinks.store: unable to open database file" in result.stderr


def applied(store: Store) -> None:
    """Two partitions with marks, one of which has an open record."""
    sink = SqliteSink("store", table="orders", key=("id",), columns=COLUMNS)
    sink.make(store.url, sink.statements())
    with closing(sink.writer(Process(store.url))) as writer:
        writer.write(place(open_below=(5,)), [row(4, order(4, 1)), row(6, order(6, 1))])
        other = place().partition._replace(partition=1)
        writer.write(place("other", partition=other), [row(8, order(8, 1))])


def test_marks_are_shown(store: Store) -> None:
    applied(store)
    handler = declare()

    shown = streamworker("marks", "show", handler)
    one = json.loads(streamworker("marks", "show", handler, "--partition", "3", "--json").output)

    assert re.search(r"orders +3 +0 +1 +7 +1 +1 +first", shown.output)
    assert re.search(r"orders +1 +0 +1 +9 +0 +1 +other", shown.output)
    assert [(mark["partition"], mark["next_offset"], mark["open"]) for mark in one] == [(3, 7, [5])]


def test_resetting_marks_is_dry_by_default(store: Store) -> None:
    applied(store)
    handler = declare()

    dry = streamworker("marks", "reset", handler, "--partition", "3")
    before = streamworker("marks", "show", handler, "--json").output
    done = streamworker("marks", "reset", handler, "--partition", "3", "--yes")
    after = json.loads(streamworker("marks", "show", handler, "--json").output)

    assert "orders[3]: applied up to 7, would be forgotten" in dry.stdout
    assert "nothing was changed; add --yes to do it" in dry.stderr
    assert len(json.loads(before)) == 2
    assert "orders[3]: applied up to 7, forgotten" in done.stdout
    assert [mark["partition"] for mark in after] == [1]


def test_where_there_are_no_marks_it_is_said(store: Store) -> None:
    applied(store)
    handler = declare()

    for command in ("show", "reset"):
        result = streamworker("marks", command, handler, "--group", "nobody")

        assert result.exit_code == 0
        assert "store has no marks of it" in result.stderr


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ("", ["--set", "kafka.group="], "kafka.group"),
        (", guard='row'", [], "StoreOrders: its sink keeps no marks (guard='row')"),
    ],
)
def test_marks_need_a_group_and_a_sink_that_keeps_them(
    store: Store, options: str, arguments: list[str], message: str
) -> None:
    result = streamworker("marks", "show", declare(options), *arguments)

    assert result.exit_code == 2
    assert message in result.stderr
