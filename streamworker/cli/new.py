"""`streamworker new`: a small project that works, to change from there."""

from __future__ import annotations

import re
from pathlib import Path

import click

from streamworker.cli.console_output import say
from streamworker.cli.options import examples
from streamworker.errors import ConfigurationError

_FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "NAME"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["streamworker"]

[project.optional-dependencies]
test = ["pytest>=8"]

[tool.hatch.build.targets.wheel]
packages = ["app"]

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
""",
    "streamworker.toml": """\
[kafka]
bootstrap_servers = "localhost:9092"
group = "NAME"

[app]
greeting = "stored"
""",
    "app/__init__.py": "",
    "app/handlers.py": '''\
"""What NAME does with its records."""

from __future__ import annotations

import logging

import msgspec

from streamworker import BatchFailed, BatchHandler, Context, DeadLetter, Json, Ordering, PoisonError, Records, Retry

log = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True):
    order_id: str
    customer: str
    cents: int


class StoreOrders(BatchHandler[Order]):
    """One order after the other per customer, many customers at once."""

    topics = ("orders",)
    value = Json(Order)
    ordering = Ordering.KEY
    retry = Retry(attempts=4, base_s=0.1, cap_s=2.0)
    dead_letter = DeadLetter("orders.dlq")

    def open(self, context: Context) -> None:
        self.greeting = context.app.get("greeting", "stored")

    def handle(self, records: Records[Order]) -> None:
        for index, order in enumerate(records.values()):
            if order.cents < 0:
                raise BatchFailed(index, PoisonError(f"order {order.order_id} costs {order.cents}"))
            log.info("%s %s for %s", self.greeting, order.order_id, order.customer)
''',
    "tests/test_handlers.py": """\
from streamworker.testing import TestRecord, run_handler

from app.handlers import StoreOrders


def order(number, cents):
    return TestRecord({"order_id": number, "customer": "ann", "cents": cents}, key="ann")


def test_orders_are_stored():
    run = run_handler(StoreOrders, [order("1", 250), order("2", 100)])

    assert run.handled == [0, 1]


def test_an_order_that_costs_less_than_nothing_is_dead_lettered_and_the_next_goes_on():
    run = run_handler(StoreOrders, [order("1", -1), order("2", 100)])

    assert [letter.reason for letter in run.dead_letters] == ["poison"]
    assert run.handled == [1]
""",
}


@click.command(epilog=examples("streamworker new shop"))
@click.argument("name")
def new(name: str) -> None:
    """Write a small project called NAME into a folder of that name."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise ConfigurationError(f"{name!r}: expected small letters, digits, - and _, beginning with a letter")
    root = Path(name)
    if root.exists():
        raise ConfigurationError(f"{root} exists already; choose another name or remove it")
    for path, content in _FILES.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content.replace("NAME", name), encoding="utf-8")
    say(
        f"{name}/ is written. Next:\n"
        f"  cd {name}\n"
        f"  streamworker topics create app.handlers:StoreOrders --dry-run\n"
        f"  streamworker check app.handlers:StoreOrders\n"
        f"  streamworker run app.handlers:StoreOrders"
    )
