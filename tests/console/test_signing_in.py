"""Sessions: how they begin, and when they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from console_browser import ORIGIN, Browser
from starlette.testclient import TestClient

from streamworker.console.access import Access, Identity, TrustedProxy, hashed
from streamworker.console.accounts import PROXY, Account
from streamworker.console.app import make_app
from streamworker.console.screens.signing_in import own_path
from streamworker.console.settings import ConsoleSettings, networks
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory_desk import MemoryDesk

    from streamworker.replay.desk import Actor


def test_a_link_with_a_token_signs_nobody_in_until_the_button_is_pressed(
    stranger: Callable[[], Browser], desk: MemoryDesk
) -> None:
    browser = stranger()

    page = browser.get("/login?token=editor")

    assert 'value="editor"' in page.text
    assert browser.get("/").headers["location"] == "/login"
    assert not desk.entries


def test_who_signs_in_comes_to_the_page_that_was_wanted_and_is_in_the_audit(
    stranger: Callable[[], Browser], desk: MemoryDesk
) -> None:
    browser = stranger()
    wanted = browser.get("/topics/orders.dlq?q=state:replayed").headers["location"]
    form = browser.get(wanted).text

    answer = browser.post("/login", {"token": "editor", "next": "/topics/orders.dlq?q=state:replayed"})

    assert 'value="/topics/orders.dlq?q=state:replayed"' in form
    assert answer.headers["location"] == "/topics/orders.dlq?q=state:replayed"
    assert [(entry.what, entry.actor, entry.verified) for entry in desk.entries] == [("login", "editor", True)]


def test_the_token_of_a_session_is_another_after_signing_in(stranger: Callable[[], Browser]) -> None:
    browser = stranger()
    browser.get("/login")
    before = browser.csrf

    browser.post("/login", {"token": "editor"})

    assert browser.csrf != before


def test_cookies_are_kept_from_scripts_and_other_sites(stranger: Callable[[], Browser]) -> None:
    answer = stranger().sign_in("editor")

    session, csrf = answer.headers.get_list("set-cookie")
    assert "HttpOnly" in session
    assert "SameSite=lax" in session
    assert "HttpOnly" in csrf
    assert "SameSite=strict" in csrf


def test_behind_tls_cookies_are_secure_and_belong_to_this_host_alone(desk: MemoryDesk) -> None:
    settings = ConsoleSettings(origins=["https://letters.example"])
    app = make_app(desk, Access(once=("once", Identity("link", Role.EDITOR, "link"))), settings)

    with TestClient(app, base_url="https://letters.example") as client:
        answer = client.get("/login")

    assert "__Host-sw_csrf_443=" in answer.headers["set-cookie"]
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_a_printed_link_is_good_once(desk: MemoryDesk, settings: ConsoleSettings) -> None:
    app = make_app(desk, Access(once=("once", Identity("link", Role.EDITOR, "link"))), settings)
    with TestClient(app, base_url=ORIGIN) as client:
        first, second = Browser(client), Browser(TestClient(app, base_url=ORIGIN))
        second.get("/login")

        answers = [first.sign_in("once"), second.post("/login", {"token": "once"})]

    assert [answer.status_code for answer in answers] == [303, 403]
    assert "was used" in answers[1].text


def test_a_session_ends_when_it_is_not_used_and_when_it_is_old(
    somebody: Callable[[Role], Browser], desk: MemoryDesk, settings: ConsoleSettings
) -> None:
    idle, old = somebody(Role.VIEWER), somebody(Role.VIEWER)

    for _ in range(int(settings.session_s / settings.idle_s) * 2):
        desk.clock.now_ms += int(settings.idle_s * 500)
        last = old.get("/")

    assert idle.get("/").status_code == 303
    assert last.status_code == 303


def test_signing_out_ends_the_session_on_the_server(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    browser = somebody(Role.VIEWER)
    cookie = browser.client.cookies["sw_session_8090"]

    browser.post("/logout")
    browser.client.cookies.set("sw_session_8090", cookie, domain="127.0.0.1")

    assert browser.get("/").status_code == 303
    assert [entry.what for entry in desk.entries] == ["login", "logout"]


def test_who_fails_too_often_waits_and_others_do_not(stranger: Callable[[], Browser], desk: MemoryDesk) -> None:
    browser = stranger()

    answers = [browser.sign_in("wrong").status_code for _ in range(6)]
    right = browser.sign_in("editor").status_code
    desk.clock.now_ms += 31_000
    later = browser.sign_in("editor").status_code

    assert answers == [401, 401, 401, 401, 429, 429]
    assert (right, later) == (429, 303)
    assert [entry.what for entry in desk.entries].count("denied") == 5


def test_passwords_are_taken_from_who_has_one(desk: MemoryDesk, settings: ConsoleSettings) -> None:
    app = make_app(desk, Access([Account("ada", Role.OPERATOR, hashed("correct horse"))]), settings)
    with TestClient(app, base_url=ORIGIN) as client:
        browser = Browser(client)
        browser.get("/login")

        answers = [
            browser.post("/login", {"name": name, "password": password}).status_code
            for name, password in (("ada", "wrong"), ("bob", "correct horse"), ("ada", "correct horse"))
        ]

    assert answers == [401, 401, 303]
    assert desk.entries[-1].actor == "ada"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-forwarded-user": "ada"}, 303),
        ({"x-forwarded-user": "ada", "x-streamworker-proxy-secret": "guess"}, 303),
        ({"x-forwarded-user": "ada", "x-streamworker-proxy-secret": "s3cret"}, 200),
    ],
    ids=["no secret", "another secret", "the secret"],
)
def test_a_proxy_is_believed_only_with_its_secret(
    headers: dict[str, str], expected: int, desk: MemoryDesk, settings: ConsoleSettings
) -> None:
    proxy = TrustedProxy(networks("10.0.0.0/8"), "s3cret")
    app = make_app(desk, Access([Account("ada", Role.OPERATOR, PROXY)], proxy=proxy), settings)

    with TestClient(app, base_url=ORIGIN, client=("10.1.2.3", 4000)) as client:
        answer = client.get("/", headers=headers, follow_redirects=False)

    assert answer.status_code == expected
    assert ("operator" in answer.text) == (expected == 200)


def test_somebody_whom_the_proxy_no_longer_names_is_signed_out(desk: MemoryDesk, settings: ConsoleSettings) -> None:
    app = make_app(desk, Access(proxy=TrustedProxy(networks("10.0.0.0/8"), "s3cret")), settings)
    headers = {"x-forwarded-user": "ada", "x-streamworker-proxy-secret": "s3cret"}

    with TestClient(app, base_url=ORIGIN, client=("10.1.2.3", 4000)) as client:
        before = client.get("/", headers=headers, follow_redirects=False)
        after = client.get("/", follow_redirects=False)

    assert (before.status_code, after.status_code) == (200, 303)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "evil",
        "",
        "/\n/evil.example",
    ],
)
def test_nobody_is_sent_to_another_site_after_signing_in(url: str) -> None:
    assert own_path(url) == "/"


def test_signing_in_works_while_the_audit_cannot_be_written(
    stranger: Callable[[], Browser], desk: MemoryDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(actor: Actor, what: str, detail: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(desk, "noted", away)

    assert stranger().sign_in("viewer").status_code == 303
