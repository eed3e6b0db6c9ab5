"""Signing in at an OpenID provider of another site, with the cookies that a real browser sends."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from fake_provider import FakeProvider, fake_provider
from memory_desk import shop
from playwright.sync_api import expect
from served_console import Served, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Route


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as fake:
        fake.document = {"authorization_endpoint": "https://login.example/authorize"}
        yield fake


@pytest.fixture
def served(provider: FakeProvider) -> Iterator[Served]:
    with serving(shop(), provider) as console:
        yield console


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_a_person_comes_back_from_another_site_signed_in(
    scripts: bool, browser: Browser, served: Served, provider: FakeProvider
) -> None:
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()

    def back(route: Route) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        provider.nonce = asked["nonce"]
        url = f"{asked['redirect_uri']}?{urlencode({'code': 'c0de', 'state': asked['state']})}"
        route.fulfill(content_type="text/html", body=f'<a href="{url.replace("&", "&amp;")}">Back</a>')

    context.route("https://login.example/**", back)
    page.goto(f"{served.origin}/groups")

    page.get_by_role("link", name="Sign in at").click()
    page.get_by_role("link", name="Back").click()
    if not scripts:
        page.get_by_role("button", name="Go on").click()

    expect(page.get_by_role("heading", name="Consumer groups")).to_be_visible()
    expect(page.locator(".who")).to_contain_text("ada viewer")
    context.close()
