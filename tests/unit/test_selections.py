"""Which letters a command is about, as its arguments say."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from click.testing import CliRunner

from streamworker.cli.dlq import dlq
from streamworker.cli.selections import Selection
from streamworker.errors import ConfigurationError
from streamworker.replay.desk import Action
from streamworker.replay.filters import parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.cli.desks import DeskOptions
    from streamworker.replay.desk import Desk
    from streamworker.replay.filters import Filter


class Asked:
    """A desk that only reads filters."""

    def filter_of(self, text: str) -> Filter:
        return parse(text, 0)


DESK = cast("Desk", Asked())


def selection(words: Sequence[str] = (), *, everything: bool = False) -> Selection:
    return Selection(
        cast("DeskOptions", None), "orders.dlq", words, (), everything, plan_id=None, yes=True, as_json=False
    )


@pytest.mark.parametrize("words", [(), ("",), ("", " \t")])
def test_a_filter_that_says_nothing_does_not_choose_all_letters(words: Sequence[str]) -> None:
    """For instance that of a variable of the shell that is not set."""
    with pytest.raises(ConfigurationError, match="say which letters"):
        selection(words).request(DESK, Action.DISCARD)


def test_all_letters_are_chosen_by_an_option_of_its_own() -> None:
    request = selection(everything=True).request(DESK, Action.DISCARD)

    assert (request.filter, request.ids) == (parse("", 0), ())


@pytest.mark.parametrize("option", ["--rate=nan", "--rate=inf", "--byte-rate=nan", "--rate=0"])
@pytest.mark.parametrize("command", [["replay", "orders.dlq", "--all"], ["resume", "8c1fa2b04d11"]])
def test_a_pace_is_a_number_that_something_can_be_sent_at(command: list[str], option: str) -> None:
    result = CliRunner().invoke(dlq, [*command, option])

    assert result.exit_code == 2
    assert "Invalid value for" in result.output
