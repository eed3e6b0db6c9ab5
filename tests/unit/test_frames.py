"""Where an error was raised, in one line: the innermost frame of the user's code."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING

import msgspec
import pytest

from streamworker import BatchFailed, DecodeError, Json
from streamworker.frames import where_raised
from streamworker.observability.redaction import safe_value
from streamworker.processing.portable_errors import PortableError

if TYPE_CHECKING:
    from collections.abc import Callable


def helper() -> None:
    raise KeyError("customer 4711")


def through_the_standard_library() -> None:
    json.loads("{")


def through_site_packages() -> None:
    msgspec.json.decode(b"{")


def from_installed_code() -> None:
    """Code as it would be if the application itself was installed."""
    scope: dict[str, Callable[[], None]] = {}
    program = "def handle():\n    raise ValueError"
    exec(compile(program, "/lib/python3/site-packages/shop/orders.py", "exec"), scope)
    scope["handle"]()


def caught(call: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as found:  # noqa: PT011 - whatever it raises
        call()
    return found.value


def line_of(function: Callable[[], None], lines: int = 1) -> int:
    return function.__code__.co_firstlineno + lines


def test_it_is_file_line_and_function_of_the_innermost_frame() -> None:
    assert where_raised(caught(helper)) == f"test_frames.py:{line_of(helper)} in helper"


@pytest.mark.parametrize("call", [through_the_standard_library, through_site_packages])
def test_frames_of_libraries_are_passed_over(call: Callable[[], None]) -> None:
    assert where_raised(caught(call)) == f"test_frames.py:{line_of(call)} in {call.__name__}"


def innermost_only(error: BaseException) -> BaseException:
    """Without the frames of this file, which has called."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return error.with_traceback(traceback)


def test_installed_code_is_named_where_there_is_no_other() -> None:
    assert where_raised(innermost_only(caught(from_installed_code))) == "orders.py:2 in handle"


def test_a_frame_of_streamworker_is_named_where_there_is_no_other() -> None:
    error = innermost_only(caught(lambda: Json(int).decode(b"{", "in")))
    error.__cause__ = None
    assert isinstance(error, DecodeError)

    assert str(where_raised(error)).startswith("json.py:")


def test_a_cause_is_asked_where_the_error_itself_was_raised_by_nobody_else() -> None:
    error = BatchFailed(0, KeyError())
    error.__cause__ = caught(helper)

    assert where_raised(error) == f"test_frames.py:{line_of(helper)} in helper"


def test_an_error_that_was_never_raised_has_no_place() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first

    assert where_raised(first) is None


def test_the_place_survives_the_way_from_a_child_process() -> None:
    error = pickle.loads(pickle.dumps(PortableError.of(caught(helper)))).error()

    assert where_raised(error) == f"test_frames.py:{line_of(helper)} in helper"


@pytest.mark.parametrize("name", ["token", "credentials", "password", "api_key"])
def test_the_name_of_a_file_is_not_taken_for_a_secrets(name: str) -> None:
    place = f"{name}.py:27 in helper"

    assert safe_value("at", place) == place
    assert safe_value("at", f"{name}.py:27 {name}: hunter2") == f"{name}.py:[hidden] {name}: [hidden]"
