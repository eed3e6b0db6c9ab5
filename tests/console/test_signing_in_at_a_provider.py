"""OpenID: what a provider must say, to whom, and in which browser, before somebody is signed in."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from console_browser import ORIGIN, Browser
from fake_provider import NOW_S, FakeProvider, fake_provider
from joserfc.jwk import OctKey, RSAKey
from starlette.testclient import TestClient

from streamworker.console.access import Access
from streamworker.console.accounts import OIDC, Account
from streamworker.console.app import make_app
from streamworker.console.oidc import Oidc
from streamworker.console.providers import Provider, is_safe
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from httpx2 import Response
    from memory_desk import MemoryDesk

    from streamworker.console.settings import ConsoleSettings

OTHERS = RSAKey.generate_key(2048, {"kid": "one", "alg": "RS256", "use": "sig"})


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as fake:
        yield fake


@pytest.fixture
def stranger(provider: FakeProvider, desk: MemoryDesk, settings: ConsoleSettings) -> Iterator[Callable[..., Browser]]:
    accounts = [Account("ada", Role.EDITOR, OIDC), Account("@admins", Role.ADMIN, OIDC)]
    configured = Provider(
        issuer=provider.issuer,
        client_id="console",
        client_secret="s3cr3t+secret/",
        redirect_url=f"{ORIGIN}/login/oidc/return",
    )
    oidc = Oidc(configured, desk.clock)
    app = make_app(desk, Access(accounts), settings, clock=desk.clock, oidc=oidc)
    with TestClient(app, base_url=ORIGIN):
        yield lambda: Browser(TestClient(app, base_url=ORIGIN, raise_server_exceptions=False))


def sent_off(browser: Browser, provider: FakeProvider) -> dict[str, str]:
    """What the browser asks of the provider."""
    location = browser.get("/login/oidc?next=/groups").headers["location"]
    assert location.startswith(f"{provider.issuer}/authorize?")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    provider.nonce = asked["nonce"]
    return asked


def come_back(browser: Browser, state: str) -> Response:
    page = browser.get(f"/login/oidc/return?code=c0de&state={state}")
    assert "data-send" in page.text
    return browser.post("/login/oidc/return", {"code": "c0de", "state": state})


def test_somebody_is_signed_in_as_whom_the_provider_names(
    stranger: Callable[[], Browser], provider: FakeProvider, desk: MemoryDesk
) -> None:
    browser = stranger()
    button = browser.get("/login").text

    asked = sent_off(browser, provider)
    answer = come_back(browser, asked["state"])

    assert f"Sign in at {urlsplit(provider.issuer).netloc}" in button
    assert (answer.status_code, answer.headers["location"]) == (303, "/groups")
    assert [(entry.what, entry.actor, entry.detail["via"]) for entry in desk.entries] == [("login", "ada", "oidc")]
    assert "<small>editor</small>" in browser.get("/").text


def test_the_code_is_bound_to_who_asked_for_it(stranger: Callable[[], Browser], provider: FakeProvider) -> None:
    browser = stranger()

    asked = sent_off(browser, provider)
    come_back(browser, asked["state"])

    digest = sha256(provider.asked["code_verifier"].encode()).digest()
    assert asked["code_challenge_method"] == "S256"
    assert urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
    assert provider.asked["authorization"] == "console:s3cr3t+secret/"
    assert (provider.asked["code"], provider.asked["redirect_uri"]) == ("c0de", f"{ORIGIN}/login/oidc/return")


@pytest.mark.parametrize(
    ("groups", "role"),
    [(["ops"], "editor"), (["admins"], "admin"), ("admins", "editor"), (None, "editor"), ([1, None], "editor")],
)
def test_groups_give_roles(groups: object, role: str, stranger: Callable[[], Browser], provider: FakeProvider) -> None:
    browser = stranger()
    provider.claims = {"groups": groups}

    come_back(browser, sent_off(browser, provider)["state"])

    assert f"<small>{role}</small>" in browser.get("/").text


def test_whom_no_line_names_is_a_viewer(stranger: Callable[[], Browser], provider: FakeProvider) -> None:
    browser = stranger()
    provider.claims = {"preferred_username": "eve"}

    come_back(browser, sent_off(browser, provider)["state"])

    assert "<small>viewer</small>" in browser.get("/").text


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "http://evil.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": None},
        {"aud": ["console", "another"], "azp": "another"},
        {"exp": NOW_S - 100},
        {"exp": None},
        {"iat": NOW_S + 1000},
        {"nonce": "another"},
        {"nonce": None},
        {"preferred_username": None},
        {"preferred_username": ["ada"]},
        {"preferred_username": "a\x1bda"},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_sign_in_is_not_believed(
    claims: dict[str, object], stranger: Callable[[], Browser], provider: FakeProvider
) -> None:
    browser = stranger()
    provider.claims = claims

    answer = come_back(browser, sent_off(browser, provider)["state"])

    assert answer.status_code == 401
    assert browser.get("/").status_code == 303


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(OTHERS, "RS256"), (OctKey.import_key("x" * 32), "HS256")],
    ids=["another key", "a shared secret"],
)
def test_a_token_that_somebody_else_signed_is_not_believed(
    key: RSAKey | OctKey, algorithm: str, stranger: Callable[[], Browser], provider: FakeProvider, desk: MemoryDesk
) -> None:
    browser = stranger()
    provider.key, provider.algorithm = key, algorithm

    answer = come_back(browser, sent_off(browser, provider)["state"])

    assert answer.status_code == 401
    assert desk.entries[-1].what == "denied"


def test_a_token_without_a_signature_is_not_believed(
    stranger: Callable[[], Browser], provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = stranger()

    def unsigned() -> str:
        parts = ({"alg": "none"}, {"iss": provider.issuer, "aud": "console", "exp": NOW_S + 9, "nonce": provider.nonce})
        return ".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."

    monkeypatch.setattr(provider, "token", unsigned)

    assert come_back(browser, sent_off(browser, provider)["state"]).status_code == 401


def test_what_was_begun_in_another_browser_is_not_ended_here(
    stranger: Callable[[], Browser], provider: FakeProvider
) -> None:
    one, other = stranger(), stranger()
    state = sent_off(one, provider)["state"]
    sent_off(other, provider)

    assert come_back(other, state).status_code == 401
    assert other.get("/").status_code == 303


def test_coming_back_counts_once_and_not_too_late(
    stranger: Callable[[], Browser], provider: FakeProvider, desk: MemoryDesk
) -> None:
    browser = stranger()
    state = sent_off(browser, provider)["state"]
    come_back(browser, state)

    again = come_back(browser, state)
    late = sent_off(browser, provider)["state"]
    desk.clock.now_ms += 601_000

    assert (again.status_code, come_back(browser, late).status_code) == (401, 401)


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "http://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
    ],
    ids=str,
)
def test_a_provider_that_is_not_the_one_configured_or_not_safe_is_not_used(
    document: dict[str, object], stranger: Callable[[], Browser], provider: FakeProvider
) -> None:
    provider.document = document

    answer = stranger().get("/login/oidc")

    assert answer.status_code == 503
    assert "location" not in answer.headers


def test_a_provider_that_is_away_is_said_to_be(stranger: Callable[[], Browser], provider: FakeProvider) -> None:
    browser = stranger()
    state = sent_off(browser, provider)["state"]
    provider.status = 500

    assert come_back(browser, state).status_code == 503


def test_what_the_provider_refuses_is_shown_as_text(stranger: Callable[[], Browser]) -> None:
    answer = stranger().get("/login/oidc/return?error=access_denied&error_description=<b>no</b>")

    assert answer.status_code == 401
    assert "&lt;b&gt;no" in answer.text


def test_an_address_is_safe_where_nobody_reads_along() -> None:
    assert is_safe("https://login.example/x")
    assert is_safe("http://127.0.0.1:9000/x")
    assert not any(map(is_safe, ("http://login.example", "ftp://127.0.0.1", "", "//login.example", "javascript:1")))
