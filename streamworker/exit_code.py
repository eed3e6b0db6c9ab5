"""How the process ends. Standard library only."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of all commands."""

    OK = 0  # done, everything that ran has ended
    FATAL = 1  # a FatalError, or an error that nobody expected
    USAGE = 2  # usage or configuration
    PARTIAL = 3  # something was abandoned or left over; it will be repeated, it is not lost
    STALL = 4  # nothing moved for too long
    CLOSE_TIMED_OUT = 5  # leaving the group took too long
    FENCED = 6  # another member has taken over this one's identity
    MEMORY = 7  # the process had more memory than it may for too long
    INTERRUPTED = 130  # second SIGINT
    TERMINATED = 143  # second SIGTERM
