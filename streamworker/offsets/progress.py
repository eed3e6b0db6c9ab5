"""What is known of a partition beside the offset that may be committed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Suspect:
    """Records, from offset `first` to `last`, during which the process died `deaths` times."""

    first: int
    last: int
    deaths: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What one ownership has done of a partition: everything below `offset`, and beyond it the ranges of `done`.

    `done` has (first, last) in ascending order. `attempts` has how many calls were spent, by the offset of a record
    that is not done. `running` until the partition was given back in order. `owner` names the process, `topic_id` tells
    the topic from another of its name. So many owners died, up to this one, before anything was delivered: `unread`.
    With `untold` a cache may have something out of date that the owner has written and could not tell it.
    `rewound` says that a sink has refused what comes again, and nobody has said yet what is meant.
    """

    offset: int
    done: Sequence[tuple[int, int]] = ()
    attempts: Mapping[int, int] = field(default_factory=dict)
    running: bool = False
    suspect: Suspect | None = None
    owner: str = ""
    topic_id: str = ""
    unread: int = 0
    untold: bool = False
    rewound: bool = False
