"""Each route has a role, a form's token and an audit, by what stands before it and not by who remembers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from starlette.routing import Route

from streamworker.console.access import Access
from streamworker.console.app import SCREENS, make_app
from streamworker.console.routing import route
from streamworker.errors import ConfigurationError
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from console_browser import Browser
    from memory_desk import MemoryDesk

    from streamworker.console.routing import Guarded
    from streamworker.console.settings import ConsoleSettings

# Who may come without a session, and why. Nothing else may.
OPEN = {
    "/static/{version}/{name}": "style and scripts of the page for signing in",
    "/login": "to begin a session",
    "/login/oidc": "to sign in at a provider",
    "/login/oidc/return": "to come back from there",
    "/logout": "to end one that may have ended already",
}
# What each page asks for at least. A page that is not here fails: say who may see it.
ROLES = {
    ("GET", "/"): Role.VIEWER,
    ("GET", "/topics/{topic}"): Role.VIEWER,
    ("GET", "/topics/{topic}/prepare"): Role.OPERATOR,
    ("POST", "/topics/{topic}/plans"): Role.OPERATOR,
    ("GET", "/topics/{topic}/{partition:int}/{offset:int}"): Role.VIEWER,
    ("GET", "/topics/{topic}/{partition:int}/{offset:int}/outcome"): Role.VIEWER,
    ("GET", "/topics/{topic}/{partition:int}/{offset:int}/value"): Role.READER,
    ("GET", "/topics/{topic}/{partition:int}/{offset:int}/repair"): Role.EDITOR,
    ("POST", "/topics/{topic}/{partition:int}/{offset:int}/repair"): Role.EDITOR,
    ("GET", "/plans/{plan}"): Role.OPERATOR,
    ("POST", "/plans/{plan}/run"): Role.OPERATOR,
    ("GET", "/operations"): Role.VIEWER,
    ("GET", "/operations/{op}"): Role.VIEWER,
    ("GET", "/operations/{op}/events"): Role.VIEWER,
    ("POST", "/operations/{op}/pause"): Role.OPERATOR,
    ("POST", "/operations/{op}/resume"): Role.OPERATOR,
    ("POST", "/operations/{op}/abort"): Role.OPERATOR,
    ("GET", "/audit"): Role.READER,
    ("GET", "/groups"): Role.VIEWER,
}
GUARDED = [page for page in SCREENS if page.role is not None]
CHANGING = [page for page in SCREENS if page.changes]


def named(page: Guarded) -> str:
    return f"{'+'.join(page.methods)} {page.path}"


def address(page: Guarded) -> str:
    """One that fits its path."""
    given = {"topic": "orders.dlq", "partition:int": "0", "offset:int": "4"}
    return re.sub(r"\{([^}]+)\}", lambda found: given.get(found[1], "none"), page.path)


def test_the_application_serves_what_is_declared_and_nothing_else(desk: MemoryDesk, settings: ConsoleSettings) -> None:
    app = make_app(desk, Access(), settings)

    served = [(one.path, set(one.methods or ()) - {"HEAD"}) for one in app.routes if isinstance(one, Route)]

    assert served == [(page.path, set(page.methods)) for page in SCREENS]
    assert len(served) == len(app.routes)


def test_only_signing_in_and_out_is_open_to_strangers() -> None:
    assert {page.path for page in SCREENS if page.role is None} == set(OPEN)


def test_every_page_has_the_role_that_was_decided_for_it() -> None:
    assert {(page.methods[0], page.path): page.role for page in GUARDED} == ROLES


@pytest.mark.parametrize("page", SCREENS, ids=named)
def test_what_changes_something_is_audited_and_is_no_get(page: Guarded) -> None:
    assert (page.audits in {"desk", "here"}) == page.changes
    assert page.methods in {("GET",), ("POST",)}


def test_a_page_that_changes_something_without_an_audit_cannot_be_declared() -> None:
    with pytest.raises(ConfigurationError, match="audited"):
        route("/purge", role=Role.ADMIN, methods=("POST",))


@pytest.mark.parametrize("page", GUARDED, ids=named)
def test_a_stranger_gets_no_further_than_signing_in(
    page: Guarded, stranger: Callable[[], Browser], desk: MemoryDesk
) -> None:
    browser = stranger()
    browser.get("/login")

    answer = browser.get(address(page)) if not page.changes else browser.post(address(page))

    assert (answer.status_code, desk.changes) in {(303, 0), (401, 0)}
    assert "orders" not in answer.text


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.name.lower())
@pytest.mark.parametrize("page", GUARDED, ids=named)
def test_a_lesser_role_is_refused_on_the_server_and_the_refusal_is_audited(
    page: Guarded, role: Role, somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(role)

    answer = browser.post(address(page)) if page.changes else browser.get(address(page))

    assert page.role is not None
    denied = [entry for entry in desk.entries if entry.what == "denied"]
    if role < page.role:
        assert answer.status_code == 403
        assert [entry.actor for entry in denied] == [role.name.lower()]
        assert desk.changes == 0
    else:
        assert answer.status_code != 403
        assert not denied


@pytest.mark.parametrize("page", CHANGING, ids=named)
@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({"csrf": ""}, {}),
        ({"csrf": "x" * 43}, {}),
        ({}, {"origin": "https://evil.example"}),
        ({}, {"origin": "null"}),
        ({}, {"origin": "http://127.0.0.1:8091"}),
        ({}, {"origin": "", "sec-fetch-site": "cross-site"}),
    ],
    ids=["no token", "another token", "another site", "no origin", "another port", "cross-site"],
)
def test_a_form_that_is_not_of_this_session_and_this_site_changes_nothing(
    page: Guarded,
    form: dict[str, object],
    headers: dict[str, str],
    somebody: Callable[[Role], Browser],
    desk: MemoryDesk,
) -> None:
    browser = somebody(Role.ADMIN)

    answer = browser.post(address(page), {"action": "replay", "id": "0:4", **form}, **headers)

    assert answer.status_code == 403
    assert desk.changes == 0
    assert [entry.what for entry in desk.entries] == ["login", "denied"]
