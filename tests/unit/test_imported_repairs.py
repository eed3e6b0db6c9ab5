"""What was edited in a file is what is sent, if the handler can take it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from dead_letters import TOPIC, letter

from streamworker.record import Origin
from streamworker.replay.copies import Maker, NotMade
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Request
from streamworker.replay.exports import Exporter, import_lines
from streamworker.replay.repair import ValueForm
from streamworker.replay.showing import Showing
from streamworker.replay.states import State
from streamworker.replay.targets import Targets
from streamworker.serde.json import Json

if TYPE_CHECKING:
    from streamworker.replay.dead_record import DeadRecord
    from streamworker.replay.exports import Imported


class Order(msgspec.Struct):
    qty: int


FAILED = letter(0, 7, key=b"k", value=b'{"qty": "a"}', group="shop", origin=Origin("orders", 0, 7))


def edited(text: str) -> Imported:
    exporter = Exporter(Showing(max_chars=None), lambda _: None, as_text=True)
    line = json.loads(exporter.line(FAILED, State.PENDING))
    return import_lines([json.dumps({**line, "text": text}).encode()], TOPIC)


def maker(imported: Imported) -> Maker:
    return Maker(
        request=Request(topic=TOPIC, action=Action.REPAIR, ids=imported.ids, function=imported.name),
        op_id="op",
        actor="anna",
        topic_id=None,
        targets=Targets({"orders": 1, "orders.replay.shop": 1}, groups=["shop"]),
        key=None,
        form=lambda _: ValueForm("orders", Json(Order)),
        repairs={imported.name: imported},
    )


def test_the_edited_value_is_sent_byte_for_byte_and_the_letter_is_repaired() -> None:
    made = maker(edited('{"qty":   1}')).make(FAILED, 0)

    assert made.copy is not None
    assert (made.copy.topic, made.copy.value) == ("orders.replay.shop", b'{"qty":   1}')
    assert made.disposition.state is State.REPAIRED


@pytest.mark.parametrize(
    ("text", "of", "why"),
    [
        ('{"qty": "b"}', FAILED, "it does not fit"),
        ('{"qty": 1}', letter(0, 7, value=b"another", group="shop"), "another SHA-256"),
        ('{"qty": 1}', letter(0, 8, value=FAILED.value, group="shop"), "no value for it"),
    ],
)
def test_what_does_not_fit_or_is_of_another_letter_is_not_sent(text: str, of: DeadRecord, why: str) -> None:
    with pytest.raises(NotMade, match=why):
        maker(edited(text)).make(of, 0)


def test_the_letters_of_a_plan_are_those_that_were_edited() -> None:
    assert edited('{"qty": 1}').ids == [LetterId(0, 7)]
