"""A group's offsets that are moved back though a sink has applied what comes again: it is asked what is meant."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fleet.in_process import Running, config
from fleet.stored_once import found, make
from fleet.workers import produce

from streamworker.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.kafka import SharedKafka

APPLICATION = """
from streamworker import Handler, SqliteSink

class Stores(Handler):
    topics = ("{topic}",)
    ordering = "key"
    lanes = {lanes}
    sink = SqliteSink("store", table="once", mode="insert", on_rewind="{on_rewind}")

    def handle(self, record):
        key = None if record.raw_key is None else record.raw_key.decode()
        return {{"part": record.partition, "at": record.offset, "key": key}}
"""
RECORDS = 30


class Shop:
    """An application with a store, whose group has handled all of its topic."""

    def __init__(self, kafka: SharedKafka, folder: Path) -> None:
        self.topic, self.group = kafka.topic("in", partitions=2), kafka.group("rewound")
        self.url = f"sqlite:///{folder / 'store.db'}"
        self._servers, self._folder, self._versions = kafka.bootstrap_servers, folder, 0
        make(self.url)
        produce(self._servers, self.topic, [(f"k{number % 7}", "x") for number in range(RECORDS)], 2)
        self.deploy()
        self.handle_all()

    def deploy(self, *, lanes: int = 4, on_rewind: str = "stop") -> None:
        self._versions += 1
        self.module = f"shop_{self._versions}"
        text = APPLICATION.format(topic=self.topic, lanes=lanes, on_rewind=on_rewind)
        (self._folder / f"{self.module}.py").write_text(text)

    def running(self, *, until_end: bool = False) -> Running:
        handler = importlib.import_module(self.module).Stores
        return Running(config(self._servers, self.group, sinks__store=self.url), handler, until_end=until_end)

    def handle_all(self) -> None:
        with self.running(until_end=True) as worker:
            assert worker.ended() == 0

    def stops(self) -> list[object]:
        """Why both partitions stop when a worker runs."""
        with self.running() as worker:
            worker.wait(lambda: len(worker.recorder.of("stopped")) == 2, "both partitions stop")
            return [reason for _, reason, *_ in worker.recorder.of("stopped")]

    def call(self, *arguments: str) -> str:
        done = CliRunner().invoke(main, [*arguments, "--bootstrap-servers", self._servers, "--yes"])
        assert done.exit_code == 0, done.output
        return done.stdout

    def move_back(self) -> None:
        self.call("offsets", "reset", self.group, "--topic", self.topic, "--to-earliest")

    def effects(self) -> int:
        """How often each record had its effect, the same for all."""
        times = Counter((part, at) for part, at, _ in found(self.url))
        assert len(times) == RECORDS
        (often,) = set(times.values())
        return often


@pytest.fixture
def shop(kafka: SharedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield Shop(kafka, tmp_path)
    for name in [one for one in sys.modules if one.startswith("shop_")]:
        del sys.modules[name]


def test_a_group_that_was_moved_back_stops_until_its_marks_are_reset(shop: Shop) -> None:
    """Also for the next owner, which goes on from what this one has committed: at first it took all for repeats."""
    shop.move_back()

    first, second = shop.stops(), shop.stops()
    once = shop.effects()
    said = shop.call(
        "marks", "reset", f"{shop.module}:Stores", "--group", shop.group, "--set", f"sinks.store={shop.url}"
    )
    shop.handle_all()

    assert first == second == ["foreign_rewind"] * 2
    assert once == 1
    assert said.count("forgotten") == 2
    assert shop.effects() == 2


@pytest.mark.parametrize(("on_rewind", "times"), [("skip", 1), ("apply", 2)])
def test_a_group_that_was_moved_back_goes_on_as_its_sink_says(shop: Shop, on_rewind: str, times: int) -> None:
    shop.move_back()

    shop.deploy(on_rewind=on_rewind, lanes=3)
    shop.handle_all()

    assert shop.effects() == times
