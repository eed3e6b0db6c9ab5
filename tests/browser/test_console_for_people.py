"""What a person does at the console, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import OperationState, Role
from streamworker.replay.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page
    from served_console import Served, Visitor

PAGES = [
    "/",
    "/topics/orders.dlq",
    "/topics/orders.dlq?view=letters&q=state:pending",
    "/topics/orders.dlq?view=letters&q=state:discarded",
    "/topics/orders.dlq?q=stat:pending",
    "/topics/orders.dlq/0/4",
    "/topics/orders.dlq/2/60",
    "/topics/payments.dlq/0/3",
    "/topics/orders.dlq/0/4/repair",
    "/topics/orders.dlq/prepare?action=discard&id=0:4",
    "/topics/orders.dlq/prepare?action=replay&q=state:pending",
    "/operations",
    "/groups",
    "/audit",
    "/nowhere",
]
REFUSED = ("log: Failed to load resource",)  # the browser's own word on pages that are an error
_OVERFLOW = "() => document.scrollingElement.scrollWidth - document.documentElement.clientWidth"
_CONTRASTS = """() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) { return colour; }
    }
    return [255, 255, 255, 1];
  };
  const poor = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".skip, .aside, :disabled")) { continue; }
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) { poor.add(`${element.tagName}.${element.className} ${ratio}: ${element.textContent}`); }
  }
  return [...poor];
}"""


def state(served: Served, partition: int, offset: int) -> State:
    return served.desk.detail("orders.dlq", LetterId(partition, offset)).listed.state


def repair_and_replay(page: Page) -> None:
    """From the overview to the outcome, as somebody does it who has never been here."""
    page.get_by_role("link", name="UnknownCurrency").click()
    page.get_by_role("link", name="0:4", exact=True).click()
    page.get_by_role("link", name="Repair…").click()
    field = page.get_by_label("Value, as json")
    field.fill(field.input_value().replace("XXX", "EUR"))
    page.get_by_role("button", name="Preview").click()
    expect(page.locator(".lines .added")).to_have_text('+  "currency": "EUR",')
    page.get_by_role("button", name="Repair and send").click()
    page.get_by_role("link", name="Letter 0:4").click()


def test_a_person_finds_a_failed_record_repairs_previews_and_replays_it_and_sees_it_handled(
    visitor: Callable[..., Visitor], served: Served
) -> None:
    page = visitor(Role.EDITOR).page

    repair_and_replay(page)

    expect(page.locator("#outcome")).to_contain_text("Waiting")
    expect(page.locator("#outcome")).to_contain_text("has been handled")  # by itself
    assert state(served, 0, 4) is State.REPAIRED


def test_all_of_it_works_without_scripts(visitor: Callable[..., Visitor], served: Served) -> None:
    page = visitor(Role.EDITOR, java_script_enabled=False).page

    repair_and_replay(page)
    page.reload()

    expect(page.locator("#outcome")).to_contain_text("has been handled")
    assert state(served, 0, 4) is State.REPAIRED


def test_letters_are_chosen_without_scripts(visitor: Callable[..., Visitor], served: Served) -> None:
    visit = visitor(Role.OPERATOR, java_script_enabled=False)
    page = visit.go("/topics/orders.dlq?view=letters&q=state:pending")

    page.get_by_label("0:0", exact=True).check()
    page.get_by_label("0:1", exact=True).check()
    page.get_by_role("button", name="Replay").click()
    page.get_by_role("button", name="Make a plan").click()
    page.get_by_role("button", name="Replay 2").click()

    expect(page.locator("main")).to_contain_text("2 of 2")
    assert {state(served, 0, 0), state(served, 0, 1)} == {State.REPLAYED}


def test_a_run_is_watched_while_it_goes_on_and_stopped(visitor: Callable[..., Visitor], served: Served) -> None:
    served.desk.step = 0
    page = visitor(Role.OPERATOR).go("/topics/orders.dlq")
    page.get_by_role("button", name="Replay").first.click()
    page.get_by_role("button", name="Make a plan").click()
    page.get_by_role("button", name="Replay 42").click()
    expect(page.locator("main")).to_contain_text("0 of 42")
    address = page.url

    served.desk.work("op-0001", 5)
    expect(page.locator("main")).to_contain_text("5 of 42")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("main")).to_contain_text("paused")
    page.get_by_role("button", name="Go on").click()
    served.desk.step = 50
    expect(page.locator("main")).to_contain_text("42 of 42")
    expect(page.get_by_role("button", name="Abort")).to_have_count(0)

    assert page.url == address
    assert served.desk.operations()[0].state is OperationState.DONE


def test_keys_do_what_they_say(visitor: Callable[..., Visitor], served: Served) -> None:
    page = visitor(Role.EDITOR).go("/topics/orders.dlq?view=letters&q=state:pending")

    for key in ("j", "j", "x", "j", "x"):
        page.keyboard.press(key)
    expect(page.locator("[data-count]")).to_have_text("2 chosen")
    page.keyboard.press("/")
    expect(page.locator("[data-filter]")).to_be_focused()
    page.keyboard.type("x")  # in the field, where keys are letters
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/topics/orders\.dlq/\d+/\d+$"))
    following = page.locator('[data-key="]"]').get_attribute("href")
    page.keyboard.press("]")
    page.wait_for_url(f"**{following}")
    page.keyboard.press("e")
    page.wait_for_url("**/repair")
    page.go_back()
    for key in ("g", "a"):
        page.keyboard.press(key)
    page.wait_for_url("**/audit")


def test_light_and_dark_are_kept(visitor: Callable[..., Visitor]) -> None:
    visit = visitor(color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    before = visit.page.evaluate(ground)

    visit.page.get_by_role("button", name="Light or dark").click()
    visit.go("/operations")

    assert visit.page.evaluate(ground) != before
    assert visit.page.evaluate("() => document.documentElement.dataset.theme") == "dark"


def test_what_is_typed_is_not_lost_by_going_back(visitor: Callable[..., Visitor]) -> None:
    page = visitor(Role.EDITOR).go("/topics/orders.dlq/0/4/repair")
    field = page.get_by_label("Value, as json")
    field.fill(field.input_value().replace("XXX", "USD"))
    page.get_by_role("button", name="Preview").click()

    page.get_by_role("link", name="Edit again").click()

    assert '"USD"' in field.input_value()


def test_a_value_is_edited_byte_for_byte(visitor: Callable[..., Visitor], served: Served) -> None:
    page = visitor(Role.EDITOR).go("/topics/orders.dlq/1/2/repair")
    field = page.get_by_label("Value, as json")
    before = served.desk.text_of("orders.dlq", LetterId(1, 2))

    field.fill(before.replace("v1/placed", "v2/placed 😀\\u0000"))
    page.get_by_role("button", name="Preview").click()
    page.wait_for_url("**/plans/*")

    request = served.desk.planned(page.url.rpartition("/")[2]).request
    assert request.edited == before.replace("v1/placed", "v2/placed 😀\\u0000")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(scheme: str, visitor: Callable[..., Visitor]) -> None:
    visit = visitor(color_scheme=scheme)
    visit.expected = REFUSED

    poor = {path: found for path in PAGES if (found := visit.go(path).evaluate(_CONTRASTS))}

    assert poor == {}


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_a_small_screen(width: int, visitor: Callable[..., Visitor], served: Served) -> None:
    visit = visitor(viewport={"width": width, "height": 780})
    visit.expected = REFUSED

    wider = {path: over for path in PAGES if (over := visit.go(path).evaluate(_OVERFLOW)) > 0}

    assert wider == {}


def test_a_form_of_another_site_does_nothing(visitor: Callable[..., Visitor], served: Served) -> None:
    visit = visitor()
    visit.expected = ("fetched: http://evil.example/", *REFUSED)
    fields = '<input name="action" value="replay"><input name="id" value="0:4"><button>Win</button>'
    form = f'<form method="post" action="{served.origin}/topics/orders.dlq/plans">{fields}</form>'
    visit.context.route("http://evil.example/**", lambda route: route.fulfill(body=form, content_type="text/html"))
    visit.page.goto("http://evil.example/")

    visit.page.get_by_role("button", name="Win").click()
    expect(visit.page.locator("main")).to_contain_text("You are not signed in")  # the cookie is not sent along

    assert served.desk.changes == 0


def test_no_other_site_shows_the_console_in_a_frame(visitor: Callable[..., Visitor], served: Served) -> None:
    visit = visitor()
    visit.expected = ("fetched: http://evil.example/", "log: ")
    frame = f'<iframe src="{served.origin}/topics/orders.dlq"></iframe>'
    visit.context.route("http://evil.example/**", lambda route: route.fulfill(body=frame, content_type="text/html"))

    visit.page.goto("http://evil.example/")

    assert all("orders.dlq" not in one.content() for one in visit.page.frames[1:])
