"""The consumer belongs to one thread of one process: another caller gets an error instead of a hang."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from fleet.in_process import Running, committed, config

from streamworker import FatalError, Handler, Retry
from streamworker.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamworker import Record
    from streamworker.testing.mock_kafka import MockKafka

IN_A_CHILD = """
import os, sys
from fleet.in_process import config
from streamworker import Handler
from streamworker.assembly import assemble
from streamworker.errors import Misuse

class Nothing(Handler[bytes]):
    topics = ("in",)
    def handle(self, record): ...

application = assemble(config(sys.argv[1]), [Nothing], max_records=1)
child = os.fork()
if child == 0:
    try:
        application.run()
    except Misuse as error:
        print(error, flush=True)
        os._exit(7)
    os._exit(8)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print(application.run(), flush=True)
"""


def test_a_handler_that_uses_the_consumer_gets_an_error_and_the_worker_goes_on(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-47. Edge case 37."""
    mock_kafka.create_topic("in", 1)
    for _ in range(3):
        mock_kafka.produce_raw("in", 0, None, b"x")
    errors: list[BaseException] = []
    workers: list[Running] = []

    class Meddling(Handler[bytes]):
        topics = ("in",)
        retry = Retry(attempts=2, base_s=0.01)

        def handle(self, record: Record[bytes]) -> None:
            source = workers[0].application.worker.source
            for call in (lambda: source.fetch(1, 0.1), source.close, lambda: source.commit({})):
                try:
                    call()
                except Misuse as error:
                    errors.append(error)

    worker = Running(config(mock_kafka.bootstrap_servers), Meddling, max_records=3)
    workers.append(worker)
    with worker:
        assert worker.ended() == 0

    assert len(errors) == 9
    assert "belongs to the thread that made it" in str(errors[0])
    assert committed(mock_kafka.bootstrap_servers, "g", "in", 1) == {0: 3}
    figures("F-47", "a handler uses the consumer", calls=len(errors), refused=len(errors), lost=0)


def test_a_worker_made_before_a_fork_refuses_to_run_in_the_child(
    mock_kafka: MockKafka, figures: Callable[..., None]
) -> None:
    """F-48. Edge case 37: in a fork the client's threads are missing; the parent's worker is none the worse."""
    mock_kafka.create_topic("in", 1)
    mock_kafka.produce_raw("in", 0, None, b"x")

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_CHILD, mock_kafka.bootstrap_servers],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.stdout.splitlines() == [
        "the process was forked after the worker was made; make it in the child",
        "7",
        "0",
    ], done.stderr
    figures("F-48", "a fork after the worker was made", child="refuses to run", parent_exit_code=0)


def test_an_error_that_is_fatal_ends_the_worker_and_leaves_its_record(mock_kafka: MockKafka) -> None:
    """Edge case 46: the application is at fault, so no offset passes the record."""
    mock_kafka.create_topic("in", 1)
    for value in (b"fine", b"fatal", b"fine"):
        mock_kafka.produce_raw("in", 0, None, value)

    class Fatal(Handler[bytes]):
        topics = ("in",)

        def handle(self, record: Record[bytes]) -> None:
            if record.value == b"fatal":
                raise FatalError("no database")

    with Running(config(mock_kafka.bootstrap_servers), Fatal) as worker:
        assert worker.ended() == 1

    assert committed(mock_kafka.bootstrap_servers, "g", "in", 1) == {0: 1}
