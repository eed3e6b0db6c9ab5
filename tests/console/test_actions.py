"""From choosing letters to a run, in forms alone, as it goes without scripts."""

from __future__ import annotations

from html import unescape
from typing import TYPE_CHECKING

import pytest
from memory_desk import NOW_MS, dead

from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import OperationState, Role
from streamworker.replay.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from console_browser import Browser
    from memory_desk import MemoryDesk

PLANS = "/topics/orders.dlq/plans"


def ran(browser: Browser, plan: str, **form: object) -> str:
    """Begin it, and look once; where its operation is shown."""
    answer = browser.post(f"{plan}/run", form)
    assert answer.status_code == 303, answer.text
    browser.get(answer.headers["location"])
    return answer.headers["location"]


def planned(browser: Browser, **form: object) -> str:
    answer = browser.post(PLANS, form)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def state(desk: MemoryDesk, partition: int, offset: int) -> State:
    return desk.detail("orders.dlq", LetterId(partition, offset)).listed.state


def test_a_letter_is_replayed_by_a_plan_that_is_confirmed(
    somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(Role.OPERATOR)

    plan = planned(browser, action="replay", id="0:4")
    shown, untouched = browser.get(plan).text, state(desk, 0, 4)
    ran(browser, plan)

    assert "Replay 1 letter?" in shown
    assert "orders.replay.orders-eu" in shown
    assert (untouched, state(desk, 0, 4)) == (State.PENDING, State.REPLAYED)
    assert [entry.what for entry in desk.entries] == ["login", "plan", "replay"]


def test_all_that_match_a_filter_are_acted_on_and_no_others(
    somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(Role.OPERATOR)
    filter_ = "state:pending exception:streamworker.errors.DecodeError"
    form = browser.get(f"/topics/orders.dlq/prepare?action=replay&q={filter_}").text

    ran(browser, planned(browser, action="replay", q=filter_), records_per_s="100", canary="5")

    assert filter_ in form
    states = desk.topics()[0].states
    assert states[State.REPLAYED] == 11


def test_a_discard_takes_a_reason_and_a_note(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    browser = somebody(Role.OPERATOR)

    without = browser.post(PLANS, {"action": "discard", "id": "0:4", "reason_code": "obsolete"}).status_code
    ran(browser, planned(browser, action="discard", id="0:4", reason_code="obsolete", note="sold twice"))

    assert without == 422
    said = desk.detail("orders.dlq", LetterId(0, 4)).history[-1]
    assert (said.state, said.reason_code, said.note) == (State.DISCARDED, "obsolete", "sold twice")


def test_what_was_discarded_is_restored(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    browser = somebody(Role.OPERATOR)
    ran(browser, planned(browser, action="discard", id="0:4", reason_code="other", note="a mistake"))

    page = browser.get("/topics/orders.dlq/0/4").text
    ran(browser, planned(browser, action="restore", id="0:4"))

    assert 'value="restore"' in page
    assert 'value="replay"' not in page
    assert state(desk, 0, 4) is State.PENDING


def test_a_letter_is_snoozed_and_assigned(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    browser = somebody(Role.OPERATOR)

    ran(browser, planned(browser, action="snooze", id="0:4", hours="4"))
    ran(browser, planned(browser, action="assign", id="0:5", assignee="ada"))

    assert desk.detail("orders.dlq", LetterId(0, 4)).history[-1].snoozed_until_ms == NOW_MS + 4 * 3_600_000
    assert "ada" in browser.get("/topics/orders.dlq/0/5").text


def test_a_repaired_letter_is_shown_beside_what_it_was_before_it_is_sent(
    somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(Role.EDITOR)
    text = desk.text_of("orders.dlq", LetterId(0, 4))

    answer = browser.post("/topics/orders.dlq/0/4/repair", {"edited": text.replace("XXX", "EUR").replace("\n", "\r\n")})
    plan = answer.headers["location"]
    shown = unescape(browser.get(plan).text)
    ran(browser, plan)

    assert '<span class="removed">-  "currency": "XXX",' in shown
    assert '<span class="added">+  "currency": "EUR",' in shown
    assert "Reads as its type" in shown
    assert state(desk, 0, 4) is State.REPAIRED
    assert desk.planned(plan.rpartition("/")[2]).request.edited == text.replace("XXX", "EUR")


@pytest.mark.parametrize(
    ("edited", "said"),
    [('{"order": 1,}', "This is not JSON: line 1, column"), (None, "Nothing was changed")],
    ids=["no JSON", "the same"],
)
def test_an_edit_that_cannot_be_meant_comes_back_with_the_reason(
    edited: str | None, said: str, somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(Role.EDITOR)
    text = desk.text_of("orders.dlq", LetterId(0, 4)) if edited is None else edited

    answer = browser.post("/topics/orders.dlq/0/4/repair", {"edited": text})

    assert answer.status_code == 422
    assert said in answer.text
    assert text in unescape(answer.text)
    assert desk.changes == 0


def test_an_edit_that_does_not_fit_its_type_is_said_and_can_be_edited_again(
    somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(Role.EDITOR)
    text = desk.text_of("orders.dlq", LetterId(0, 4)).replace("v1/placed", "v2/placed")

    plan = browser.post("/topics/orders.dlq/0/4/repair", {"edited": text}).headers["location"]
    shown = browser.get(plan).text
    again = browser.get(f"/topics/orders.dlq/0/4/repair?plan={plan.rpartition('/')[2]}").text

    assert "does not fit" in shown
    assert "v2/placed" in again


def test_letters_are_repaired_by_a_function_of_the_application(
    somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    browser = somebody(Role.EDITOR)

    form = browser.get("/topics/orders.dlq/prepare?action=repair&q=state:pending").text
    plan = planned(browser, action="repair", id=["1:0", "1:1"], function="v1-to-v2-status")
    shown = browser.get(plan).text
    ran(browser, plan)

    assert "<option>v1-to-v2-status</option>" in form
    assert shown.count('class="card diff"') == 2
    assert state(desk, 1, 1) is State.REPAIRED


@pytest.mark.parametrize(
    ("role", "form"),
    [
        (Role.OPERATOR, {"action": "repair", "id": "1:0", "function": "v1-to-v2-status"}),
        (Role.EDITOR, {"action": "replay", "id": "1:0", "force": "on"}),
    ],
    ids=["repair", "force"],
)
def test_some_requests_ask_for_more_than_their_page(
    role: Role, form: dict[str, object], somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    answer = somebody(role).post(PLANS, form)

    assert answer.status_code == 403
    assert desk.changes == 0
    assert desk.entries[-1].what == "denied"


class TestMoreThanAThousand:
    @pytest.fixture
    def many(self, desk: MemoryDesk) -> MemoryDesk:
        desk.letters.extend(dead(5, n, exception="shop.Many") for n in range(1001))
        return desk

    def test_are_for_admins(self, somebody: Callable[[Role], Browser], many: MemoryDesk) -> None:
        browser = somebody(Role.EDITOR)
        plan = planned(browser, action="replay", q="exception:shop.Many")

        page, answer = browser.get(plan).text, browser.post(f"{plan}/run", {"count": "1001"})

        assert "are for admins" in page
        assert answer.status_code == 403
        assert not many.operations()

    @pytest.mark.parametrize(("typed", "status"), [("", 422), ("1000", 422), ("1 001", 303), ("1001", 303)])
    def test_are_sent_when_their_count_is_typed(
        self, typed: str, status: int, somebody: Callable[[Role], Browser], many: MemoryDesk
    ) -> None:
        browser = somebody(Role.ADMIN)
        plan = planned(browser, action="replay", q="exception:shop.Many")

        answer = browser.post(f"{plan}/run", {"count": typed})

        assert answer.status_code == status
        assert len(many.operations()) == (status == 303)


def test_a_plan_that_is_not_true_any_more_is_not_run(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    one, other = somebody(Role.OPERATOR), somebody(Role.OPERATOR)
    plan = planned(one, action="replay", id=["0:4", "0:5"])
    ran(other, planned(other, action="replay", id="0:4"))

    answer = one.post(f"{plan}/run")

    assert answer.status_code == 409
    assert "Make the plan anew" in answer.text
    assert len(desk.operations()) == 1


@pytest.mark.parametrize(
    "form",
    [
        {"action": "replay"},
        {"action": "purge", "id": "0:4"},
        {"action": "replay", "id": "here"},
        {"action": "replay", "id": "0:999"},
        {"action": "replay", "q": "stat:pending"},
        {"action": "repair", "id": "0:4", "function": "none"},
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_changed(
    form: dict[str, object], somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    answer = somebody(Role.ADMIN).post(PLANS, form)

    assert answer.status_code == 422
    assert desk.changes == 0


@pytest.mark.parametrize("rate", ["-1", "nan", "many", "inf", "1e9"])
def test_a_rate_that_is_none_is_refused(rate: str, somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    browser = somebody(Role.OPERATOR)
    plan = planned(browser, action="replay", id=["0:4", "0:5"])

    assert browser.post(f"{plan}/run", {"records_per_s": rate}).status_code == 422
    assert not desk.operations()


def test_a_run_is_paused_resumed_and_aborted(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    desk.step = 0
    browser = somebody(Role.OPERATOR)
    operation = ran(browser, planned(browser, action="replay", q="state:pending"))

    states = []
    for what in ("pause", "resume", "abort"):
        browser.post(f"{operation}/{what}")
        states.append(desk.operations()[0].state)

    assert states == [OperationState.PAUSED, OperationState.RUNNING, OperationState.ABORTED]
    assert [entry.what for entry in desk.entries[-3:]] == ["pause", "resume", "abort"]


def test_a_run_of_repairs_is_resumed_by_editors_only(somebody: Callable[[Role], Browser], desk: MemoryDesk) -> None:
    desk.step = 0
    editor, operator = somebody(Role.EDITOR), somebody(Role.OPERATOR)
    operation = ran(editor, planned(editor, action="repair", q="state:pending", function="v1-to-v2-status"))
    editor.post(f"{operation}/pause")

    assert operator.post(f"{operation}/resume").status_code == 403
    assert desk.operations()[0].state is OperationState.PAUSED


def test_who_watches_a_run_is_sent_its_parts_until_it_ends(
    somebody: Callable[[Role], Browser], desk: MemoryDesk
) -> None:
    desk.step = 0
    browser = somebody(Role.OPERATOR)
    operation = ran(browser, planned(browser, action="replay", id=["0:4", "0:5"]))
    desk.step = 10

    answer = browser.get(f"{operation}/events")

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [line for line in answer.text.splitlines() if line.startswith("event:")] == [
        "event: progress",
        "event: controls",
        "event: end",
    ]
    assert "2 of 2" in answer.text


def test_a_page_offers_only_what_its_reader_may_do(somebody: Callable[[Role], Browser]) -> None:
    pages = {role: somebody(role).get("/topics/orders.dlq/0/4").text for role in Role}

    assert {role for role, page in pages.items() if "Replay…" in page} == {Role.OPERATOR, Role.EDITOR, Role.ADMIN}
    assert {role for role, page in pages.items() if "Repair…" in page} == {Role.EDITOR, Role.ADMIN}
