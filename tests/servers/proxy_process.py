"""The process that a `FaultProxy` runs in: relays connections, and does to them what its standard input says.

Run as a script, with the standard library only, so that it starts quickly. One thread. Each line on standard input
names a control of `Proxy`, with its number if it takes one, and is answered by a line once it holds. The line before
all answers is the port. The process ends when its standard input closes.

Rules:
- A fault meets bytes when they are handed on, not when they come in. So it also meets what is under way.
- A direction that has lost anything delivers nothing more, since a TCP stream has no holes. Such a connection is reset
  when the faults are healed, as if by a peer that does not know it any more.
- The end of a stream is handed on like bytes and after them, so it may be late, or lost, as well.
- A connection that one side has closed is closed as a whole. The protocols that go through here never close one half.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import os
import socket
import struct
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_BYTES = 65_536  # asyncio's own limit
_QUEUED_CHUNKS = 64  # at most 4 MiB under way in each direction: a delay of 2 s lets 2 MiB/s through
_PORTIONS_PER_S = 20  # how smoothly a slow direction flows
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time


DAMAGEABLE, DAMAGED = b"to-be-damaged", b"to_be_damaged"  # what `damage` looks for, and what it makes of it


class Direction(enum.Enum):
    UP = "client to server"
    DOWN = "server to client"


@dataclass(frozen=True, slots=True)
class Faults:
    """What is done to all that is handed on; nothing unless said."""

    delay_s: float = 0.0
    bytes_per_s: float = math.inf
    dropped: frozenset[Direction] = frozenset()
    truncate: bool = False
    damage: bool = False


class Conditions:
    """The faults that hold now."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._changed = asyncio.Event()

    def change(self, faults: Faults) -> None:
        self.faults = faults
        self._changed.set()
        self._changed = asyncio.Event()

    async def unchanged_for(self, time_s: float) -> None:
        """Wait for `time_s`, or until the faults change."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(time_s):
                await self._changed.wait()


class Flow:
    """One direction of one connection."""

    def __init__(
        self, direction: Direction, source: asyncio.StreamReader, sink: asyncio.StreamWriter, conditions: Conditions
    ) -> None:
        self.lossy = False  # once True, nothing is delivered any more
        self._direction = direction
        self._source = source
        self._sink = sink
        self._conditions = conditions
        # When it came, and the bytes; or how the stream ended: b"" if it was closed, None if it was reset.
        self._under_way: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(_QUEUED_CHUNKS)

    async def run(self) -> None:
        """Relay until the end of the stream is handed on or lost."""
        await asyncio.gather(self._take(), self._give())

    async def _take(self) -> None:
        while True:
            data = await self._read()
            await self._under_way.put((asyncio.get_running_loop().time(), data))
            if not data:
                return

    async def _read(self) -> bytes | None:
        try:
            return await self._source.read(_CHUNK_BYTES)
        except OSError:
            return None

    async def _give(self) -> None:
        while True:
            came_s, data = await self._under_way.get()
            await self._until_due(came_s)
            if not data:
                self._end(reset=data is None)
                return
            await self._hand_on(data)

    async def _until_due(self, came_s: float) -> None:
        now_s = asyncio.get_running_loop().time
        while (left_s := came_s + self._conditions.faults.delay_s - now_s()) > 0:
            await self._conditions.unchanged_for(left_s)

    async def _hand_on(self, data: bytes) -> None:
        """In portions, each under the faults of its moment."""
        while data and not self._loses():
            bytes_per_s = self._conditions.faults.bytes_per_s
            if math.isinf(bytes_per_s):
                await self._write(data)
                return
            size = max(1, int(bytes_per_s / _PORTIONS_PER_S))
            await self._write(data[:size])
            data = data[size:]
            await self._conditions.unchanged_for(size / bytes_per_s)

    async def _write(self, data: bytes) -> None:
        if self._sink.is_closing():
            return  # nobody is there any more, and the other direction tells the sender
        if self._conditions.faults.truncate and self._direction is Direction.DOWN:
            self._sink.write(data[:-1])  # all but one: half of it could be a whole frame
            self._sink.close()
            return
        if self._conditions.faults.damage and self._direction is Direction.DOWN:
            data = data.replace(DAMAGEABLE, DAMAGED)
        with contextlib.suppress(OSError):  # likewise nobody
            self._sink.write(data)
            await self._sink.drain()

    def _end(self, *, reset: bool) -> None:
        if self._loses():
            return
        if reset:
            _reset(self._sink)
        else:
            self._sink.close()

    def _loses(self) -> bool:
        self.lossy = self.lossy or self._direction in self._conditions.faults.dropped
        return self.lossy


class Connection:
    """A client's connection, and the one to the server that is made for it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, conditions: Conditions) -> None:
        self._reader = reader
        self._conditions = conditions
        self._ends = [writer]  # the client's, then the server's
        self._flows: list[Flow] = []
        self._broken_by: Callable[[], None] | None = None

    @property
    def lossy(self) -> bool:
        return any(flow.lossy for flow in self._flows)

    async def run(self, host: str, port: int) -> None:
        """Relay until both directions have ended. A server that cannot be reached looks like one that resets."""
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            self.reset()
            return
        self._flows = [
            Flow(Direction.UP, self._reader, writer, self._conditions),
            Flow(Direction.DOWN, reader, self._ends[0], self._conditions),
        ]
        self._ends.append(writer)
        if self._broken_by is not None:  # while the server was being connected, so that its end is still whole
            self._broken_by()
        await asyncio.gather(*(flow.run() for flow in self._flows))

    def reset(self) -> None:
        """Reset both ends."""
        self._broken_by = self.reset
        for end in self._ends:
            _reset(end)

    def lose_server(self) -> None:
        """Reset the server's end, and never tell the client."""
        self._broken_by = self.lose_server
        for flow in self._flows:
            flow.lossy = True
        for end in self._ends[1:]:
            _reset(end)


class Proxy:
    """Listens, knows the living connections, and has a coroutine for each control and question."""

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        self._upstream = (upstream_host, upstream_port)
        self._conditions = Conditions()
        self._living: set[Connection] = set()
        self._port_holder: socket.socket | None = None  # while nobody listens
        self._listener: asyncio.Server | None = None

    async def listen(self, port: int) -> int:
        """Accept connections at the port, any free one for 0; returns which it is."""
        self._port_holder = _bound(port)
        bound_port = int(self._port_holder.getsockname()[1])
        await self._accept()
        return bound_port

    async def heal(self) -> None:
        self._conditions.change(Faults())
        for connection in self._living.copy():
            if connection.lossy:
                connection.reset()
                self._living.discard(connection)
        await self._accept()

    async def lossy_connections(self) -> int:
        return sum(connection.lossy for connection in self._living)

    async def delay(self, each_way_s: float) -> None:
        self._conditions.change(replace(self._conditions.faults, delay_s=each_way_s))

    async def slow(self, bytes_per_s: float) -> None:
        self._conditions.change(replace(self._conditions.faults, bytes_per_s=bytes_per_s))

    async def truncate(self) -> None:
        self._conditions.change(replace(self._conditions.faults, truncate=True))

    async def damage(self) -> None:
        self._conditions.change(replace(self._conditions.faults, damage=True))

    async def drop_up(self) -> None:
        self._drop(Direction.UP)

    async def drop_down(self) -> None:
        self._drop(Direction.DOWN)

    async def black_hole(self) -> None:
        self._drop(Direction.UP, Direction.DOWN)

    async def half_open(self) -> None:
        for connection in self._living:
            connection.lose_server()

    async def reset(self) -> None:
        for connection in self._living:
            connection.reset()

    async def refuse(self) -> None:
        if self._listener is not None:
            (listening,) = self._listener.sockets
            port = listening.getsockname()[1]
            self._listener.close()
            self._listener = None
            self._port_holder = _bound(port)  # not listening, but nobody else can have it
        await self.reset()

    def _drop(self, *directions: Direction) -> None:
        faults = self._conditions.faults
        self._conditions.change(replace(faults, dropped=faults.dropped.union(directions)))

    async def _accept(self) -> None:
        if self._port_holder is not None:
            self._listener = await asyncio.start_server(self._serve, sock=self._port_holder)
            self._port_holder = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, self._conditions)
        if self._listener is None:  # accepted just before it closed
            connection.reset()
            return
        self._living.add(connection)
        await connection.run(*self._upstream)
        if not connection.lossy:
            self._living.discard(connection)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _reset(end: asyncio.StreamWriter) -> None:
    """Close at once with RST; what waits to be sent is thrown away. Does nothing to what is closed."""
    with contextlib.suppress(OSError):
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    end.transport.abort()


async def serve(upstream_host: str, upstream_port: int, port: int) -> None:
    """Say the port, then obey line by line; does not return."""
    proxy = Proxy(upstream_host, upstream_port)
    _say(str(await proxy.listen(port)))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        control, *numbers = line.decode().split()
        answer = await getattr(proxy, control)(*map(float, numbers))
        await asyncio.sleep(0)  # sockets that were aborted are closed in the loop's next round
        _say(str(answer))
    os._exit(0)  # the kernel closes the connections; the loop would report each as cancelled


def _say(answer: str) -> None:
    print(answer, flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
