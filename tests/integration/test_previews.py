"""What a handler would make of a letter is tried in a process that can do no harm."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import preview_handlers as handlers

from streamworker.declaration import declaration
from streamworker.replay.previews import Job, Sample, try_letters

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LONG_S = 60.0  # on a machine that is busy with other tests


def sample(id_: str = "o-1", value: bytes | None = None, offset: int = 3) -> Sample:
    """An order."""
    return Sample(
        topic="orders",
        partition=0,
        offset=offset,
        key=None,
        value=value or msgspec.json.encode({"id": id_, "cents": 120}),
        headers=[("trace", b"\xff")],
        timestamp_ms=None,
    )


def test_a_preview_says_what_its_handler_would_do_with_each_letter() -> None:
    first, second = try_letters(declaration(handlers.Tells), [sample(), sample("o-2", offset=4)], timeout_s=LONG_S)

    assert (first.passed, first.told, first.shown) == (True, "it says", "charge 120 for o-1 from orders@3")
    assert second.shown == "charge 120 for o-2 from orders@4"


def test_an_error_of_a_preview_is_said() -> None:
    (found,) = try_letters(declaration(handlers.Raises), [sample()], timeout_s=LONG_S)

    assert (found.passed, found.told, found.shown) == (False, "it raised ValueError", "no such order: o-1")


def test_a_preview_that_loops_is_killed_after_its_time_and_the_letters_behind_it_are_not_tried() -> None:
    began_s = time.monotonic()

    looped, behind = try_letters(declaration(handlers.Loops), [sample("loop"), sample()], timeout_s=3)

    assert (looped.passed, looped.told) == (False, "it did not end within 3 s")
    assert behind.passed is None
    assert time.monotonic() - began_s < LONG_S


def test_a_preview_that_takes_too_much_memory_is_ended() -> None:
    (found,) = try_letters(declaration(handlers.Allocates), [sample()], timeout_s=LONG_S)

    assert (found.passed, found.told) == (False, "it raised MemoryError")


def test_a_preview_that_ends_its_process_has_failed() -> None:
    (found,) = try_letters(declaration(handlers.Exits), [sample("exit")], timeout_s=LONG_S)

    assert (found.passed, found.told) == (False, "it ended its process (exit code 7)")


def test_a_preview_does_not_see_the_environment_of_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMWORKER_KAFKA__SASL_PASSWORD", "hunter2")

    (found,) = try_letters(declaration(handlers.Snoops), [sample()], timeout_s=LONG_S)

    assert found.passed
    assert set(found.shown.split(",")) <= {"PATH", "PYTHONPATH", "LANG", "LC_CTYPE", "MALLOC_ARENA_MAX"}


def test_a_handler_with_a_sink_and_a_cache_is_called_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    (found,) = try_letters(declaration(handlers.Stores), [sample()], timeout_s=LONG_S)
    (many,) = try_letters(declaration(handlers.StoresMany), [sample()], timeout_s=LONG_S)

    assert (found.told, found.shown) == (
        "it would write to ledger",
        "{'id': 'o-1', 'cents': 120}; in its caches it would put 'o-1'",
    )
    assert (many.told, many.shown) == ("it would write to ledger", "[120]")
    assert list(tmp_path.iterdir()) == []


def test_a_handler_is_not_given_the_url_of_a_sink() -> None:
    (found,) = try_letters(declaration(handlers.Connects), [sample()], timeout_s=LONG_S)

    assert (found.passed, found.told) == (False, "it raised ConfigurationError")
    assert "the table is empty" in found.shown


def test_a_job_has_nothing_of_the_configuration() -> None:
    assert set(Job.__struct_fields__) == {"module", "qualified_name", "samples", "timeout_s", "memory_bytes"}
