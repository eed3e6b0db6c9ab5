"""Other people's code in the middle of the loop: hooks that raise, a close that never returns, signals.

The client drops the records of a call in which a callback raised, so nothing of this may reach it.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError
from fleet.in_process import Running, committed, config, read
from fleet.workers import produce
from sizes import SOAK

from streamworker import DeadLetter, DependencyUnavailable, Handler, PoisonError, Retry, Rule
from streamworker.events import EVENTS, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka import Message

    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka

PARTITIONS = 4
CLOSE_TIMEOUT_S = 2
SIGNALS = 20 * SOAK
TIMEOUT_S = 60 * SOAK


class Broken(Exception):
    """What hooks raise."""


class BrokenListener(Listener):
    """Raises in every event, and counts."""

    def __init__(self, raised: Counter[str]) -> None:
        self.raised = raised


def _broken(event: str) -> Callable[..., None]:
    def hook(self: BrokenListener, *_arguments: object) -> None:
        self.raised[hook.__qualname__] += 1
        raise Broken

    hook.__qualname__ = f"BrokenListener.{event}"
    return hook


for _event in EVENTS:
    setattr(BrokenListener, _event, _broken(_event))


def test_a_thousand_errors_in_hooks_cost_no_record_and_each_hook_is_complained_of_once(
    mock_kafka: MockKafka, caplog: pytest.LogCaptureFixture, figures: Callable[..., None]
) -> None:
    """F-43. All events, a rule's predicate, a wait strategy; a second member comes and goes, requests are refused."""
    servers, total = mock_kafka.bootstrap_servers, 1000 * SOAK
    mock_kafka.create_topic("in", PARTITIONS)
    mock_kafka.create_topic("in.dlq", 1)
    produce(servers, "in", [(None, _deed(number)) for number in range(total)], PARTITIONS)
    raised: Counter[str] = Counter()
    handled: list[tuple[int, int]] = []

    def raising(hook: str) -> bool:
        raised[hook] += 1
        raise Broken

    class Judge(Handler[bytes]):
        topics = ("in",)
        dead_letter = DeadLetter("in.dlq")
        rules = (Rule.retry(lambda _error: raising("predicate")),)
        retry = Retry(base_s=0.01, cap_s=0.02, wait=lambda _state: raising("wait"))

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"poison":
                raise PoisonError
            if record.value == b"flaky" and record.attempt == 1:
                raise ConnectionError
            handled.append((record.partition, record.offset))

    settings = config(servers, flow__max_slice=1, dead_letters__retry_min_s=0.1)
    with Running(settings, Judge, listeners=[BrokenListener(raised)]) as first:
        first.wait(lambda: len(handled) > total // 10, "some records")
        mock_kafka.push_errors("Fetch", KafkaError.TOPIC_AUTHORIZATION_FAILED)
        mock_kafka.push_errors("OffsetCommit", KafkaError.REBALANCE_IN_PROGRESS)
        mock_kafka.push_errors("Produce", KafkaError.POLICY_VIOLATION)
        with Running(settings, Judge, listeners=[BrokenListener(raised)]) as second:
            second.wait(lambda: second.recorder.of("assigned"), "a second member")
            assert second.stop() == 0
        ends = dict.fromkeys(range(PARTITIONS), total // PARTITIONS)
        first.wait(lambda: committed(servers, "g", "in", PARTITIONS) == ends, f"committed {ends}", TIMEOUT_S)
        assert first.stop() == 0

    letters = {_origin(one) for one in read(servers, "in.dlq", 1, total // 50)}
    assert len({*handled} | letters) == total
    assert sum(raised.values()) >= 1000
    complaints = Counter(one.getMessage() for one in caplog.records if "said once" in one.getMessage())
    assert len(complaints) == len(raised), complaints
    assert max(complaints.values()) <= 2, "once by each member"
    figures("F-43", "hooks that raise", raises=sum(raised.values()), hooks=len(raised), lost=0)


def _deed(number: int) -> str:
    return {0: "poison", 1: "flaky"}.get(number % 50, "fine")


def _origin(letter: Message) -> tuple[int, int]:
    headers = dict(letter.headers() or [])
    return int(headers["sw-origin-partition"] or 0), int(headers["sw-origin-offset"] or 0)


class BrokenLog(logging.Handler):
    """As handlers of the standard library do not: lets its own error out."""

    def __init__(self) -> None:
        super().__init__()
        self.raised = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.raised += 1
        raise Broken


@pytest.fixture(params=["streamworker", "librdkafka"])
def broken_log(request: pytest.FixtureRequest) -> Iterator[BrokenLog]:
    """A handler of all that this logger and those below it say."""
    handler, logger = BrokenLog(), logging.getLogger(request.param)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_log_handler_that_raises_harms_neither_the_worker_nor_a_record(
    mock_kafka: MockKafka, broken_log: BrokenLog
) -> None:
    """F-43. The worker's own lines, and the client's, which it writes inside the calls that bring records."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 1)
    produce(servers, "in", [(None, "x")] * 100, 1)
    handled: list[int] = []

    class Seen(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            handled.append(record.offset)

    with Running(config(servers, kafka__librdkafka__debug="fetch"), Seen, max_records=100) as worker:
        assert worker.ended() == 0

    assert broken_log.raised > 0
    assert handled == list(range(100))


class Mute:
    """What cannot be shown."""

    def __repr__(self) -> str:
        raise Broken

    __str__ = __repr__


@pytest.mark.parametrize(
    ("error", "reason", "done", "code"),
    [(PoisonError, "no_dead_letter", 10, 3), (DependencyUnavailable, "dependency_unavailable", 11, 0)],
)
def test_an_error_without_a_text_stops_its_partition_and_nothing_else(
    mock_kafka: MockKafka, error: type[Exception], reason: str, done: int, code: int
) -> None:
    """F-43. The text of an error is the user's code as well, and is asked for on the loop thread."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 2)
    produce(servers, "in", [(None, "fine")] * 20, 2)
    mock_kafka.produce_raw("in", 0, None, b"bad")
    raised: list[Exception] = []

    class Mutters(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"bad" and not raised:
                raised.append(error(Mute()))
                raise raised[0]

    with Running(config(servers), Mutters, until_end=True) as worker:
        assert worker.ended() == code

    ((partition, why, _, _),) = worker.recorder.of("stopped")
    assert (str(partition), why) == ("in[0]", reason)
    assert committed(servers, "g", "in", 2) == {0: done, 1: 10}


NEVER_CLOSES = """
import sys, threading, time
from fleet.in_process import config
from streamworker import Handler
from streamworker.assembly import assemble
from streamworker.events import Listener
from streamworker.source.kafka import KafkaSource

class Seen(Handler[bytes]):
    topics = ("in",)
    def handle(self, record): ...

class Tells(Listener):
    def draining(self, reason):
        print(time.monotonic(), flush=True)

def never(_self):
    threading.Event().wait()

servers, what, close_timeout_s = sys.argv[1:]
if what == "client":
    KafkaSource.close = never
else:
    Seen.close = never
settings = config(servers, lifecycle__close_timeout_s=close_timeout_s)
sys.exit(assemble(settings, [Seen], max_records=20, listeners=[Tells()]).run())
"""


@pytest.mark.parametrize(("what", "code"), [("client", 5), ("handler", 0)])
def test_a_close_that_never_returns_holds_the_process_no_longer_than_its_time(
    mock_kafka: MockKafka, what: str, code: int, figures: Callable[..., None]
) -> None:
    """F-44. What was handled is committed before; a handler's close is left behind, the client's ends the process."""
    servers = mock_kafka.bootstrap_servers
    mock_kafka.create_topic("in", 1)
    produce(servers, "in", [(None, "x")] * 20, 1)

    done = run(NEVER_CLOSES, servers, what, str(CLOSE_TIMEOUT_S))
    seconds = time.monotonic() - float(done.stdout)

    assert done.returncode == code, done.stderr
    assert seconds < CLOSE_TIMEOUT_S + 5
    assert committed(servers, "g", "in", 1) == {0: 20}
    figures("F-44", f"close of the {what} never returns", exit_code=code, ended_s=round(seconds, 1))


SIGNALLED = """
import json, os, random, signal, sys, threading
from fleet.in_process import config
from streamworker import Handler
from streamworker.assembly import assemble
from streamworker.cli.signals import stop_on_signals

handled = []
reached = threading.Event()

class Seen(Handler[bytes]):
    topics = ("in",)
    concurrency = 1
    def handle(self, record):
        handled.append((record.partition, record.offset))
        if len(handled) == aim:
            reached.set()

def strike(number, delay_s):
    reached.wait(1)  # on a busy machine a worker may leave nothing for those that follow
    threading.Event().wait(delay_s)
    os.kill(os.getpid(), number)

servers, signals, total, seed = sys.argv[1], *map(int, sys.argv[2:])
draw = random.Random(seed)
settings = config(servers, flow__max_inflight=100, **{"kafka.librdkafka.fetch.error.backoff.ms": 10})
codes = []
for part in range(signals):
    application = assemble(settings, [Seen])
    stop_on_signals(application.stop)
    aim = len(handled) + draw.randrange(1, total // signals // 4)
    reached.clear()
    number, delay_s = draw.choice([signal.SIGINT, signal.SIGTERM]), draw.random() * 0.002
    threading.Thread(target=strike, args=(number, delay_s), daemon=True).start()
    codes.append(application.run())
codes.append(assemble(settings, [Seen], until_end=True).run())
print(json.dumps([codes, handled]))
"""


def test_signals_at_random_instants_while_records_flow_lose_and_repeat_none(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-45. One worker after the other is told to stop in the middle of whatever it does."""
    servers, seed, total = mock_kafka.bootstrap_servers, random.randrange(2**32), 1000 * SIGNALS
    mock_kafka.create_topic("in", 1)
    produce(servers, "in", [(None, "x")] * total, 1)

    done = run(SIGNALLED, servers, *map(str, (SIGNALS, total, seed)))

    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    codes, handled = json.loads(done.stdout)
    assert codes == [0] * (SIGNALS + 1), f"seed {seed}"
    assert handled == [[0, offset] for offset in range(total)], f"seed {seed}"
    assert committed(servers, "g", "in", 1) == {0: total}
    figures("F-45", "SIGINT or SIGTERM at random instants", signals=SIGNALS, records=total, lost=0, repeats=0)


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own for what must not happen to the test run."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
