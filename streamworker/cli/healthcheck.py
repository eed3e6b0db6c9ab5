"""`streamworker healthcheck`: a probe of the worker in this container, as an exit code.

For engines and probes that run a command instead of asking a port. Decided here: what counts as passed, and what is
said when it did not. It is run every few seconds, so it imports what it takes to ask one page and no more.
"""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

import click

from streamworker.cli.console_output import say
from streamworker.errors import ConfigurationError
from streamworker.exit_code import ExitCode

_READY = "http://127.0.0.1:8080/health/ready"
# Of a page's body, for the names of the checks that failed.
_MAX_BODY_BYTES = 64 * 1024
# Written out, because `options.examples` comes with the client.
_EXAMPLES = """\b
Examples:
  streamworker healthcheck
  streamworker healthcheck --url http://127.0.0.1:8080/health/live --timeout-s 5"""


@click.command(epilog=_EXAMPLES)
@click.option("--url", default=_READY, show_default=True, help="The page to ask: of a worker, or of another program.")
@click.option(
    "--timeout-s",
    type=click.IntRange(1, 3600),
    default=2,
    show_default=True,
    help="Seconds to wait for the connection, and for each part of the answer.",
)
@click.pass_context
def healthcheck(ctx: click.Context, url: str, timeout_s: int) -> None:
    """Ask a probe of the worker on this machine.

    Exits with 0 if the page answers with a code from 200 to 399, as a kubelet counts it, and with 1 if it answers
    with another one or not at all. Then standard error says what was wrong.
    """
    place = _place(url)
    try:
        code, body = _ask(place, timeout_s)
    except (OSError, http.client.HTTPException) as error:
        say(f"{url}: {error or type(error).__name__}", to_stderr=True)
        ctx.exit(ExitCode.FATAL)
    if HTTPStatus.OK <= code < HTTPStatus.BAD_REQUEST:
        ctx.exit(ExitCode.OK)
    say(f"{url}: {code}{_failing(body)}", to_stderr=True)
    ctx.exit(ExitCode.FATAL)


def _place(url: str) -> SplitResult:
    try:
        place = urlsplit(url)
        found = place.scheme == "http" and place.hostname and place.port != 0
    except ValueError:  # a port that is none
        found = False
    if not found:
        raise ConfigurationError(f"--url: expected for instance {_READY}, got {url!r}")
    return place


def _ask(place: SplitResult, timeout_s: int) -> tuple[int, bytes]:
    """The code and the beginning of the body; redirects are answers."""
    target = (place.path or "/") + (f"?{place.query}" if place.query else "")
    with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)) as connection:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_BODY_BYTES)


def _failing(body: bytes) -> str:
    """The checks of a probe that did not pass, if the page is one of a worker."""
    try:
        checks = json.loads(body)["checks"]
        failing = [name for name, passed in checks.items() if passed is False and name.isprintable()]
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""
    return f", not {', '.join(failing)}" if failing else ""
