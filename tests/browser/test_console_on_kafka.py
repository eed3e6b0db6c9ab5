"""What a person does at `streamworker console`, a process of its own, beside a worker on a real Kafka."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from fleet.shop import RIGHT, WRONG, Shop
from fleet.workers import produce, wait_for
from playwright.sync_api import expect
from servers.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser
    from servers.kafka import SharedKafka


TIMEOUT_S = 30.0
PERSON_S = 60.0


class Console:
    """`streamworker console` over a Kafka."""

    def __init__(self, servers: str, group: str) -> None:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "streamworker", "console", "--port", str(port)]
        where = ["--bootstrap-servers", servers, "--set", f"kafka.group={group}"]
        self.process = subprocess.Popen([*command, *where], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r"http://\S+/login\?token=\S+", self.said)
        assert found is not None, self.said
        self.login = found[0]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def shop(kafka: SharedKafka) -> Shop:
    """With all its topics."""
    return Shop(kafka)


@pytest.fixture
def console(shop: Shop) -> Iterator[Console]:
    made = Console(shop.servers, shop.group)
    yield made
    made.close()


def test_a_refused_record_is_found_repaired_previewed_replayed_and_seen_handled_within_a_minute(
    shop: Shop, console: Console, browser: Browser
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT_S * 1000)
    page = context.new_page()
    with shop.working() as worker:
        produce(shop.servers, shop.topic, [("k", WRONG)], 2)
        worker.wait(lambda: worker.recorder.of("dead_lettered"), "a dead letter")
        began_s = time.monotonic()

        page.goto(console.login)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name=shop.letters, exact=True).click()
        mistake = page.get_by_role("link", name="PoisonError")
        wait_for(lambda: bool(page.reload() and mistake.count()), lambda: "the topic to be read", TIMEOUT_S)
        mistake.click()
        page.get_by_role("link", name="0:0", exact=True).click()
        page.get_by_role("link", name="Repair…").click()
        field = page.get_by_label("Value, as json")
        field.fill(RIGHT)
        page.get_by_role("button", name="Preview").click()
        expect(page.locator(".lines .added")).to_contain_text('"paid"')
        page.get_by_role("button", name="Repair and send").click()
        page.get_by_role("link", name="Letter 0:0").click()
        expect(page.locator("#outcome")).to_contain_text("has been handled", timeout=TIMEOUT_S * 1000)
        took_s = time.monotonic() - began_s
        assert worker.stop() == 0
    context.close()

    assert shop.handled == [(RIGHT, shop.topic)]
    assert took_s < PERSON_S


def test_the_command_serves_until_it_is_told_to_end(console: Console, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(console.login)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("main")).to_be_visible()
    page.close()

    assert console.end() == 0
