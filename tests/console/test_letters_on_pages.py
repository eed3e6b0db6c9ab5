"""What people see of letters, by role, and what they find."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

import pytest
from memory_desk import dead

from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from console_browser import Browser
    from memory_desk import MemoryDesk

LETTER = "/topics/orders.dlq/9/7"
EVERYWHERE = [
    "/",
    "/topics/orders.dlq",
    "/topics/orders.dlq?view=letters",
    LETTER,
    f"{LETTER}/outcome",
    "/operations",
    "/groups",
]


@pytest.fixture
def canary(desk: MemoryDesk) -> MemoryDesk:
    """A letter with something to be found in each of its parts."""
    desk.letters.append(
        dead(
            9,
            7,
            age_min=0,
            key=b"canary-key",
            value=b'{"card": "canary-value"}',
            message="canary-message",
            stacktrace="canary-stack",
            exception="shop.Canary",
            headers=[("canary-name", b"canary-header")],
            damaged=("canary-damaged",),
        )
    )
    return desk


@pytest.mark.parametrize("path", EVERYWHERE)
def test_a_viewer_sees_no_key_header_text_of_an_error_or_payload(
    path: str, somebody: Callable[[Role], Browser], canary: MemoryDesk
) -> None:
    answer = somebody(Role.VIEWER).get(path)

    assert answer.status_code in {200, 286}
    assert "canary-" not in answer.text


def test_a_reader_sees_all_of_a_letter(somebody: Callable[[Role], Browser], canary: MemoryDesk) -> None:
    text = somebody(Role.READER).get(LETTER).text

    for part in ("key", "value", "message", "stack", "name", "header", "damaged"):
        assert f"canary-{part}" in text


@pytest.mark.parametrize("filter_", ["key:8804", "header.tenant:acme", 'text:"timeout"', "payload~canary"])
@pytest.mark.parametrize("view", ["errors", "letters"])
def test_a_viewer_cannot_find_out_by_asking_what_is_not_shown(
    filter_: str, view: str, somebody: Callable[[Role], Browser], canary: MemoryDesk
) -> None:
    viewer, reader = somebody(Role.VIEWER), somebody(Role.READER)

    path = f"/topics/orders.dlq?view={view}&q={filter_}"

    assert viewer.get(path).status_code == 403
    assert reader.get(path).status_code == 200
    assert [entry.actor for entry in canary.entries if entry.what == "denied"] == ["viewer"]


def test_what_is_masked_is_shown_masked_downloaded_masked_and_not_edited(
    somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(Role.ADMIN)

    page = browser.get("/topics/payments.dlq/0/3")
    file = browser.get("/topics/payments.dlq/0/3/value")
    editor = browser.get("/topics/payments.dlq/0/3/repair")
    sent = browser.post("/topics/payments.dlq/0/3/repair", {"edited": '{"card": "***"}'})

    assert "4111" not in page.text + file.text + editor.text
    assert "***" in page.text
    assert "/repair" not in page.text
    assert (editor.status_code, sent.status_code) == (409, 409)
    assert desk.changes == 0


def test_a_value_is_downloaded_as_the_bytes_that_it_is(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    answer = somebody(Role.READER).get("/topics/orders.dlq/2/60/value")

    assert answer.content == b"\xff\xfe\x00\x01not json"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="orders.dlq-2-60.bin"'


@pytest.mark.parametrize(
    "path",
    [
        "/topics/none.dlq",
        "/topics/..%2f..%2fetc",
        "/topics/orders.dlq/0/999",
        "/topics/orders.dlq/0/99999999999999999999999",
        "/plans/none",
        "/operations/none",
    ],
)
def test_what_is_not_there_is_said_to_be_not_there(path: str, somebody: Callable[[Role], Browser]) -> None:
    answer = somebody(Role.ADMIN).get(path)

    assert answer.status_code == 404
    assert "There is no" in unescape(answer.text).replace("there is no", "There is no")


def test_a_filter_that_cannot_be_meant_is_said_beside_it_and_stays_in_its_field(
    somebody: Callable[[Role], Browser],
) -> None:
    answer = somebody(Role.VIEWER).get("/topics/orders.dlq?q=stat:pending")

    assert answer.status_code == 422
    assert "no field is called &#39;stat&#39;" in answer.text
    assert 'value="stat:pending"' in answer.text


def test_letters_come_in_pages_and_every_one_once(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    desk.letters.extend(dead(5, n) for n in range(120))
    browser, path, seen = somebody(Role.VIEWER), "/topics/orders.dlq?view=letters&q=state:pending", []

    while path:
        text = browser.get(path).text
        seen += re.findall(r'<a class="mono" href="/topics/orders\.dlq/(\d+)/(\d+)"', text)
        older = re.search(r'href="([^"]+)">Older<', text)
        path = unescape(older[1]) if older else ""

    assert len(seen) == len(set(seen)) == 162


def test_a_letter_links_to_its_neighbours_and_to_its_like(somebody: Callable[[Role], Browser]) -> None:
    text = somebody(Role.VIEWER).get("/topics/orders.dlq/0/4").text

    assert 'href="/topics/orders.dlq/0/3" data-key="["' in text
    assert 'href="/topics/orders.dlq/0/5" data-key="]"' in text
    assert re.search(r'href="/topics/orders\.dlq\?q=fp%3A[0-9a-f]{16}&amp;view=letters"', text)


def test_characters_that_nobody_sees_are_named(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    desk.letters.append(dead(9, 8, value="user\u202egnp.exe".encode()))

    text = somebody(Role.READER).get("/topics/orders.dlq/9/8").text

    assert "U+202E" in text


def test_a_topic_without_letters_that_match_says_what_to_do(somebody: Callable[[Role], Browser]) -> None:
    text = somebody(Role.VIEWER).get("/topics/orders.dlq?q=state:discarded&view=letters").text

    assert "No letters match" in text


def test_a_desk_without_anything_says_what_to_do(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    browser = somebody(Role.ADMIN)
    desk.letters.clear()
    desk.group_summaries.clear()
    desk.entries.clear()

    pages = [browser.get(path).text for path in ("/", "/operations", "/groups", "/audit")]

    said = ("No dead-letter topics", "Nothing was done yet", "No groups", "The audit is empty")
    assert [words in page for words, page in zip(said, pages, strict=True)] == [True] * 4


def test_the_audit_is_found_by_a_word(somebody: Callable[[Role], Browser]) -> None:
    somebody(Role.VIEWER)

    text = somebody(Role.READER).get("/audit?text=viewer").text

    assert text.count("<tr data-row>") == 1


def test_a_letter_tells_what_became_of_it_until_it_is_known(
    somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(Role.OPERATOR)
    plan = browser.post("/topics/orders.dlq/plans", {"action": "replay", "id": "0:4"}).headers["location"]
    browser.get(browser.post(f"{plan}/run").headers["location"])

    first = browser.get("/topics/orders.dlq/0/4")
    then = browser.get("/topics/orders.dlq/0/4/outcome", **{"hx-poll": "1"})

    assert 'hx-trigger="every 2s"' in first.text
    assert "has not been handled yet" in first.text
    assert (then.status_code, "hx-trigger" in then.text) == (286, False)
    assert "has been handled" in then.text
    assert LetterId(0, 4) in {letter.id for letter in desk.letters}


def test_a_page_of_a_pending_letter_is_shown_anew_once_something_was_sent(
    somebody: Callable[[Role], Browser],
) -> None:
    browser = somebody(Role.OPERATOR)
    asked = "/topics/orders.dlq/0/4/outcome?unsent=1"
    shown, before = browser.get("/topics/orders.dlq/0/4"), browser.get(asked, **{"hx-poll": "1"})

    plan = browser.post("/topics/orders.dlq/plans", {"action": "replay", "id": "0:4"}).headers["location"]
    browser.get(browser.post(f"{plan}/run").headers["location"])
    then = browser.get(asked, **{"hx-poll": "1"})

    assert f'hx-get="{asked}"' in shown.text
    assert (before.status_code, before.headers.get("hx-refresh")) == (204, None)
    assert (then.status_code, then.headers.get("hx-refresh")) == (204, "true")
