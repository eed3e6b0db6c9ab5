"""Which state may follow which, and what a wrong table or a wrong record is told."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from streamworker.errors import ConfigurationError, PoisonError, TransitionRefused
from streamworker.idempotency import Transitions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ORDERS: Mapping[str, Sequence[str]] = {
    "new": ("paid", "cancelled"),
    "paid": ("shipped", "cancelled"),
    "shipped": (),
    "cancelled": (),
}


def orders(*, repeats: bool = False) -> Transitions:
    return Transitions(ORDERS, start=("new",), repeats=repeats)


@pytest.mark.parametrize(
    ("old", "new"), [(None, "new"), ("new", "paid"), ("new", "cancelled"), ("paid", "shipped"), ("paid", "cancelled")]
)
def test_what_the_table_has_is_allowed(old: str | None, new: str) -> None:
    assert orders().check(old, new)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("new", "shipped", "order 7: it is in state 'new'; expected 'paid' or 'cancelled', got 'shipped'"),
        ("shipped", "paid", "order 7: it is in state 'shipped'; nothing may follow, got 'paid'"),
        (None, "paid", "order 7: it does not exist yet; expected 'new', got 'paid'"),
        ("paid", "paid", "order 7: it is in state 'paid'; expected 'shipped' or 'cancelled', got 'paid'"),
        ("new", "payed", "order 7: there is no state 'payed'; did you mean 'paid'?"),
        ("neu", "paid", "order 7: it is in state 'neu', which is not known; did you mean 'new'?"),
    ],
)
def test_what_it_has_not_is_refused_and_the_record_is_poison(old: str | None, new: str, message: str) -> None:
    with pytest.raises(TransitionRefused) as refused:
        orders().check(old, new, entity="order 7")

    assert str(refused.value) == message
    assert (refused.value.old, refused.value.new) == (old, new)
    assert isinstance(refused.value, PoisonError)


def test_a_repetition_is_nothing_to_do_if_it_is_allowed() -> None:
    table = orders(repeats=True)

    assert not table.check("paid", "paid")
    with pytest.raises(TransitionRefused):
        table.check("paid", "new")
    with pytest.raises(TransitionRefused):
        table.check("gone", "gone")


def test_a_state_that_may_follow_itself_is_a_change_each_time() -> None:
    table = Transitions({"tried": ("tried", "done"), "done": ()}, start=("tried",), repeats=True)

    assert table.check("tried", "tried")


@pytest.mark.parametrize(
    ("table", "start", "message"),
    [
        ({"new": ("payed",), "paid": ()}, ("new",), r"\['new'\]: there is no state 'payed'; did you mean 'paid'\?"),
        ({"new": ()}, ("nwe",), r"start: there is no state 'nwe'; did you mean 'new'\?"),
        ({"new": (), "paid": ()}, ("new",), "nothing leads to paid"),
        ({"new": ()}, (), "start: expected at least one state, got none"),
        ({"new": ()}, "new", r"start: expected a tuple, got a string; write \('new',\)"),
        ({"new": "paid", "paid": ()}, ("new",), r"\['new'\]: expected a tuple, got a string"),
        ({"it's": ()}, ("it's",), "expected a state of A-Z a-z 0-9 _ -, a letter first"),
    ],
)
def test_a_wrong_table_is_refused(table: Mapping[str, Sequence[str]], start: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Transitions(table, start=start)


def test_a_guard_names_the_states_before() -> None:
    table = orders()

    assert table.guard("cancelled") == "status IN ('new', 'paid')"
    assert table.guard("shipped", "orders.state") == "orders.state IN ('paid')"
    assert table.guard("new") == "1 = 0"


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a.b.c", "1a"])
def test_what_is_no_name_gets_into_no_statement(name: str) -> None:
    with pytest.raises(ConfigurationError, match="expected the name of a table or a column"):
        orders().guard("paid", name)
    with pytest.raises(ConfigurationError, match="expected the name of a table or a column"):
        orders().statements(name)
    with pytest.raises(ConfigurationError, match="did you mean 'paid'"):
        orders().guard("payed")


def test_of_two_workers_that_change_one_row_one_changes_it(tmp_path: Path) -> None:
    table = orders()
    with (
        closing(sqlite3.connect(tmp_path / "orders", timeout=0)) as one,
        closing(sqlite3.connect(tmp_path / "orders", timeout=0)) as other,
    ):
        one.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT)")
        one.execute("INSERT INTO orders VALUES (1, 'new')")
        one.commit()
        both_read = [db.execute("SELECT status FROM orders").fetchone()[0] for db in (one, other)]
        changed = []
        for db, new in ((one, "cancelled"), (other, "paid")):
            update = f"UPDATE orders SET status = ? WHERE id = 1 AND {table.guard(new)}"
            changed.append(db.execute(update, (new,)).rowcount)
            db.commit()

        assert both_read == ["new", "new"]
        assert changed == [1, 0]
        assert other.execute("SELECT status FROM orders").fetchone() == ("cancelled",)


def test_of_two_workers_that_write_the_next_row_of_a_history_one_writes_it(tmp_path: Path) -> None:
    insert = "INSERT INTO history (entity, sequence, state) VALUES ('order 7', ?, ?)"
    with closing(sqlite3.connect(tmp_path / "orders")) as db:
        for statement in [*orders().statements("history"), *orders().statements("history")]:
            db.execute(statement)
        db.execute(insert, (1, "new"))
        db.execute(insert, (2, "paid"))

        with pytest.raises(sqlite3.IntegrityError):
            db.execute(insert, (2, "cancelled"))
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(insert, (3, "paid"))


def test_a_state_that_can_come_twice_may_stand_in_the_history_twice() -> None:
    table = Transitions({"open": ("closed",), "closed": ("open",)}, start=("open",))
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in table.statements("history"):
            db.execute(statement)

        for sequence, state in enumerate(["open", "closed", "open"], 1):
            db.execute("INSERT INTO history (entity, sequence, state) VALUES ('x', ?, ?)", (sequence, state))

        assert db.execute("SELECT count(*) FROM history").fetchone() == (3,)
