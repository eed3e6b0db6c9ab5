"""A TCP proxy before a server that does harm on request: the test's end of it.

The relaying is done by a process of its own, see proxy_process.py, so that neither a busy test slows
the traffic nor the traffic the test. It ends when its standard input closes, so it cannot outlive a
test run that was killed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Self

_PROCESS = Path(__file__).with_name("proxy_process.py")
_END_TIMEOUT_S = 5.0  # it ends at once; this is for a machine under load


class ProxyError(Exception):
    """The proxy could not be started, or its process is gone."""


class FaultProxy:
    """Stands at `port` on the loopback interface before one server, from construction to `close()`.

    Each control holds, when it returns, for living connections and for new ones, until `heal()`. Controls add up:
    delay, rate and loss may hold together. They may be called from any thread.
    """

    def __init__(self, upstream_host: str, upstream_port: int, port: int = 0) -> None:
        self._lock = threading.Lock()  # keeps a control and its answer together
        self._process = subprocess.Popen(
            [sys.executable, _PROCESS, upstream_host, str(upstream_port), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the test run
        )
        try:
            self.port = int(self._answer())
        except ProxyError:
            self.close()  # nobody else has a reference to it
            raise

    @property
    def pid(self) -> int:
        """Process that the proxy runs in."""
        return self._process.pid

    @property
    def lossy_connections(self) -> int:
        """Connections that have lost something since the last `heal()`: whether a fault has hit anybody."""
        return int(self._tell("lossy_connections"))

    def delay(self, each_way_s: float) -> None:
        """Hand on what is sent, in either direction, this much later; at most 4 MiB of a connection wait so."""
        self._tell("delay", each_way_s)

    def slow(self, bytes_per_s: float) -> None:
        """Let no more than this through, of each connection and in each direction."""
        self._tell("slow", bytes_per_s)

    def black_hole(self) -> None:
        """Take everything and deliver nothing. Connections stay open, new ones are accepted, closing is not noticed.

        A connection that lost something stays dead in that direction, and is reset by `heal()`. One that was idle
        lost nothing and goes on.
        """
        self._tell("black_hole")

    def drop_up(self) -> None:
        """Lose what clients send, as `black_hole` does, while what the server sends arrives."""
        self._tell("drop_up")

    def drop_down(self) -> None:
        """Lose what the server sends, as `black_hole` does, while what clients send arrives and takes effect."""
        self._tell("drop_down")

    def half_open(self) -> None:
        """Take the server's end of each living connection away, without a word to the client.

        So does a server that loses power, or a firewall that forgets. What the client sends there is lost, until
        `heal()` resets it. New connections are served as ever.
        """
        self._tell("half_open")

    def truncate(self) -> None:
        """Of the next bytes that a server sends on a connection, deliver all but the last one; then close it."""
        self._tell("truncate")

    def damage(self) -> None:
        """Change two bytes wherever a server sends `DAMAGEABLE`, so that the checksum around it is wrong."""
        self._tell("damage")

    def reset(self) -> None:
        """Reset all living connections, at both ends, this once."""
        self._tell("reset")

    def refuse(self) -> None:
        """Reset all living connections and refuse new ones. The port stays taken."""
        self._tell("refuse")

    def heal(self) -> None:
        """End all faults. Connections that lost something are reset, at both ends, so that clients connect anew."""
        self._tell("heal")

    def close(self) -> None:
        """End the process, and with it all connections. Idempotent."""
        stdin, stdout = self._pipes()
        with contextlib.suppress(BrokenPipeError):  # a control that the process did not live to read
            stdin.close()
        stdout.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _tell(self, control: str, *numbers: float) -> str:
        if any(number <= 0 for number in numbers):
            raise ValueError(f"{control}({numbers[0]}): expected more than 0; `heal()` ends it")
        stdin, _ = self._pipes()
        with self._lock:
            if stdin.closed:
                raise ProxyError("the proxy is closed")
            try:
                stdin.write(" ".join([control, *map(str, numbers)]).encode() + b"\n")
                stdin.flush()
            except BrokenPipeError as error:
                raise self._gone() from error
            return self._answer()

    def _answer(self) -> str:
        _, stdout = self._pipes()
        line = stdout.readline()
        if not line:
            raise self._gone()
        return line.decode()

    def _gone(self) -> ProxyError:
        code = self._process.wait(_END_TIMEOUT_S)
        return ProxyError(f"the proxy's process {self.pid} ended with code {code}; see its standard error")

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout
