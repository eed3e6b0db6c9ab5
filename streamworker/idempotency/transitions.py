"""Which state may follow which, for handlers that move something through states: an order, a payment.

A state machine is idempotent where a counter is not: what was paid cannot be paid again, so a record that comes twice
changes nothing, and one that comes too early or too late is seen. Pure. That two workers do not both win is up to the
database: a guarded UPDATE (`guard`), or the unique indexes of a history (`statements`).
"""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError, TransitionRefused, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_STATE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")  # nothing that would have to be quoted in SQL
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(?:\.[A-Za-z_][A-Za-z0-9_]{0,62})?")


class Transitions:
    """`table` says for each state which ones may follow, `()` for an end; `start` which ones may come first.

    With `repeats` a state that is reached already may be reached again, and nothing happens then. Each state is a key
    of the table, so a wrong word is found at start. Raises ConfigurationError. Frozen; any thread.
    """

    def __init__(self, table: Mapping[str, Sequence[str]], *, start: Sequence[str], repeats: bool = False) -> None:
        self._table = {state: _names(f"Transitions[{state!r}]", after) for state, after in table.items()}
        self._start = _names("Transitions.start", start)
        self._repeats = repeats
        for state in self._table:
            if not _STATE.fullmatch(state):
                raise ConfigurationError(
                    f"Transitions: expected a state of A-Z a-z 0-9 _ -, a letter first, got {state!r}"
                )
        self._refuse_unknown("Transitions.start", self._start)
        for state, after in self._table.items():
            self._refuse_unknown(f"Transitions[{state!r}]", after)
        if not self._start:
            raise ConfigurationError("Transitions.start: expected at least one state, got none")
        if unreached := self._table.keys() - self._reached():
            raise ConfigurationError(f"Transitions: nothing leads to {', '.join(sorted(unreached))}")

    def check(self, old: str | None, new: str, *, entity: object = None) -> bool:
        """Whether something is to be done to go from `old`, None for what is not there yet, to `new`.

        False for a repetition. Raises TransitionRefused, which names `entity`, if it may not be. That goes for a state
        that is not in the table, too: the record, or what was stored, is of another version.
        """
        allowed = self._start if old is None else self._table.get(old, ())
        if new in allowed:
            return True
        if self._repeats and old == new and new in self._table:
            return False
        raise TransitionRefused(self._refusal(old, new, allowed, entity), old=old, new=new)

    def predecessors(self, new: str) -> Sequence[str]:
        """From which states `new` may be reached, sorted."""
        return sorted(state for state, after in self._table.items() if new in after)

    def guard(self, new: str, column: str = "status") -> str:
        """The condition of an UPDATE that goes to `new`: `status IN ('new', 'paid')`, false if nothing leads there.

        UPDATE orders SET status = 'paid' WHERE id = … AND (the guard)

        If it changes no row, read the row and `check` it: a repetition is fine, and anything else is refused.
        """
        self._refuse_unknown("Transitions.guard", (new,))
        _refuse_name("Transitions.guard", column)
        states = ", ".join(f"'{state}'" for state in self.predecessors(new))
        return f"{column} IN ({states})" if states else "1 = 0"

    def statements(self, table: str) -> Sequence[str]:
        """What makes the table of a history, a row for each state that something came to; it is there or will be.

        `sequence` counts the rows of an entity from 1, and is unique: of two workers that both write the next row
        one fails. If no state can come twice, the state is unique as well, so a repetition cannot be stored. Standard
        SQL, as PostgreSQL and SQLite read it.
        """
        _refuse_name("Transitions.statements", table)
        history = (
            f"CREATE TABLE IF NOT EXISTS {table} (entity VARCHAR(255) NOT NULL, sequence BIGINT NOT NULL,"
            f" state VARCHAR(64) NOT NULL, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,"
            f" PRIMARY KEY (entity, sequence))"
        )
        index = f"{table.rpartition('.')[2]}_once"
        once = f"CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {table} (entity, state)"
        return (history,) if self._returns() else (history, once)

    def _refuse_unknown(self, where: str, states: Collection[str]) -> None:
        for state in states:
            if state not in self._table:
                raise ConfigurationError(f"{where}: there is no state {state!r}; {nearest(state, self._table)}")

    def _reached(self) -> set[str]:
        reached, waiting = set(self._start), list(self._start)
        while waiting:
            fresh = set(self._table[waiting.pop()]) - reached
            reached |= fresh
            waiting += fresh
        return reached

    def _returns(self) -> bool:
        """Whether a state can come twice."""
        try:
            TopologicalSorter(self._table).prepare()
        except CycleError:
            return True
        return False

    def _refusal(self, old: str | None, new: str, allowed: Sequence[str], entity: object) -> str:
        about = "" if entity is None else f"{entity}: "
        if new not in self._table:
            return f"{about}there is no state {new!r}; {nearest(new, self._table)}"
        if old is not None and old not in self._table:
            return f"{about}it is in state {old!r}, which is not known; {nearest(old, self._table)}"
        where = "does not exist yet" if old is None else f"is in state {old!r}"
        expected = f"expected {' or '.join(map(repr, allowed))}" if allowed else "nothing may follow"
        return f"{about}it {where}; {expected}, got {new!r}"


def _names(where: str, states: Sequence[str]) -> Sequence[str]:
    if isinstance(states, str):
        raise ConfigurationError(f"{where}: expected a tuple, got a string; write ({states!r},)")
    return tuple(states)


def _refuse_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{where}: expected the name of a table or a column, got {name!r}")
