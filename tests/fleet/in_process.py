"""The whole engine with its real client on a thread of the test's process, where handlers are the test's own classes.

For what needs no process of its own: the test may look at what the worker reports, and hand it other parts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from fleet.workers import QUICK, page, wait_for

from streamworker.assembly import assemble
from streamworker.cli.settings import load
from streamworker.events import EVENTS, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Message

    from streamworker.assembly import Application
    from streamworker.config import Config
    from streamworker.handler import BatchHandler, Handler

    HandlerClass = type[Handler[bytes]] | type[BatchHandler[bytes]]

TIMEOUT_S = 20.0


def config(bootstrap_servers: str, group: str = "g", **options: object) -> Config:
    """Quick settings, and `options` with __ for the dot: `commit__interval_s=1`."""
    named = {name.replace("__", "."): value for name, value in options.items()}
    settings = {
        "kafka.bootstrap_servers": bootstrap_servers,
        "kafka.group": group,
        # What takes longer ends the process, and that is the test run's here.
        "lifecycle.close_timeout_s": 60,
        **QUICK,
        **named,
    }
    return load(files=[], environ={}, overrides=[f"{name}={value}" for name, value in settings.items()]).config


class Recorder(Listener):
    """Remembers every event with its arguments; the loop thread adds, the test reads."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[object, ...]]] = []

    def of(self, event: str) -> list[tuple[object, ...]]:
        """The arguments of each `event` so far."""
        return [arguments for name, arguments in self.seen if name == event]


def _remember(event: str) -> Callable[..., None]:
    def remember(self: Recorder, *arguments: object) -> None:
        self.seen.append((event, arguments))

    return remember


for _event in EVENTS:
    setattr(Recorder, _event, _remember(_event))


class Running:
    """A worker at work until `stop`, or to the end of the `with` block."""

    def __init__(
        self,
        settings: Config,
        *handlers: HandlerClass,
        until_end: bool = False,
        max_records: int | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.recorder = Recorder()
        self._assemble = lambda: assemble(
            settings,
            list(handlers),
            until_end=until_end,
            max_records=max_records,
            listeners=[self.recorder, *listeners],
        )
        self._port = settings.http.port
        self._application: Application | None = None
        self._made = threading.Event()
        self._code: int | None = None
        self._doomed: list[int] = []  # exit codes with which the watchdog would have ended the process
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="worker-loop", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._made.wait(TIMEOUT_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        elif self._application is not None:
            self._application.stop("the test failed")

    @property
    def application(self) -> Application:
        """What runs."""
        assert self._application is not None
        return self._application

    def stop(self, timeout_s: float = TIMEOUT_S) -> int:
        """Drain and end."""
        if self._application is not None:
            self._application.stop("the test is over")
        return self.ended(timeout_s)

    def ended(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait until it ends by itself; returns the exit code, raises what `run` raised."""
        self._thread.join(timeout_s)
        assert not self._doomed, f"the watchdog ends the process: {self._doomed}"
        assert not self._thread.is_alive(), f"the worker did not end within {timeout_s:g} s; {self.recorder.seen[-9:]}"
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        assert self._code is not None
        return self._code

    def wait(self, until: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait for what happens on the worker's threads or in the cluster."""
        wait_for(lambda: bool(until()), lambda: f"{what}; last: {self.recorder.seen[-9:]}", timeout_s)

    def page(self, path: str) -> tuple[int, str]:
        """A page of its port."""
        return page(self._port, path)

    def _run(self) -> None:
        try:
            self._application = self._assemble()
            # It would end the whole test run, and all that was left of that would be an exit code.
            self._application._watchdog._die = self._doomed.append
            self._made.set()
            self._code = self._application.run()
        except BaseException as error:  # noqa: BLE001 - for the test's thread to raise
            self._error = error
        finally:
            self._made.set()


def committed(bootstrap_servers: str, group: str, topic: str, partitions: int) -> dict[int, int]:
    """The group's offsets; partitions without one are left out, and those at 0, where nothing is done.

    None of them where the group has no coordinator yet: it is asked again and again.
    """
    reader = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False})
    try:
        found = reader.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].name() not in ("NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"):
            raise
        return {}
    finally:
        reader.close()
    return {one.partition: one.offset for one in found if one.offset > 0}


def read(
    bootstrap_servers: str, topic: str, partitions: int, count: int, timeout_s: float = TIMEOUT_S
) -> list[Message]:
    """The first `count` records of a topic, in the order of partition and offset."""
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    reader.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    messages: list[Message] = []

    def take() -> bool:
        messages.extend(one for one in reader.consume(count, 0.1) if one.error() is None)
        return len(messages) >= count

    try:
        wait_for(take, lambda: f"{count} records of {topic}, there are {len(messages)}", timeout_s)
    finally:
        reader.close()
    return sorted(messages, key=lambda one: (one.partition(), one.offset()))
