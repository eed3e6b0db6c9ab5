"""What people do with dead letters from the command line, beside a worker, on a real Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from fleet.in_process import config
from fleet.shop import RIGHT, WRONG, Shop
from fleet.workers import produce, wait_for

from streamworker.cli.desks import DeskOptions, open_desk
from streamworker.cli.options import Sources
from streamworker.clock import SystemClock
from streamworker.dlq.routes import replay_topic
from streamworker.librdkafka import topic_log_settings
from streamworker.record import TopicPartition, read_headers
from streamworker.replay.dead_record import LetterId
from streamworker.replay.desk import Action, Actor, OperationState, Rates, Refused, Request, Role
from streamworker.replay.filters import parse
from streamworker.replay.topic_log import TopicLog

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from servers.kafka import SharedKafka

    from streamworker.replay.kafka_desk import KafkaDesk

TIMEOUT_S = 60.0
ADMIN = Actor("anna", Role.ADMIN, "console", verified=True)
EDITOR = Actor("ed", Role.EDITOR, "console", verified=True)
SLOWLY = Rates(records_per_s=1.0, canary=0)


class OperatedShop(Shop):
    """With what people say about its dead letters."""

    def command(self, *arguments: str) -> list[str]:
        """As a process of its own, because it waits for signals while it works."""
        where = ["--bootstrap-servers", self.servers, "--set", f"kafka.group={self.group}"]
        return [sys.executable, "-m", "streamworker", "dlq", *arguments, *where]

    def dlq(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)

    def begun(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def desk(self) -> AbstractContextManager[KafkaDesk]:
        """A desk in this process."""
        where = (f"kafka.bootstrap_servers={self.servers}", f"kafka.group={self.group}")
        return open_desk(DeskOptions(Sources(None, where), (), (), (), unmasked=False, timeout_s=10.0), self.letters)

    def write_letters(self, count: int, *, named: str = "k{offset}") -> None:
        """Dead letters as a worker writes them, of keys of their own."""
        letters = []
        for offset in range(1000, 1000 + count):
            said = {
                "sw-version": "1",
                "sw-id": f"{self.group}/{self.topic}/0/{offset}",
                "sw-group": self.group,
                "sw-handler": "Store",
                "sw-origin-topic": self.topic,
                "sw-origin-partition": "0",
                "sw-origin-offset": str(offset),
                "sw-reason": "poison",
            }
            headers = [("tenant", b"acme"), *((name, text.encode()) for name, text in said.items())]
            letters.append((named.format(offset=offset).encode(), WRONG.encode(), headers))
        producer = Producer({"bootstrap.servers": self.servers})
        for key, value, headers in letters:
            producer.produce(self.letters, value, key, partition=0, headers=headers)
        assert producer.flush(TIMEOUT_S) == 0

    def operations(self) -> list[dict[str, str]]:
        """Those on its dead letters."""
        found = json.loads(self.dlq("ops", "--json").stdout)
        return [one for one in found if one["topic"] == self.letters]

    def sent(self) -> list[str]:
        """The letters that copies in the replay topic say they are of."""
        name = replay_topic(self.topic, self.group)
        partitions = [TopicPartition(name, number) for number in range(2)]
        with closing(TopicLog(topic_log_settings(config(self.servers).kafka), SystemClock())) as log:
            ranges = {one: log.bounds(one, TIMEOUT_S) for one in partitions}
            messages = [message for batch in log.read(ranges, TIMEOUT_S) for message in batch]
        return [(read_headers(message).last("sw-parent") or b"").decode() for message in messages]

    def listed(self, *words: str) -> dict[str, str]:
        found = self.dlq("ls", self.letters, *words, "--json")
        assert found.returncode == 0, found.stderr
        return {one["letter"]: one["state"] for one in json.loads(found.stdout)["letters"]}


@pytest.fixture
def empty_shop(kafka: SharedKafka) -> OperatedShop:
    """With all its topics."""
    return OperatedShop(kafka)


@pytest.fixture
def shop(empty_shop: OperatedShop) -> OperatedShop:
    """With three dead letters of one key, which a worker has written."""
    shop = empty_shop
    produce(shop.servers, shop.topic, [("k", WRONG)] * 3, 2)
    with shop.working() as worker:
        worker.wait(lambda: len(worker.recorder.of("dead_lettered")) == 3, "three dead letters")
        assert worker.stop() == 0
    return shop


def test_a_letter_is_found_mended_sent_and_seen_to_be_handled(shop: OperatedShop) -> None:
    first, *others = sorted(shop.listed("reason:poison"))

    with shop.working() as worker:
        planned = shop.dlq("repair", shop.letters, "--id", first, "--value-file", "-", stdin=RIGHT)
        done = shop.dlq("repair", shop.letters, "--id", first, "--value-file", "-", "--yes", stdin=RIGHT)
        worker.wait(lambda: shop.handled == [(RIGHT, shop.topic)], "the mended record")
        assert worker.stop() == 0

    assert (planned.returncode, done.returncode) == (0, 0), done.stderr
    assert '-  "state": 1' in planned.stdout
    assert '+  "state": "paid"' in planned.stdout
    assert shop.listed() == {first: "repaired", **dict.fromkeys(others, "pending")}
    shown = json.loads(shop.dlq("show", shop.letters, first, "--json").stdout)
    assert (shown["state"], shown["outcome"], shown["value"]["text"]) == ("repaired", "handled", '{\n  "state": 1\n}')


def test_what_fails_again_is_a_new_letter_that_names_the_one_that_was_sent(shop: OperatedShop) -> None:
    first = min(shop.listed())

    with shop.working() as worker:
        done = shop.dlq("replay", shop.letters, "--id", first, "--yes", "--json")
        worker.wait(lambda: len(worker.recorder.of("dead_lettered")) == 1, "the new letter")
        assert worker.stop() == 0
    again = shop.dlq("replay", shop.letters, "--id", first, "--yes")

    assert (done.returncode, json.loads(done.stdout)["done"]) == (0, 1), done.stderr
    shown = json.loads(shop.dlq("show", shop.letters, first, "--json").stdout)
    assert (shown["state"], shown["outcome"]) == ("replayed", "returned")
    [child] = list(shop.listed("state:pending", "replays:1"))
    assert shown["lineage"] == [child]
    assert json.loads(shop.dlq("show", shop.letters, child, "--json").stdout)["lineage"] == [first]
    assert again.returncode == 3
    assert "it was replayed already; --again sends it once more" in again.stdout


def test_two_operators_who_send_the_same_letters_at_once_send_each_once(empty_shop: OperatedShop) -> None:
    shop = empty_shop
    shop.write_letters(60)

    operators = [shop.begun("replay", shop.letters, "--all", "--yes", "--canary", "0", "--json") for _ in range(2)]
    told = [operator.communicate(timeout=TIMEOUT_S) for operator in operators]

    ended = [json.loads(stdout) for stdout, _ in told]
    assert sum(one["done"] for one in ended) == 60, told
    assert sorted(shop.sent()) == sorted(f"{shop.letters}/0/{offset}" for offset in range(60))
    assert set(shop.listed("--limit", "100").values()) == {"replayed"}


def test_a_run_that_is_told_to_end_pauses_and_goes_on_where_it_was(empty_shop: OperatedShop) -> None:
    shop = empty_shop
    shop.write_letters(40)
    slow = ["--all", "--yes", "--canary", "0", "--rate", "0.5", "--json"]

    with shop.begun("replay", shop.letters, *slow) as running:
        wait_for(lambda: bool(shop.sent()), lambda: "the first copies", TIMEOUT_S)
        running.send_signal(signal.SIGTERM)
        stdout, stderr = running.communicate(timeout=TIMEOUT_S)
    paused = json.loads(stdout)
    listed = shop.operations()
    resumed = shop.dlq("resume", paused["operation"], "--rate", "1000", "--json")

    assert (running.returncode, paused["state"]) == (3, "paused"), stderr
    assert 0 < paused["done"] < 40
    assert {one["operation"]: (one["state"], one["done"]) for one in listed} == {
        paused["operation"]: ("paused", paused["done"])
    }
    assert resumed.returncode == 0, resumed.stderr
    ended = json.loads(resumed.stdout)
    assert (ended["state"], ended["done"], ended["skipped"], ended["failed"]) == ("done", 40, 0, 0)
    assert sorted(shop.sent()) == sorted(f"{shop.letters}/0/{offset}" for offset in range(40))


def test_an_operation_is_ended_for_good_from_elsewhere(empty_shop: OperatedShop) -> None:
    shop = empty_shop
    shop.write_letters(40)

    with shop.begun("replay", shop.letters, "--all", "--yes", "--canary", "0", "--rate", "0.5", "--json") as running:
        wait_for(lambda: bool(shop.sent()), lambda: "the first copies", TIMEOUT_S)
        [operation] = shop.operations()
        asked = shop.dlq("abort", operation["operation"])
        stdout, _ = running.communicate(timeout=TIMEOUT_S)
    resumed = shop.dlq("resume", operation["operation"])

    assert asked.returncode == 0, asked.stderr
    assert (running.returncode, json.loads(stdout)["state"]) == (3, "aborted")
    assert (resumed.returncode, "is aborted" in resumed.stderr) == (2, True)


def test_what_was_ended_for_good_is_not_gone_on_with_although_its_process_was_killed(empty_shop: OperatedShop) -> None:
    shop = empty_shop
    shop.write_letters(10)

    with shop.begun("replay", shop.letters, "--all", "--yes", "--canary", "0", "--rate", "0.5") as running:
        wait_for(lambda: bool(shop.sent()), lambda: "the first copy", TIMEOUT_S)
        running.kill()
    [operation] = shop.operations()
    asked = shop.dlq("abort", operation["operation"])
    resumed = shop.dlq("resume", operation["operation"])

    assert asked.returncode == 0, asked.stderr
    assert (resumed.returncode, "was to be aborted" in resumed.stderr) == (2, True)


def test_a_replay_ends_by_itself_when_too_many_of_the_first_come_back(empty_shop: OperatedShop) -> None:
    shop = empty_shop
    shop.write_letters(30)

    with shop.working() as worker:
        done = shop.dlq("replay", shop.letters, "--all", "--yes", "--canary", "5", "--json")
        assert worker.stop() == 0

    ended = json.loads(done.stdout)
    assert (done.returncode, ended["state"], ended["done"]) == (3, "aborted", 5)
    assert "of the first 5 came back as dead letters" in ended["message"]
    assert list(shop.listed("replays:0", "state:pending")) == [f"0:{offset}" for offset in range(29, 4, -1)]


def test_letters_are_discarded_restored_put_off_and_assigned(shop: OperatedShop) -> None:
    first, second, third = sorted(shop.listed())

    assert shop.dlq("discard", shop.letters, "--id", first, "--reason", "test-data", "--yes").returncode == 0
    assert shop.dlq("snooze", shop.letters, "--id", second, "--for", "2d", "--yes").returncode == 0
    assert shop.dlq("assign", shop.letters, "--id", second, "--to", "anna", "--yes").returncode == 0

    assert shop.listed("state:discarded") == {first: "discarded"}
    assert shop.listed("assigned:anna") == {second: "pending"}
    planned = json.loads(shop.dlq("replay", shop.letters, "reason:poison", "--json").stdout)
    assert (planned["letters"], planned["refusals"]) == (1, {"it is snoozed": 1})
    shown = json.loads(shop.dlq("show", shop.letters, second, "--json").stdout)
    assert shown["history"][-1]["snoozed_until_ms"] > shown["written_ms"]
    stats = json.loads(shop.dlq("stats", shop.letters, "--json").stdout)
    assert (stats["states"]["pending"], stats["states"]["discarded"]) == (2, 1)
    assert shop.dlq("restore", shop.letters, "--all", "--yes").returncode == 0
    assert shop.listed("state:pending") == dict.fromkeys((first, second, third), "pending")


def test_letters_are_chosen_by_what_their_values_hold(shop: OperatedShop) -> None:
    assert len(shop.listed('payload:"state"')) == 3
    assert shop.listed("payload:paid") == {}
    planned = json.loads(shop.dlq("discard", shop.letters, "payload:paid", "--reason", "none", "--json").stdout)
    assert planned["letters"] == 0


def test_what_is_masked_is_in_no_list_and_no_preview(empty_shop: OperatedShop, tmp_path: Path) -> None:
    empty_shop.write_letters(1, named='["secret-{offset}"]')
    masks = tmp_path / "masks.toml"
    masks.write_text('[masking]\nstate = "replace"\n"header:tenant" = "replace"\n"key:[0]" = "replace"\n')
    mended = '{"state": "secret", "id": 7}'

    listed = empty_shop.dlq("ls", empty_shop.letters, "--json", "--config", str(masks))
    table = empty_shop.dlq("ls", empty_shop.letters, "--config", str(masks))
    shown = empty_shop.dlq("show", empty_shop.letters, "0:0", "--json", "--config", str(masks))
    repair = ["repair", empty_shop.letters, "--id", "0:0", "--value-file", "-", "--config", str(masks)]
    planned = empty_shop.dlq(*repair, stdin=mended)

    assert (listed.returncode, table.returncode, shown.returncode, planned.returncode) == (0, 0, 0, 0)
    [row] = json.loads(listed.stdout)["letters"]
    assert (row["key"], row["key_hex"]) == ('[ "***" ]', None)
    assert "secret" not in listed.stdout + table.stdout + shown.stdout + planned.stdout
    assert json.loads(shown.stdout)["headers"] == [["tenant", "***"]]
    assert '+  "id": 7' in planned.stdout
    assert '"state": 1' not in planned.stdout


def test_what_is_ended_for_good_after_a_pause_is_seen_so_where_it_ran(empty_shop: OperatedShop) -> None:
    empty_shop.write_letters(30)
    with empty_shop.desk() as desk:
        everything = Request(topic=empty_shop.letters, action=Action.REPLAY, filter=parse("", 0))
        begun = desk.run(ADMIN, desk.plan(ADMIN, everything).id, SLOWLY)
        desk.pause(ADMIN, begun.id)
        wait_for(lambda: desk.operation(begun.id).state is OperationState.PAUSED, lambda: "the pause", TIMEOUT_S)

        ended = desk.abort(ADMIN, begun.id)

        assert ended.state is OperationState.ABORTED
        assert [one.state for one in desk.operations() if one.id == begun.id] == [OperationState.ABORTED]


def test_what_an_admin_has_forced_in_a_plan_is_run_by_admins_only(empty_shop: OperatedShop) -> None:
    empty_shop.write_letters(1)
    with empty_shop.desk() as desk:
        forced = Request(topic=empty_shop.letters, action=Action.REPLAY, ids=[LetterId(0, 0)], force=True)
        plan = desk.plan(ADMIN, forced)

        with pytest.raises(Refused, match="only an admin may force"):
            desk.run(EDITOR, plan.id, SLOWLY)


def test_a_letter_that_is_not_there_is_told_and_nothing_is_done(empty_shop: OperatedShop) -> None:
    empty_shop.write_letters(1)

    done = empty_shop.dlq("replay", empty_shop.letters, "--id", "0:999", "--yes")

    assert done.returncode == 3, done.stderr
    assert "1 there is no such letter, or not any more" in done.stdout


def test_a_letter_that_is_named_like_a_filter_is_told_how_to_be_named(empty_shop: OperatedShop) -> None:
    told = empty_shop.dlq("replay", empty_shop.letters, "0:1", "--yes")

    assert (told.returncode, "letters are named by --id, for instance --id 0:1" in told.stderr) == (2, True)


def test_as_many_letters_are_acted_on_as_a_file_names(empty_shop: OperatedShop) -> None:
    empty_shop.write_letters(450)
    with empty_shop.desk() as desk:
        named = [LetterId(0, offset) for offset in range(450)]
        request = Request(topic=empty_shop.letters, action=Action.DISCARD, ids=named, reason_code="stale")

        plan = desk.plan(ADMIN, request)

        assert list(plan.ids) == named


def test_a_plan_to_replay_says_what_the_handler_would_make_of_the_letters(shop: OperatedShop, tmp_path: Path) -> None:
    (tmp_path / "previewing.py").write_text(
        f"""
import os
from streamworker import Handler
from streamworker.serde import Json

class Store(Handler):
    topics = ("{shop.topic}",)
    value = Json(dict)

    def preview(self, record):
        return f"state is {{record.value['state']}}, secret is {{os.environ.get('PREVIEW_SECRET')}}"

    def handle(self, record):
        raise AssertionError
"""
    )
    environment = {**os.environ, "PREVIEW_SECRET": "hunter2", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    command = shop.command("replay", shop.letters, "--all", "--handlers", "previewing:Store", "--json")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)

    assert done.returncode == 0, done.stderr
    previews = json.loads(done.stdout)["previews"]
    assert [one["letter"] for one in previews] == sorted(shop.listed())
    steps = previews[0]["steps"]
    assert [(one["name"], one["passed"]) for one in steps] == [("decode", True), ("preview", True), ("handle", None)]
    assert steps[1]["text"] == "it says: state is 1, secret is None"
    assert set(shop.listed().values()) == {"pending"}
