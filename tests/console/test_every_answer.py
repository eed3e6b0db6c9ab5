"""What holds for all answers: hosts, headers, bounds, and errors that tell people what to do."""

from __future__ import annotations

import hashlib
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import streamworker.console
from streamworker.console.settings import ConsoleSettings
from streamworker.errors import ClientError
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from console_browser import Browser
    from memory_desk import MemoryDesk

HERE = Path(streamworker.console.__file__).parent
PAGES = ["/", "/topics/orders.dlq", "/topics/orders.dlq/0/4", "/operations", "/groups", "/audit", "/login", "/nowhere"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:8091", "127.0.0.1", "localhost.evil.example:8090", ""])
def test_a_name_that_is_not_ours_is_refused(host: str, stranger: Callable[[], Browser]) -> None:
    answer = stranger().get("/login", host=host)

    assert answer.status_code == 421
    assert "--public-url" in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_every_page_forbids_code_of_its_own_and_of_others(path: str, somebody: Callable[[Role], Browser]) -> None:
    answer = somebody(Role.ADMIN).get(path)

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "frame-ancestors 'none'; base-uri 'none'; form-action 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("template", sorted((HERE / "templates").glob("*.html")), ids=lambda path: path.name)
def test_no_template_has_code_a_style_or_an_address_of_another_site_in_it(template: Path) -> None:
    text = template.read_text()

    assert not re.findall(r"\son\w+=|\sstyle=|<style|hx-on|js:|javascript:|\|\s*safe|autoescape|https?://", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    assert not re.findall(r"""=(?:\{\{|[^"'\s>=]*\{\{)""", re.sub(r"\{%.*?%\}", "", text)), (
        "an attribute without quotes"
    )


def test_scripts_make_no_code_of_text() -> None:
    text = (HERE / "static" / "console.js").read_text()

    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|\.style\b", text
    )


def test_what_is_not_ours_is_as_it_was_published() -> None:
    listed = re.findall(r"\| (\S+\.js) \|.*?\| ([0-9a-f]{64}) \|", (HERE / "static" / "THIRD-PARTY.md").read_text())

    found = {name: hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest() for name, _ in listed}

    assert found == dict(listed)
    assert set(found) == {path.name for path in (HERE / "static").glob("*.min.js")}


def test_a_page_asks_for_nothing_that_is_not_there(somebody: Callable[[Role], Browser]) -> None:
    browser = somebody(Role.ADMIN)
    wanted = re.findall(r'(?:src|href)="(/static/[^"]+)"', browser.get("/").text)

    answers = [browser.get(path) for path in wanted]

    assert len(wanted) == 6
    assert {answer.status_code for answer in answers} == {200}
    assert all("immutable" in answer.headers["cache-control"] for answer in answers)


def test_a_file_that_was_not_named_is_never_read(stranger: Callable[[], Browser]) -> None:
    for name in ("..%2fapp.py", "%2e%2e/app.py", "THIRD-PARTY.md", "console.css%00", "....//app.py"):
        assert stranger().get(f"/static/x/{name}").status_code in {303, 404}


def test_a_form_that_is_too_large_is_not_read_to_its_end(somebody: Callable[[Role], Browser]) -> None:
    browser = somebody(Role.ADMIN)

    answer = browser.post("/topics/orders.dlq/plans", {"note": "x" * 70_000})

    assert answer.status_code == 413


def test_the_form_of_a_repair_takes_a_whole_record_and_no_more(somebody: Callable[[Role], Browser]) -> None:
    browser = somebody(Role.ADMIN)

    fits = browser.post("/topics/orders.dlq/0/4/repair", {"edited": '"' + "x" * 1_000_000 + '"'})
    too_large = browser.post("/topics/orders.dlq/0/4/repair", {"edited": "x" * 4_000_000})

    assert (fits.status_code, too_large.status_code) == (303, 413)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_what_is_no_form_is_refused(kind: str, somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    answer = somebody(Role.ADMIN).post("/topics/orders.dlq/plans", {"action": "replay"}, **{"content-type": kind})

    assert answer.status_code == 415
    assert desk.changes == 0


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (ClientError("brokers are away", code="_TRANSPORT", retriable=True), 503, "Look whether the brokers"),
        (RuntimeError("s3cr3t-in-a-stack"), 500, "The reason is in the log"),
    ],
    ids=["the cluster", "a mistake of ours"],
)
def test_an_error_says_what_to_do_and_shows_no_stack(
    raised: Exception,
    status: int,
    said: str,
    somebody: Callable[[Role], Browser],
    desk: MemoryDesk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> None:
        raise raised

    monkeypatch.setattr(desk, "topics", fails)

    answer = somebody(Role.VIEWER).get("/")

    assert answer.status_code == status
    assert said in answer.text
    assert "s3cr3t" not in answer.text
    assert "Traceback" not in answer.text


class TestPatience:
    @pytest.fixture
    def settings(self) -> ConsoleSettings:
        return ConsoleSettings(origins=["http://127.0.0.1:8090"], query_timeout_s=0.05, most_at_once=1, most_waiting=0)

    def test_a_question_that_takes_too_long_is_given_up_and_others_are_told_to_wait(
        self, somebody: Callable[[Role], Browser], desk: MemoryDesk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        browser, go = somebody(Role.VIEWER), threading.Event()
        monkeypatch.setattr(desk, "groups", lambda: go.wait(30) and [])

        first, second = browser.get("/groups"), browser.get("/operations")
        go.set()

        assert (first.status_code, second.status_code) == (504, 503)
        assert "Choose fewer letters" in first.text
        assert "Too many people" in second.text


class TestReadOnly:
    @pytest.fixture
    def settings(self) -> ConsoleSettings:
        return ConsoleSettings(origins=["http://127.0.0.1:8090"], read_only=True)

    def test_a_read_only_console_changes_nothing_for_anybody(
        self, somebody: Callable[[Role], Browser], desk: MemoryDesk
    ) -> None:
        browser = somebody(Role.ADMIN)

        page = browser.get("/topics/orders.dlq/0/4").text
        answer = browser.post("/topics/orders.dlq/plans", {"action": "replay", "id": "0:4"})

        assert "Replay" not in page.partition("<main")[2].partition("<dialog")[0]
        assert answer.status_code == 403
        assert desk.changes == 0
        assert desk.entries[-1].what == "denied"
