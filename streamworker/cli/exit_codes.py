"""What the exit codes mean, in the words of `--help`."""

from __future__ import annotations

from streamworker.exit_code import ExitCode

MEANINGS = {
    ExitCode.OK: "Done; everything that was started has ended.",
    ExitCode.FATAL: "The application or the cluster made going on impossible.",
    ExitCode.USAGE: "Wrong usage or configuration; nothing was started.",
    ExitCode.PARTIAL: "Something was left over: it will be repeated, it is not lost.",
    ExitCode.STALL: "Nothing moved for too long, or one call ran for too long.",
    ExitCode.CLOSE_TIMED_OUT: "Leaving the group took too long; the rest was done.",
    ExitCode.FENCED: "Another member has taken over this worker's identity.",
    ExitCode.MEMORY: "The process had more memory than it may for too long; the rest was done.",
    ExitCode.INTERRUPTED: "A second SIGINT: left at once; what ran will be repeated.",
    ExitCode.TERMINATED: "A second SIGTERM: left at once; what ran will be repeated.",
}


def listing() -> str:
    """The table for a command's help; the first line keeps click from joining the others."""
    lines = (f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())
    return "\n".join(("\b", "Exit codes:", *lines))
