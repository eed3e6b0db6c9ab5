"""`streamworker console`: dead letters in a browser, and `console-account`: who may sign in there.

Decided here: what it takes to listen beyond this machine. What the console needs besides is an extra, so it is
imported when the command runs.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import click

from streamworker.cli.console_output import say
from streamworker.cli.options import TEXT, examples
from streamworker.cli.signals import stop_on_signals
from streamworker.clock import SystemClock
from streamworker.console.accounts import OIDC, PROXY, read_accounts, role_of, token_digest
from streamworker.console.providers import Provider, is_safe
from streamworker.console.settings import COLOURS, ConsoleSettings, is_loopback, networks, own_origins
from streamworker.errors import ConfigurationError
from streamworker.key_file import read_key
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from streamworker.console.access import Access
    from streamworker.console.accounts import Account
    from streamworker.console.oidc import Oidc
    from streamworker.console.server import ConsoleServer
    from streamworker.console.settings import Network
    from streamworker.replay.desk import Desk

    Options = TypeVar("Options")

ROLES = tuple(role.name.lower() for role in Role)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOptions:
    """What the command line said of it."""

    host: str
    port: int
    accounts: Path | None
    role: str
    public_url: str
    behind_proxy: str
    proxy_secret: Path | None
    certificate: Path | None
    key: Path | None
    oidc_issuer: str
    oidc_client_id: str
    oidc_client_secret: Path | None
    oidc_name_claim: str
    oidc_groups_claim: str
    environment: str
    colour: str
    read_only: bool


def console_command(
    desk_options: Callable[[Callable[..., None]], Callable[..., None]],
    open_desk: Callable[[Options], AbstractContextManager[Desk]],
    observed: Callable[[Options, Sequence[str], Desk], AbstractContextManager[None]],
) -> click.Command:
    """The command. `desk_options` give it the argument `options`, and `open_desk` makes a desk of that.

    `observed` serves the lag of some groups meanwhile, at a port of its own.
    """

    @click.command(
        epilog=examples(
            "streamworker console",
            "streamworker console --handlers app.handlers:StoreOrders --environment staging --colour orange",
            "streamworker console --host 0.0.0.0 --public-url https://letters.example.org --accounts accounts.txt \\",
            "    --tls-certificate tls.crt --tls-key tls.key",
        )
    )
    @click.option("--host", type=TEXT, default="127.0.0.1", show_default=True, help="Address to listen on.")
    @click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True)
    @click.option("--accounts", type=_FILE, help="Who may sign in: lines that console-account prints.")
    @click.option(
        "--role",
        type=click.Choice(ROLES),
        default="editor",
        show_default=True,
        help="Of the link that is printed where there are no accounts.",
    )
    @click.option("--public-url", default="", metavar="URL", help="Where people reach it, if that is another place.")
    @click.option("--behind-proxy", default="", metavar="CIDR,…", help="Networks of the proxies in front of it.")
    @click.option(
        "--proxy-secret",
        type=_FILE,
        help="File with what the proxy sends as X-Streamworker-Proxy-Secret. Then its X-Forwarded-User is believed.",
    )
    @click.option("--tls-certificate", "certificate", type=_FILE, help="In PEM, with its chain.")
    @click.option("--tls-key", "key", type=_FILE, help="In PEM.")
    @click.option("--oidc-issuer", default="", metavar="URL", help="An OpenID provider where people sign in.")
    @click.option("--oidc-client-id", default="", metavar="ID", help="What the console is called there.")
    @click.option("--oidc-client-secret", type=_FILE, help="File with the secret that it has there.")
    @click.option("--oidc-name-claim", default="preferred_username", show_default=True, help="What people are called.")
    @click.option("--oidc-groups-claim", default="groups", show_default=True, help="Which groups they are in.")
    @click.option("--environment", default="", metavar="NAME", help="Shown on each page.")
    @click.option("--colour", type=click.Choice(COLOURS), default="grey", show_default=True, help="Of that name.")
    @click.option("--read-only", is_flag=True, help="Nothing can be changed, whoever asks.")
    @click.option(
        "--observe",
        "groups_observed",
        type=TEXT,
        multiple=True,
        metavar="GROUP",
        help="Also serve metrics of its lag, and of dead letters, at http.port, as `streamworker lag --serve`.",
    )
    @desk_options
    def console(*, options: Options, groups_observed: Sequence[str], **of_console: object) -> None:
        """Show dead letters in a browser: find, repair and replay them.

        There is no access without signing in. Where there are no accounts, a link is printed that signs in one
        browser, once. Each role includes those before it: viewer (no keys, headers, texts of errors or payloads),
        reader, operator (replay, discard), editor (repair), admin (more than 1,000 letters at once, force).
        """
        asked = ConsoleOptions(**of_console)  # type: ignore[arg-type]  # click has checked them
        access, token = _access(asked)
        server = _server(asked)
        settings = settings_of(asked, server.port)
        stop_on_signals(lambda _: server.stop())
        oidc = _oidc(asked, settings)
        with open_desk(options) as desk, observed(options, groups_observed, desk):
            _say_where(asked, settings, token)
            _answer(server, desk, access, settings, oidc)

    return console


@click.command("console-account", epilog=examples("streamworker console-account ada operator >> accounts.txt"))
@click.argument("name", type=TEXT)
@click.argument("role", type=click.Choice(ROLES))
@click.option("--password", is_flag=True, help="Ask for a password, instead of making a token.")
def console_account(name: str, role: str, *, password: bool) -> None:
    """Print a line for the file of `streamworker console --accounts`.

    The token itself goes to standard error, and is kept nowhere.
    """
    if len(name.split()) != 1 or "#" in name or name.startswith("@"):
        raise ConfigurationError(f"NAME: expected one word without # or a leading @, got {name!r}")
    try:
        from streamworker.console.access import hashed, new_token  # noqa: PLC0415 - it comes with an extra
    except ImportError as error:
        raise _without_the_extra(error) from error
    if password:
        secret = hashed(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        token = new_token()
        secret = token_digest(token)
        say(f"The token of {name}, which is shown only now: {token}", to_stderr=True)
    click.echo(f"{name} {role} {secret}")


def settings_of(asked: ConsoleOptions, port: int) -> ConsoleSettings:
    """What the console is told; raises ConfigurationError for what would not be safe, or cannot be meant."""
    tls = asked.certificate is not None
    if tls != (asked.key is not None):
        raise ConfigurationError("--tls-certificate and --tls-key: expected both, got one")
    if not is_loopback(asked.host):
        _check_reach(asked, tls=tls)
    _check_public_url(asked.public_url)
    proxies = _networks(asked.behind_proxy)
    return ConsoleSettings(
        origins=own_origins(asked.host, port, tls=tls, public_url=asked.public_url),
        environment=asked.environment,
        colour=asked.colour,
        read_only=asked.read_only,
        proxies=proxies,
        only_from=proxies if not tls and not is_loopback(asked.host) else (),
    )


def _check_reach(asked: ConsoleOptions, *, tls: bool) -> None:
    if not tls and not asked.behind_proxy:
        raise ConfigurationError(
            f"--host {asked.host}: others can reach it, and would read along; expected --tls-certificate and --tls-key,"
            " or --behind-proxy with the networks of a proxy that speaks TLS"
        )
    if _is_any(asked.host) and not asked.public_url:
        raise ConfigurationError(f"--host {asked.host}: expected --public-url, which says by what name people come")


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _check_public_url(text: str) -> None:
    url = urlsplit(text)
    if text and (url.scheme not in {"http", "https"} or not url.netloc or url.path.strip("/") or "@" in url.netloc):
        raise ConfigurationError(f"--public-url: expected for instance https://letters.example.org, got {text!r}")


def _networks(text: str) -> Sequence[Network]:
    try:
        return networks(text)
    except ValueError as error:
        raise ConfigurationError(f"--behind-proxy: expected networks, for instance 10.0.0.0/8; {error}") from error


def _access(asked: ConsoleOptions) -> tuple[Access, str | None]:
    """Who is let in, and the token of the link if there is one."""
    try:
        from streamworker.console.access import (  # noqa: PLC0415 - it comes with an extra
            Access,
            Identity,
            TrustedProxy,
            new_token,
        )
    except ImportError as error:
        raise _without_the_extra(error) from error
    accounts = _accounts(asked.accounts)
    proxy = None
    if asked.proxy_secret is not None:
        if not asked.behind_proxy:
            raise ConfigurationError("--proxy-secret: expected --behind-proxy, which says where the proxy is")
        secret = read_key("--proxy-secret", str(asked.proxy_secret)).decode("utf-8", "replace")
        proxy = TrustedProxy(_networks(asked.behind_proxy), secret)
    elif any(account.secret == PROXY for account in accounts):
        raise ConfigurationError(f"--accounts: {PROXY} in it needs --behind-proxy and --proxy-secret")
    if not asked.oidc_issuer and any(account.secret == OIDC for account in accounts):
        raise ConfigurationError(f"--accounts: {OIDC} in it needs --oidc-issuer")
    if accounts or proxy or asked.oidc_issuer:
        return Access(accounts, proxy=proxy), None
    token = new_token()
    return Access(once=(token, Identity("link", role_of(asked.role, "--role"), "link"))), token


def _accounts(file: Path | None) -> Sequence[Account]:
    if file is None:
        return []
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--accounts {file}: {error}") from error
    accounts = read_accounts(text, str(file))
    if not accounts:
        raise ConfigurationError(f"--accounts {file}: nobody is in it; streamworker console-account prints a line")
    return accounts


def _server(asked: ConsoleOptions) -> ConsoleServer:
    settings_of(asked, asked.port)  # first: it says whether it may listen there
    try:
        from streamworker.console.server import ConsoleServer  # noqa: PLC0415 - it comes with an extra
    except ImportError as error:
        raise _without_the_extra(error) from error
    certificate, key = (None if file is None else str(file) for file in (asked.certificate, asked.key))
    return ConsoleServer(asked.host, asked.port, certificate=certificate, key=key)


def _oidc(asked: ConsoleOptions, settings: ConsoleSettings) -> Oidc | None:
    given = (asked.oidc_issuer, asked.oidc_client_id, asked.oidc_client_secret)
    if not any(given):
        return None
    if asked.oidc_client_secret is None or not all(given):
        raise ConfigurationError("--oidc-issuer, --oidc-client-id and --oidc-client-secret: expected all three")
    if not is_safe(asked.oidc_issuer):
        raise ConfigurationError(f"--oidc-issuer: expected an address with https, got {asked.oidc_issuer!r}")
    provider = Provider(
        issuer=asked.oidc_issuer,
        client_id=asked.oidc_client_id,
        client_secret=read_key("--oidc-client-secret", str(asked.oidc_client_secret)).decode("utf-8", "replace"),
        redirect_url=f"{settings.origins[0]}/login/oidc/return",
        name_claim=asked.oidc_name_claim,
        groups_claim=asked.oidc_groups_claim,
    )
    try:
        from streamworker.console.oidc import Oidc  # noqa: PLC0415 - it comes with an extra
    except ImportError as error:
        needed = error.name or error
        raise ConfigurationError(f"--oidc-issuer needs {needed}; pip install 'streamworker[oidc]'") from error
    return Oidc(provider, SystemClock())


def _answer(server: ConsoleServer, desk: Desk, access: Access, settings: ConsoleSettings, oidc: Oidc | None) -> None:
    from streamworker.console.app import make_app  # noqa: PLC0415 - it comes with an extra, which is there by now

    server.run(make_app(desk, access, settings, oidc=oidc))


def _say_where(asked: ConsoleOptions, settings: ConsoleSettings, token: str | None) -> None:
    if token is None:
        say(f"Dead letters: {settings.origins[0]}")
        return
    say(f"Dead letters: {settings.origins[0]}/login?token={token}")
    say(f"The link signs in one browser, as {asked.role}. For more than one, and for later, give --accounts.")


def _without_the_extra(error: ImportError) -> ConfigurationError:
    return ConfigurationError(f"the console needs {error.name or error}; pip install 'streamworker[console]'")
