"""`streamworker console` and `console-account`: what they refuse, what they print, and that they serve and stop."""

from __future__ import annotations

import builtins
import functools
import re
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import httpx2
import pytest
from click.testing import CliRunner
from memory_desk import MemoryDesk, shop

from streamworker.cli import console as command
from streamworker.cli.console import console_account, console_command
from streamworker.console.accounts import read_accounts
from streamworker.errors import ConfigurationError
from streamworker.replay.desk import Desk, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def opened() -> list[str]:
    """For whom a desk was opened."""
    return []


@pytest.fixture
def console(opened: list[str]) -> click.Command:
    def desk_options(inner: Callable[..., None]) -> Callable[..., None]:
        @click.option("--group", default="orders-eu")
        @functools.wraps(inner)
        def with_desk(*, group: str, **others: object) -> None:
            inner(options=group, **others)

        return with_desk

    @contextmanager
    def open_desk(group: str) -> Iterator[MemoryDesk]:
        opened.append(group)
        yield shop()

    @contextmanager
    def observed(group: str, groups: Sequence[str], desk: Desk) -> Iterator[None]:
        assert isinstance(desk, MemoryDesk)
        opened.extend(f"{group} sees {one}" for one in groups)
        yield

    return console_command(desk_options, open_desk, observed)


def refused(one: click.Command, *arguments: str) -> str:
    result = CliRunner().invoke(one, arguments)
    assert isinstance(result.exception, ConfigurationError), result.output
    return str(result.exception)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "tls.pem").write_text("none")
    (tmp_path / "secret").write_text("0123456789abcdef")
    (tmp_path / "ada").write_text(f"ada operator sha256:{'0' * 64}\n")
    (tmp_path / "proxied").write_text("ada operator proxy\n")
    (tmp_path / "empty").write_text("# nobody yet\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--host 0.0.0.0", "others can reach it"),
        ("--host ::", "others can reach it"),
        ("--host 10.1.2.3", "others can reach it"),
        ("--host 0.0.0.0 --behind-proxy 10.0.0.0/8", "expected --public-url"),
        ("--host 0.0.0.0 --tls-certificate FILES/tls.pem --tls-key FILES/tls.pem", "expected --public-url"),
        ("--tls-certificate FILES/tls.pem", "expected both, got one"),
        ("--behind-proxy 10.0.0.0/99", "expected networks"),
        ("--public-url letters.example", "expected for instance https://letters.example.org"),
        ("--public-url https://me@letters.example", "expected for instance"),
        ("--proxy-secret FILES/secret", "expected --behind-proxy"),
        ("--accounts FILES/proxied", "needs --behind-proxy and --proxy-secret"),
        ("--accounts FILES/empty", "nobody is in it"),
        ("--accounts FILES/secret", "expected NAME ROLE SECRET"),
    ],
)
def test_what_would_not_be_safe_is_refused_before_a_desk_is_opened(
    arguments: str, said: str, console: click.Command, files: Path, opened: list[str]
) -> None:
    assert said in refused(console, *arguments.replace("FILES", str(files)).split())
    assert not opened


def test_files_that_are_no_certificate_are_named(console: click.Command, files: Path) -> None:
    pem = str(files / "tls.pem")

    assert pem in refused(console, "--port", "0", "--tls-certificate", pem, "--tls-key", pem)


def test_a_port_that_is_taken_is_said(console: click.Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert f"cannot listen on 127.0.0.1, port {port}" in refused(console, "--port", str(port))


@pytest.mark.parametrize("one", ["console", "account"])
def test_without_the_extra_it_says_what_to_install(
    one: str, console: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without(name: str, *arguments: object) -> object:
        if name == "streamworker.console.access":
            raise ModuleNotFoundError("No module named 'argon2'", name="argon2")
        return imported(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)

    said = refused(console) if one == "console" else refused(console_account, "ada", "operator")
    assert said == "the console needs argon2; pip install 'streamworker[console]'"


def serve(
    console: click.Command, monkeypatch: pytest.MonkeyPatch, look: Callable[[str], None], *arguments: str
) -> Result:
    """Run the command, let `look` see what it says on another thread, and then stop it as a signal would."""
    stops: list[Callable[[str], None]] = []
    said: list[str] = []
    failed: list[BaseException] = []
    ready = threading.Event()

    def say(text: str, **_: object) -> None:
        said.append(text)
        if text.startswith("Dead letters:"):
            ready.set()

    def visit() -> None:
        try:
            assert ready.wait(20)
            look(said[0].removeprefix("Dead letters: "))
        except BaseException as error:  # noqa: BLE001 - it is raised on the test's own thread
            failed.append(error)
        stops[0]("SIGTERM")

    monkeypatch.setattr(command, "stop_on_signals", stops.append)
    monkeypatch.setattr(command, "say", say)
    thread = threading.Thread(target=visit, name="visitor")
    thread.start()
    result = CliRunner().invoke(console, ["--port", "0", *arguments])
    thread.join(20)
    if failed:
        raise failed[0]
    return result


def test_it_prints_one_link_that_signs_in_and_ends_when_it_is_told_to(
    console: click.Command, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(link: str) -> None:
        origin = link.partition("/login")[0]
        with httpx2.Client(base_url=origin) as client:
            form = client.get(link)
            csrf = re.search(r'name="csrf" value="([^"]+)"', form.text)
            assert csrf is not None
            data = {"csrf": csrf[1], "token": link.partition("token=")[2]}
            page = client.post("/login", data=data, headers={"origin": origin}, follow_redirects=True)
            seen.append(page.text)

    result = serve(console, monkeypatch, look, "--role", "operator", "--group", "payments", "--environment", "prod-eu")

    assert result.exit_code == 0, result.exception
    assert opened == ["payments"]
    assert "orders.dlq" in seen[0]
    assert "<small>operator</small>" in seen[0]
    assert "prod-eu" in seen[0]


def test_it_observes_groups_while_it_is_open(
    console: click.Command, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(console, monkeypatch, lambda _link: None, "--observe", "orders", "--observe", "billing")

    assert opened == ["orders-eu", "orders-eu sees orders", "orders-eu sees billing"]


def test_with_accounts_no_link_is_printed(console: click.Command, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links: list[str] = []

    serve(console, monkeypatch, links.append, "--accounts", str(files / "ada"))

    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", links[0])


def test_a_token_is_printed_once_and_only_its_digest_is_for_the_file() -> None:
    result = CliRunner().invoke(console_account, ["ada", "operator"])

    token = result.stderr.split()[-1]
    (account,) = read_accounts(result.stdout, "here")
    assert (account.name, account.role) == ("ada", Role.OPERATOR)
    assert len(token) >= 22
    assert token not in result.stdout


def test_a_password_is_kept_as_its_hash() -> None:
    result = CliRunner().invoke(
        console_account, ["ada", "viewer", "--password"], input="correct horse\ncorrect horse\n"
    )

    (account,) = read_accounts(result.stdout.strip().splitlines()[-1], "here")
    assert account.has_password
    assert "correct horse" not in result.stdout


@pytest.mark.parametrize("name", ["ada bob", "@admins", "a#b"])
def test_a_name_that_the_file_could_not_say_is_refused(name: str) -> None:
    assert "NAME" in refused(console_account, name, "viewer")
