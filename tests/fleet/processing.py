"""The process of a command that handles all pending dead letters of a topic with a handler of `fleet.once`.

`python -m fleet.processing SERVERS GROUP DEAD_LETTERS PARTITIONS AUDIT STORE`; it says at the end what became of them.
"""

from __future__ import annotations

import sys

from fleet.in_process import config
from fleet.letter_states import TIMEOUT_S, states
from fleet.once import StoreOnceInSqlite

from streamworker.cli.options import connect
from streamworker.cli.signals import stop_on_signals
from streamworker.clock import SystemClock
from streamworker.declaration import declaration
from streamworker.replay.desk import Actor, Role
from streamworker.replay.kafka_process import Work, kafka_process
from streamworker.replay.states import State


def main(servers: str, group: str, dead_letters: str, partitions: str, audit: str, store: str) -> int:
    ledger = f"{store.removeprefix('sqlite:///')}.ledger"
    settings = config(servers, group, sinks__store=store, app__ledger=ledger, app__work_s=0.002)
    said = states(settings, dead_letters, int(partitions))
    pending = [letter for letter, state in said.items() if state is State.PENDING]
    work = Work(
        topic=dead_letters, ids=pending, op_id="op", actor=Actor("me", Role.ADMIN, "cli", verified=False), detail={}
    )
    with kafka_process(
        settings,
        declaration(StoreOnceInSqlite),
        work,
        cluster=connect(settings.kafka),
        clock=SystemClock(),
        audit_key=None,
        timeout_s=TIMEOUT_S,
        tell=print,
        progress=lambda _done: None,
        audit_topic=audit,
    ) as process:
        stop_on_signals(process.stop)
        code = process.run()
    print(process.account)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
