"""Ends a worker process by SIGKILL at a named point of its work, or stops it, the nth time that it gets there.

The product knows nothing of this: `install` wraps the methods on both sides of each point. Points inside a handler
are in `fleet.apps`, which calls `reached`.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.history import Journal, Struck

from streamworker.dlq.outbox import KafkaOutbox
from streamworker.letters import Letters
from streamworker.processing.pools import Pools
from streamworker.rebalance import Rebalancing
from streamworker.replay.shipments import KafkaSender
from streamworker.replay.shipping import PartitionShipping
from streamworker.settlement import Settlement
from streamworker.source.kafka import KafkaSource
from streamworker.transactions.transactor import KafkaTransactor
from streamworker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "FLEET_CRASH_POINT"


@dataclass(frozen=True, slots=True)
class _Spot:
    """Before or after a method; `when` tells from what it returned whether the point was reached."""

    owner: type
    method: str
    before: bool
    when: Callable[[object], bool] = lambda _returned: True


# In the order in which a record meets them.
METHODS = {
    "in_on_assign": _Spot(Rebalancing, "assigned", before=False, when=bool),
    "after_poll": _Spot(KafkaSource, "fetch", before=False, when=lambda fetched: bool(getattr(fetched, "runs", ()))),
    "before_dispatch": _Spot(Pools, "submit", before=True),
    "after_dispatch": _Spot(Pools, "submit", before=False),
    "after_outcome_before_mark": _Spot(Pools, "collect", before=False, when=bool),
    "after_mark_before_commit": _Spot(Settlement, "settle", before=False),
    "before_commit": _Spot(KafkaSource, "commit", before=True),
    "in_commit_sent": _Spot(KafkaSource, "commit", before=False),
    "after_commit": _Spot(KafkaSource, "_on_commit", before=False),
    "before_dlq_produce": _Spot(KafkaOutbox, "send", before=True),
    "after_dlq_produce_before_ack": _Spot(KafkaOutbox, "send", before=False),
    "after_dlq_ack_before_mark": _Spot(Letters, "_acknowledged", before=True),
    "in_on_revoke_before_commit": _Spot(Rebalancing, "commit", before=True),
    "in_on_revoke_after_commit": _Spot(Rebalancing, "commit", before=False),
    "in_drain": _Spot(Worker, "_commit_last", before=True),
    "in_drain_after_commit": _Spot(Worker, "_commit_last", before=False),
}
# Of a transaction, on the transactor's thread. After the last the coordinator has answered, and the loop does not know.
TRANSACTION = {
    "txn_begun": _Spot(KafkaTransactor, "_produce", before=True),
    "txn_produced": _Spot(KafkaTransactor, "_produce", before=False),
    "txn_offsets_sent": _Spot(KafkaTransactor, "_send_offsets", before=False),
    "txn_committed": _Spot(KafkaTransactor, "_commit", before=False),
}
# Of an operator that sends dead letters again. A sending is one of copies or of marks, which take turns.
SHIPPING = {
    "ship_opening": _Spot(KafkaSender, "open", before=True),
    "ship_opened": _Spot(KafkaSender, "open", before=False),
    "ship_state_read": _Spot(PartitionShipping, "_read_on", before=False),
    "ship_begun": _Spot(KafkaSender, "begin", before=False),
    "ship_sending": _Spot(KafkaSender, "_flush", before=True),
    "ship_sent": _Spot(KafkaSender, "send", before=False),
    "ship_committing": _Spot(KafkaSender, "commit", before=True),
    "ship_committed": _Spot(KafkaSender, "commit", before=False),
}
HANDLER = ("before_handler", "mid_handler", "after_effect_before_mark")

STOPPED = "stopped"  # in the place of a kill: SIGSTOP
_left: dict[str, int] = {}
_stops: set[str] = set()


def install(text: str) -> None:
    """Arm the point `name:nth` (the first time if there is no number); with `:stopped` behind it only stops there."""
    name, _, rest = text.partition(":")
    nth, _, what = rest.partition(":")
    _left[name] = int(nth or 1)
    if what == STOPPED:
        _stops.add(name)
    if name not in HANDLER:
        _wrap(name, {**METHODS, **TRANSACTION, **SHIPPING}[name])


def reached(name: str) -> None:
    """A point is reached; does not return if it is armed and this is its time, unless somebody lets it go on."""
    if name in _left:
        _left[name] -= 1
        if _left[name] == 0 and name in _stops:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif _left[name] == 0:
            Journal(Path(os.environ["FLEET_LEDGER"])).write(Struck("kill", os.getpid(), time.monotonic()))
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # the signal may take a moment


def _wrap(name: str, spot: _Spot) -> None:
    method = getattr(spot.owner, spot.method)

    @wraps(method)
    def wrapped(*args: object, **kwargs: object) -> object:
        if spot.before:
            reached(name)
        returned = method(*args, **kwargs)
        if not spot.before and spot.when(returned):
            reached(name)
        return returned

    setattr(spot.owner, spot.method, wrapped)
