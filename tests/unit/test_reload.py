"""The configuration read again: what is taken, what is said, and what a wrong one does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from streamworker.cli.reload import Reload
from streamworker.cli.settings import load
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from streamworker.cli.settings import Settings


class Bench:
    """A file, and what was put in force of it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "streamworker.toml"
        self.file.write_text("[kafka]\ngroup = 'g'")
        self.switched: list[Mapping[str, str]] = []
        self.refuses = False
        self.reload = Reload(self._load, self._load(), self._switch)

    def _load(self) -> Settings:
        return load(files=[self.file], environ={}, overrides=[])

    def _switch(self, degradation: Mapping[str, str]) -> None:
        if self.refuses:
            raise ConfigurationError("degradation.place: no handler has such a read")
        self.switched.append(degradation)

    def hang_up(self, text: str) -> None:
        self.file.write_text(text)
        self.reload.ask()
        self.reload()


@pytest.fixture
def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO)
    return Bench(tmp_path)


def test_nothing_is_read_unless_it_was_asked_for(bench: Bench) -> None:
    bench.file.unlink()

    bench.reload()

    assert bench.switched == []


def test_what_may_change_is_put_in_force_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.hang_up("[kafka]\ngroup = 'g'\n[degradation]\nplace = 'skip'")
    bench.reload()

    assert bench.switched == [{"place": "skip"}]
    assert [record.getMessage() for record in caplog.records] == ["configuration read again"]


def test_what_needs_a_restart_is_named_without_its_value(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.hang_up("[kafka]\ngroup = 'other'\n[app]\ntoken = 'secret'\n[flow]\nmax_slice = 7")

    assert bench.switched == [{}]
    assert "need a restart: app.token, flow.max_slice, kafka.group" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("text", ["not toml", "[kafka]\ngruop = 'g'", "[degradation]\nplace = 'skp'"])
def test_a_wrong_file_changes_nothing_and_is_complained_of(
    bench: Bench, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.hang_up(text)

    assert bench.switched == []
    assert "the one before stays in force: " in caplog.text


def test_a_read_that_no_handler_declares_is_complained_of(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.refuses = True

    bench.hang_up("[degradation]\nplace = 'skip'")

    assert "the one before stays in force: degradation.place: no handler has such a read" in caplog.text


def test_a_file_that_is_mended_is_taken(bench: Bench) -> None:
    bench.hang_up("not toml")

    bench.hang_up("[degradation]\nplace = 'skip'")

    assert bench.switched == [{"place": "skip"}]
