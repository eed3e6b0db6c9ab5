"""Who somebody is to the console: accounts, tokens, a proxy's word, sessions, and who has to wait."""

from __future__ import annotations

import pytest
from memory_desk import StillClock

from streamworker.console.access import Access, Identity, TrustedProxy, new_token
from streamworker.console.accounts import PROXY, Account, read_accounts, token_digest
from streamworker.console.sessions import Lockout, Sessions
from streamworker.console.settings import ConsoleSettings, is_loopback, networks, own_origins, within
from streamworker.errors import ConfigurationError
from streamworker.replay.desk import Role

ADA = Identity("ada", Role.OPERATOR, "token")
DIGEST = token_digest("t0ken")


def test_a_file_of_accounts_is_read_with_its_comments() -> None:
    text = f"""
        # people
        ada operator {DIGEST}   # by token
        bob viewer $argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA
        @ops admin proxy
    """

    accounts = read_accounts(text, "accounts.txt")

    assert [(one.name, one.role, one.has_token, one.has_password) for one in accounts] == [
        ("ada", Role.OPERATOR, True, False),
        ("bob", Role.VIEWER, False, True),
        ("@ops", Role.ADMIN, False, False),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ada operator", "line 1: expected NAME ROLE SECRET, got 2 words"),
        (f"ada operater {DIGEST}", "did you mean 'operator'"),
        ("ada operator t0ken", "expected a secret as"),
        ("ada operator sha256:abc", "expected a secret as"),
        (f"@ops admin {DIGEST}", "a group, of which only proxy or oidc can tell"),
        (f"ada viewer {DIGEST}\nada admin {DIGEST}", "line 2: there is a line for 'ada' already"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named_and_its_secret_is_not(line: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        read_accounts(line, "accounts.txt")

    assert "t0ken" not in str(raised.value)


def test_no_repr_has_a_secret_in_it() -> None:
    account = Account("ada", Role.OPERATOR, DIGEST)
    proxy = TrustedProxy((), "s3cret")

    assert DIGEST not in repr(account)
    assert "s3cret" not in repr(proxy)


def test_a_token_is_who_it_was_given_to_and_nobody_else() -> None:
    access = Access([Account("ada", Role.OPERATOR, DIGEST)])

    assert access.by_token("t0ken") == ADA
    assert access.by_token("t0ke") is None
    assert access.by_token(DIGEST) is None  # what is kept of it opens nothing
    assert access.by_token("\ud800") is None


def test_tokens_have_enough_chance_in_them() -> None:
    made = {new_token() for _ in range(100)}

    assert len(made) == 100
    assert min(map(len, made)) >= 22  # 128 bits


def test_a_password_is_not_asked_of_a_token() -> None:
    access = Access([Account("ada", Role.OPERATOR, DIGEST)])

    assert access.by_password("ada", "t0ken") is None
    assert (access.takes_passwords, access.takes_tokens) == (False, True)


PROXIED = [Account("ada", Role.EDITOR, PROXY), Account("@ops", Role.ADMIN, PROXY), Account("@ada", Role.READER, PROXY)]


@pytest.mark.parametrize(
    ("user", "groups", "role"),
    [
        ("ada", "", Role.EDITOR),
        ("ada", "staff, ops", Role.ADMIN),
        ("eve", "", Role.VIEWER),
        ("eve", "ada", Role.READER),
        ("@ops", "", Role.VIEWER),  # somebody who calls himself like a group
        ("ADA", "", Role.VIEWER),
        ("ada.", "", Role.VIEWER),
        ("xada", "OPS", Role.VIEWER),
    ],
)
def test_a_proxy_names_people_and_groups_and_whom_nobody_knows_is_a_viewer(user: str, groups: str, role: Role) -> None:
    access = Access(PROXIED, proxy=TrustedProxy(networks("10.0.0.0/8"), "s3cret"))
    headers = {"x-forwarded-user": user, "x-forwarded-groups": groups, "x-streamworker-proxy-secret": "s3cret"}

    assert access.by_proxy("10.9.9.9", headers) == Identity(user, role, "proxy")


@pytest.mark.parametrize("peer", ["11.0.0.1", "127.0.0.1", "::1", "", None, "10.0.0.1, 11.0.0.1"])
def test_who_is_not_in_the_proxys_network_is_not_the_proxy(peer: str | None) -> None:
    access = Access(PROXIED, proxy=TrustedProxy(networks("10.0.0.0/8"), "s3cret"))

    assert access.by_proxy(peer, {"x-forwarded-user": "ada", "x-streamworker-proxy-secret": "s3cret"}) is None


@pytest.mark.parametrize("user", ["", " ", "a" * 201, "a\x1b[31m", "a\u202eb"])
def test_a_name_that_cannot_be_shown_is_nobodys(user: str) -> None:
    access = Access(PROXIED, proxy=TrustedProxy(networks("10.0.0.0/8"), "s3cret"))

    assert access.by_proxy("10.0.0.1", {"x-forwarded-user": user, "x-streamworker-proxy-secret": "s3cret"}) is None


def test_only_so_many_sessions_are_kept_and_the_one_unused_for_longest_makes_room() -> None:
    sessions = Sessions(StillClock(), session_s=100, idle_s=100)
    first, second = sessions.begin(ADA)[0], sessions.begin(ADA)[0]
    sessions.find(first)

    for _ in range(999):
        sessions.begin(ADA)

    assert sessions.find(first) is not None
    assert sessions.find(second) is None


def test_a_look_that_is_no_use_does_not_keep_a_session() -> None:
    clock = StillClock()
    sessions = Sessions(clock, session_s=1000, idle_s=10)
    cookie, _ = sessions.begin(ADA)

    clock.now_ms += 9_000
    seen = sessions.find(cookie, used=False)
    clock.now_ms += 2_000

    assert seen is not None
    assert sessions.find(cookie) is None


def test_waits_double_to_a_quarter_of_an_hour_and_are_forgotten() -> None:
    clock = StillClock()
    lockout = Lockout(clock)

    waits = [lockout.failed("here") for _ in range(11)]
    elsewhere = lockout.wait_s("there")
    clock.now_ms += 3_700_000
    later = lockout.failed("here")

    assert waits == [0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900]
    assert (elsewhere, later) == (0, 0)


def test_addresses_that_never_end_do_not_fill_the_memory() -> None:
    lockout = Lockout(StillClock())

    for number in range(3000):
        lockout.failed(str(number))

    assert len(lockout._sources) == 1000


@pytest.mark.parametrize(
    ("host", "port", "tls", "public_url", "origins"),
    [
        ("127.0.0.1", 8090, False, "", ["http://127.0.0.1:8090", "http://localhost:8090", "http://[::1]:8090"]),
        ("::1", 80, False, "", ["http://127.0.0.1", "http://localhost", "http://[::1]"]),
        ("10.0.0.1", 443, True, "https://Letters.Example/", ["https://letters.example", "https://10.0.0.1"]),
        ("fd00::1", 8443, True, "", ["https://[fd00::1]:8443"]),
    ],
)
def test_a_console_knows_the_names_that_it_is_reached_by(
    host: str, port: int, tls: bool, public_url: str, origins: list[str]
) -> None:
    assert own_origins(host, port, tls=tls, public_url=public_url) == origins


def test_cookies_are_of_the_port_and_hosts_of_all_origins() -> None:
    settings = ConsoleSettings(origins=["https://letters.example", "http://127.0.0.1:8090"])

    assert (settings.secure, settings.port) == (True, 443)
    assert settings.hosts == {"letters.example", "127.0.0.1:8090"}


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "")] == [False] * 5


def test_an_address_of_the_other_family_is_in_no_network() -> None:
    assert not within("::ffff:10.0.0.1", networks("10.0.0.0/8"))
    assert within("fd00::1", networks("10.0.0.0/8, fd00::/8"))
