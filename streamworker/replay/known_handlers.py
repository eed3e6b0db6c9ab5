"""The handlers that a desk was told of: which of them a letter is for, and so how its key and value are read.

Any thread; a serde that asks a registry may block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.replay.repair import NotRepaired, ValueForm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamworker.declaration import Declaration
    from streamworker.interfaces import AnySerde
    from streamworker.replay.dead_record import DeadRecord


@dataclass(frozen=True, slots=True)
class KnownHandlers:
    """In the order in which they were named."""

    declared: Sequence[Declaration] = ()

    def __iter__(self) -> Iterator[Declaration]:
        return iter(self.declared)

    def of(self, letter: DeadRecord) -> Declaration | None:
        """The one that the letter names, or that reads its topic; None if it is not known here."""
        topic = letter.origin_topic
        for one in self.declared:
            if topic is not None and one.subscribes_to(topic) and letter.handler in (None, one.name):
                return one
        return None

    def value_serde(self, letter: DeadRecord) -> AnySerde | None:
        """How values are read; None where that is not known, or bytes stay bytes."""
        declared = self.of(letter)
        return None if declared is None else declared.value

    def key_serde(self, letter: DeadRecord) -> AnySerde | None:
        """How keys are read, likewise."""
        declared = self.of(letter)
        return None if declared is None else declared.key

    def form(self, letter: DeadRecord) -> ValueForm:
        """How its value is edited."""
        origin = letter.origin.topic if letter.origin is not None else letter.topic
        return ValueForm(origin, self.value_serde(letter))

    def can_edit(self, letter: DeadRecord) -> bool:
        """Whether its value can be edited as text."""
        try:
            self.form(letter).text(letter.value)
        except NotRepaired:
            return False
        return True
