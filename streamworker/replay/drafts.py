"""What would be sent of the letters of a plan, before anything is done: the difference, and what handlers make of it.

Decided here: what people may see of it. Where some of a value is masked, so is the difference, and nothing is quoted.
Blocks for as long as previews take; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs

from streamworker.replay.copies import NotMade
from streamworker.replay.desk import Action, Diff
from streamworker.replay.previews import Tried, decoding, sample_of, steps, try_letters
from streamworker.replay.repair import NotRepaired, diff

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamworker.declaration import Declaration
    from streamworker.replay.copies import Maker
    from streamworker.replay.dead_record import DeadRecord, LetterId
    from streamworker.replay.known_handlers import KnownHandlers
    from streamworker.replay.previews import Sample
    from streamworker.replay.showing import Showing


@dataclass(frozen=True, slots=True)
class Draft:
    """What would be sent of one letter, before its handler is asked. `hidden`: its value is masked for people."""

    diff: Diff
    handler: Declaration | None
    sample: Sample
    decoded: Tried
    hidden: bool

    @property
    def tries(self) -> bool:
        """Whether the handler has a preview that could be asked."""
        return self.handler is not None and self.handler.preview is not None and self.decoded.passed is True

    def with_steps(self, tried: Tried | None) -> Diff:
        """The whole, with what the handler's preview said."""
        return replace(self.diff, steps=steps(self.handler, self.decoded, tried, hidden=self.hidden))


@dataclass(frozen=True, slots=True)
class Drafts:
    """Made with what `handlers` say, for people who see what `showing` shows."""

    handlers: KnownHandlers
    showing: Showing

    def previewed(self, maker: Maker, letters: Iterable[DeadRecord]) -> Sequence[Diff]:
        """Each of these with what was tried; the letters of a handler are tried together."""
        drafts = [self.of(maker, letter) for letter in letters]
        tried: dict[LetterId, Tried] = {}
        for declared in self.handlers:
            theirs = [one for one in drafts if one.handler is declared and one.tries]
            if theirs:
                answers = try_letters(declared, [one.sample for one in theirs])
                tried.update(zip((one.diff.id for one in theirs), answers, strict=True))
        return [one.with_steps(tried.get(one.diff.id)) for one in drafts]

    def of(self, maker: Maker, letter: DeadRecord) -> Draft:
        """That of one letter."""
        form, declared = self.handlers.form(letter), self.handlers.of(letter)
        if letter.value is None and letter.pointer is not None:
            gone = Tried(passed=None, told="not tried: its value was too large for the letter")
            return Draft(Diff(letter.id, (), None), declared, sample_of(letter, None), gone, hidden=False)
        showing = replace(self.showing, max_chars=None)
        hidden = showing.value(letter, form.serde).masked
        try:
            after = maker.repaired(letter)
            changed = structs.replace(letter, value=after)
            hidden = hidden or showing.value(changed, form.serde).masked
            lines: Sequence[str] = ()
            if maker.request.action is Action.REPAIR and hidden:
                lines = diff(*(showing.value(one, form.serde).text for one in (letter, changed)))
            elif maker.request.action is Action.REPAIR:
                lines = diff(form.text(letter.value), form.text(after))
        except (NotMade, NotRepaired) as error:
            told = "it does not fit; why might quote what is masked" if hidden else str(error)
            unfit = Tried(passed=False, told=told)
            return Draft(Diff(letter.id, (), told), declared, sample_of(letter, letter.value), unfit, hidden)
        sample = sample_of(letter, after)
        return Draft(Diff(letter.id, lines, None), declared, sample, decoding(declared, sample), hidden)
