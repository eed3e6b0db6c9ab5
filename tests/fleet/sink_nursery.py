"""`python sink_nursery.py URL`: for each order on standard input, a process that writes a stream and may kill itself.

An order is a line of JSON: owner, lanes, the offset that it begins at, the number of the step before which it dies, and
a seed. The answer is what ended it. The processes are forked, so hundreds of them are made in seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from random import Random

from servers.stepped import SteppedSink
from servers.stores import Process, place, row

from streamworker.sinks.marks import lane_of

LENGTH = 240
KEYS = 12


def key_of(offset: int) -> bytes | None:
    """The key of each record of the stream, always the same."""
    number = offset * 7919 % (KEYS + 1)
    return None if number == KEYS else b"key %d" % number


def sink(step: object) -> SteppedSink:
    """Appends, so that a second effect is a second row."""
    return SteppedSink("store", table="effects", mode="insert", step=step)  # type: ignore[arg-type]


class Mortal:
    """Kills its process before step number `last`."""

    def __init__(self, last: int) -> None:
        self._left = last

    def __call__(self, _name: str) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def live(url: str, order: dict[str, int]) -> None:
    """Write the stream from `start` on, lane by lane in turns; some keys wait for a while."""
    chance, lanes, start = Random(order["seed"]), order["lanes"], order["start"]
    writer = sink(Mortal(order["dies"])).writer(Process(url))
    todo: list[list[int]] = [[] for _ in range(lanes)]
    for offset in range(start, LENGTH):
        todo[lane_of(key_of(offset), offset, lanes)].append(offset)
    while any(todo):
        lane = chance.choice([number for number, of in enumerate(todo) if of])
        waits = {key_of(todo[lane][0])} - {None} if chance.random() < 0.3 else set()
        run = [one for one in todo[lane] if key_of(one) not in waits][: chance.randint(1, 12)]
        if not run:
            continue
        left = [one for one in todo[lane] if one not in run]
        at = place(
            f"owner {order['owner']}",
            lanes=lanes,
            lane=lane,
            done_below=start,
            open_below=[one for one in left if one < run[-1]],
        )
        writer.write(at, [row(one, {"id": one}, key=key_of(one)) for one in run])
        todo[lane] = left
    writer.close()


def main() -> None:
    url = sys.argv[1]
    for line in sys.stdin:
        process = os.fork()
        if not process:
            try:
                live(url, json.loads(line))
            except BaseException:  # noqa: BLE001 - whatever it is, the fork must not go on as its parent
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
