"""The formula that combines triggers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.autoscaling.formula import Formula
from streamworker.autoscaling.policy import TRIGGERS, Autoscaling
from streamworker.errors import ConfigurationError

VALUES = {"lag": 7.0, "pods": 3.0, "sink_open": 0.0, "busy": 0.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lag", 7),
        ("lag + 2 * pods", 13),
        ("(lag + 2) * pods", 27),
        ("lag - 2 - 1", 4),
        ("12 / 3 / 2", 2),
        ("7 % 4", 3),
        ("-lag + 10", 3),
        ("1.5e2", 150),
        (".5 * 4", 2),
        ("lag > 5 ? 1 : 2", 1),
        ("lag > 5 and pods > 5 ? 1 : 2", 2),
        ("lag > 5 || pods > 5 ? 1 : 2", 1),
        ("!(lag > 5) ? 1 : 2", 2),
        ("not (lag > 5) ? 1 : 2", 2),
        ("lag == 7 && pods != 7", 1),
        ("lag < 5 ? 1 : pods < 5 ? 2 : 3", 2),
        ("max(lag, pods, 2)", 7),
        ("min(lag, pods)", 3),
        ("ceil(lag / 2) + floor(lag / 2) + round(2.5) + abs(-1)", 11),
        ("true ? 1 : 0", 1),
    ],
)
def test_a_formula_means_what_it_says(text: str, value: float) -> None:
    assert Formula.of(text, TRIGGERS).value(VALUES) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lagg + 1", "there is no trigger 'lagg'; did you mean 'lag'\\?"),
        ("maxx(1, 2)", "there is no function 'maxx' here; did you mean 'max'\\?"),
        ("lag +", "it ends too early"),
        ("lag 2", "expected its end or an operator, got '2'"),
        ("(lag", "expected '\\)' at its end"),
        ("lag ? 1", "expected ':' at its end"),
        ("lag # 1", "'#' is not of its language"),
        ("lag * * 2", "expected a number or a trigger, got '\\*'"),
        ("abs(1, 2)", "abs takes one number, got 2"),
        ("", "it ends too early"),
        ("(" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_formula_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Formula.of(text, TRIGGERS)


def test_what_comes_to_no_number_is_none() -> None:
    assert Formula.of("lag / sink_open", TRIGGERS).value(VALUES) is None


def test_it_is_known_which_triggers_it_uses() -> None:
    assert Formula.of("sink_open > 0 ? pods : lag", TRIGGERS).names == {"sink_open", "pods", "lag"}


@given(st.integers(0, 10**7), st.integers(1, 50), st.sampled_from([0.0, 0.4, 0.5, 1.0]), st.floats(0, 1))
def test_the_hold_asks_for_what_there_is_while_the_sink_is_away_and_for_the_lag_otherwise(
    lag: int, pods: int, sink_open: float, busy: float
) -> None:
    formula = Autoscaling(hold=True).compiled()
    assert formula is not None

    value = formula.value({"lag": lag, "pods": pods, "sink_open": sink_open, "busy": busy})

    assert value == (pods * 10_000 if sink_open >= 0.5 else lag)


def test_a_hold_has_the_trigger_of_busy_in_its_formula_since_it_takes_the_place_of_all() -> None:
    formula = Autoscaling(hold=True, busy=0.7).compiled()
    assert formula is not None

    assert formula.value({"lag": 5_000, "pods": 4, "sink_open": 0, "busy": 0.7}) == pytest.approx(40_000)
    assert formula.value({"lag": 90_000, "pods": 4, "sink_open": 0, "busy": 0.7}) == 90_000
