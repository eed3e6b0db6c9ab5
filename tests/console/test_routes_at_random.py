"""Requests at random: no page fails, none takes long, and no look changes anything."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from urllib.parse import quote

from payloads import PAYLOADS
from sizes import SOAK

from streamworker.console.app import SCREENS
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Actor, Rates, Request, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from console_browser import Browser
    from memory_desk import MemoryDesk

    from streamworker.console.routing import Guarded

REQUESTS = 1500 * SOAK
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE")
NAMES = ("q", "view", "after", "action", "id", "plan", "text", "token", "next", "csrf", "edited", "target", "function")
FIELDS = (*NAMES, "note", "reason_code", "hours", "assignee", "again", "force", "count", "records_per_s", "canary")
LIKELY = (
    "", "0", "-1", "4", "0:4", "9" * 30, "1e309", "nan", "state:pending", "errors", "letters", "replay", "discard",
    "repair", "restore", "snooze", "assign", "purge", "orders.dlq", "none", "op-0001", "v1-to-v2-status",
    "__consumer_offsets", "\u0661\u0662",
)  # fmt: skip
HEADERS = (
    {}, {}, {}, {"hx-request": "true"}, {"hx-poll": "1"}, {"range": "bytes=0-1"}, {"if-none-match": "*"},
    {"accept": "application/json"}, {"x-forwarded-user": "root", "x-forwarded-for": "127.0.0.1"},
    {"cookie": 'sw_theme="><script>'}, {"content-type": "application/json"}, {"content-type": "text/plain; =;"},
    {"x-http-method-override": "POST"}, {"transfer-encoding": "x"}, {"sec-fetch-site": "none"},
)  # fmt: skip


def value(chance: random.Random) -> str:
    return chance.choice((chance.choice(LIKELY), chance.choice(PAYLOADS), chr(chance.randrange(0xD800))))


def under_way(desk: MemoryDesk) -> str:
    """Begin a run that never ends by itself; the plan that it is of."""
    desk.step = 0
    actor = Actor("ada", Role.ADMIN, "console", verified=True)
    request = Request(topic="orders.dlq", action=Action.REPLAY, ids=(LetterId(1, 1), LetterId(1, 2)))
    plan = desk.plan(actor, request)
    assert desk.run(actor, plan.id, Rates()).id == "op-0001"
    return plan.id


def path(page: Guarded, chance: random.Random, plan: str) -> str:
    given = {"{topic}": "orders.dlq", "{partition:int}": "0", "{offset:int}": "4", "{op}": "op-0001", "{plan}": plan}
    parts = []
    for part in page.path.split("/"):
        usual = given.get(part, part)
        strange = part.startswith("{") and chance.random() < 0.3
        parts.append(quote(value(chance), safe="") if strange else usual)
    return "/".join(parts) or "/"


def test_no_request_makes_a_page_fail_and_no_get_changes_anything(
    somebody: Callable[[Role], Browser], stranger: Callable[[], Browser], desk: MemoryDesk
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    browsers = [stranger(), *(somebody(role) for role in Role)]
    statuses: dict[int, int] = {}
    plan = under_way(desk)

    for _ in range(REQUESTS):
        browser, page = chance.choice(browsers), chance.choice(SCREENS)
        headers, before = dict(chance.choice(HEADERS)), desk.changes
        fields = {chance.choice(FIELDS): value(chance) for _ in range(chance.randrange(5))}
        method = chance.choice(
            (*page.methods, *page.methods, "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE")
        )
        where = path(page, chance, plan)
        if "logout" in where or "events" in where:  # the one ends sessions, the other does not end
            continue
        if method == "POST":
            token = {"csrf": browser.csrf} if "sw_csrf_8090" in browser.client.cookies else {}
            data = {**fields, **(token if chance.random() < 0.8 else {})}
            answer = browser.client.post(
                where, data=data, headers={"origin": "http://127.0.0.1:8090", **headers}, follow_redirects=False
            )
        else:
            answer = browser.client.request(method, where, params=fields, headers=headers, follow_redirects=False)
            assert desk.changes == before, (method, where, fields)
        assert answer.status_code < 500, (method, where, fields, headers, answer.text)
        assert "Traceback" not in answer.text
        assert answer.headers["content-security-policy"]
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1

    assert {200, 303, 403, 404, 405, 422} <= set(statuses), statuses
    assert len(desk._operations) < REQUESTS
