"""The desk over a cluster: READ FIRST for how the parts of this room go together.

Decided here: nothing but that. A plan is made of what the view says (`plans.py`); a run reads the letters anew, makes
the copies (`copies.py`) and ships them (`shipping.py`). The view is only for finding: one that is behind costs a letter
that is left alone, never one that is sent twice. Any thread; each run has a thread and clients of its own.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import OrderedDict
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError, nearest
from streamworker.repairs import repair_called
from streamworker.replay import families
from streamworker.replay.audit import TOPIC as AUDIT_TOPIC
from streamworker.replay.audit import Note
from streamworker.replay.audit_log import AuditLog, Place
from streamworker.replay.clients import Clients
from streamworker.replay.copies import Maker
from streamworker.replay.desk import (
    SENDING,
    Action,
    Detail,
    Diff,
    Listed,
    Operation,
    OperationState,
    Outcome,
    Refused,
    Role,
)
from streamworker.replay.drafts import Drafts
from streamworker.replay.exports import Exporter
from streamworker.replay.filters import parse
from streamworker.replay.group_outcomes import Addressee, GroupOutcomes
from streamworker.replay.group_summaries import summaries
from streamworker.replay.known_handlers import KnownHandlers
from streamworker.replay.letter_reader import LetterReader
from streamworker.replay.letter_stream import letters
from streamworker.replay.masking import Part
from streamworker.replay.operation_log import OperationLog
from streamworker.replay.operations import Logged, asking, letter_of
from streamworker.replay.other_groups import other_groups
from streamworker.replay.payload_scan import PayloadScan
from streamworker.replay.plans import chosen_by, difference, make_plan
from streamworker.replay.repair import NotRepaired
from streamworker.replay.runner import Errand, Runner
from streamworker.replay.states import SENT, State
from streamworker.replay.superseded import Asked, Budget, superseded
from streamworker.replay.targets import Targets
from streamworker.replay.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.cluster import Cluster
    from streamworker.config import Config
    from streamworker.declaration import Declaration
    from streamworker.dlq.replays import ReplayKey
    from streamworker.repairs import RepairFunction
    from streamworker.replay.dead_record import DeadRecord, LetterId, Outline
    from streamworker.replay.desk import (
        Actor,
        Audited,
        Decoded,
        FingerprintGroup,
        GroupSummary,
        Page,
        Plan,
        Rates,
        Request,
        Row,
        TopicSummary,
    )
    from streamworker.replay.exports import Imported
    from streamworker.replay.filters import Filter
    from streamworker.replay.operations import Operations
    from streamworker.replay.plans import Candidate
    from streamworker.replay.showing import Showing
    from streamworker.replay.states import Target
    from streamworker.replay.superseded import Superseded
    from streamworker.replay.topic_log import TopicLog
    from streamworker.replay.worker_pages import WorkerPages

_PLANS = 100  # that are remembered, the last ones
_MOST_WITHOUT_ADMIN = 1000
_ID_BYTES = 6
_RETENTION_S = 60.0  # for which a topic's is believed
_ONE_LETTER = Budget(records=50_000, bytes=32 * 1024 * 1024, seconds=2.0)  # to look for a newer record of its key


class KafkaDesk:
    """A `Desk` of the dead-letter topics of one cluster.

    `groups` are those whose replay topics may be sent to, `handlers` say how values are read and checked, `repairs` are
    the application's functions by name, `workers` tell what holds groups. Nothing is read before `read` or `follow`.
    """

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        clock: Clock,
        *,
        groups: Sequence[str],
        handlers: Sequence[Declaration],
        repairs: Mapping[str, RepairFunction | Imported],
        showing: Showing,
        workers: WorkerPages,
        replay_key: ReplayKey | None,
        audit_key: bytes | None,
        timeout_s: float,
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._clock = clock
        self._groups = tuple(groups)
        self._handlers = KnownHandlers(handlers)
        self._drafts = Drafts(self._handlers, showing)
        self._repairs = repairs
        self._showing = showing
        self._workers = workers
        self._replay_key = replay_key
        self._timeout_s = timeout_s
        self._clients = Clients(config, clock, audit_key=audit_key, timeout_s=timeout_s)
        self._views = Views(cluster, self._clients, clock, timeout_s)
        self._runner = Runner(config, cluster, self._clients, clock, audit_key=audit_key, timeout_s=timeout_s)
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._retentions: dict[str, tuple[float, int]] = {}  # when they were asked for, and milliseconds
        self._lock = threading.Lock()  # the plans, and retentions

    def close(self) -> None:
        """Pause what runs, and let go of all. Idempotent."""
        self._runner.close()
        self._views.close()
        self._clients.close()

    def read(self, topic: str, told: Callable[[float], None]) -> None:
        """Read all that there is of `topic`; `told` hears the share that is read, 0 to 1."""
        self._views.read(topic, told)

    def follow(self, chosen: Callable[[Collection[str]], Collection[str]]) -> None:
        """From now on read those topics that `chosen` picks from all there are."""
        self._views.follow(chosen)

    # Questions.

    def filter_of(self, text: str) -> Filter:
        """As of `Desk`."""
        return parse(text, self._clock.wall_ms())

    def repairs(self) -> Sequence[str]:
        """As of `Desk`."""
        return sorted(self._repairs)

    def topics(self) -> Sequence[TopicSummary]:
        """As of `Desk`."""
        now_ms = self._clock.wall_ms()
        found = [view.summary(now_ms, self._retention_ms(topic)) for topic, view in self._views.all.items()]
        return sorted(found, key=lambda one: one.pending, reverse=True)

    def page(self, topic: str, filter_: Filter, *, limit: int, after: str | None = None) -> Page:
        """As of `Desk`."""
        view = self._views.of(topic)
        if not filter_.scans:
            return view.page(filter_, limit=limit, after=after)
        with closing(self._clients.new_log()) as log:
            return self._scan(topic, log).page(filter_, limit=limit, after=after)

    def groups_of_errors(self, topic: str, filter_: Filter) -> Sequence[FingerprintGroup]:
        """As of `Desk`."""
        return self._views.of(topic).groups(filter_)

    def detail(self, topic: str, letter: LetterId) -> Detail:
        """As of `Desk`."""
        view = self._views.of(topic)
        row = view.row(letter)
        found = self._letter(topic, letter)
        newer = self._superseded([Asked(letter, found.origin, found.key)], _ONE_LETTER).newer.get(letter)
        previous, following = view.neighbours(letter)
        return Detail(
            listed=Listed(found, row.disposition, row.state) if row is not None else Listed(found, None, State.PENDING),
            key=self._showing.key(found, self._handlers.key_serde(found)),
            value=self._showing.value(found, self._handlers.value_serde(found)),
            headers=self._showing.headers(found),
            history=view.history(letter),
            outcome=self.outcome(topic, letter),
            lineage=view.lineage(letter),
            newer_of_key=newer,
            previous=previous,
            following=following,
            repairable=self._handlers.can_edit(found),
            targets=self._targets().options(found.origin, found.group),
        )

    def text_of(self, topic: str, letter: LetterId) -> str:
        """As of `Desk`."""
        found = self._letter(topic, letter)
        if self._showing.value(found, self._handlers.value_serde(found)).masked:
            raise ConfigurationError(f"{letter}: some of its value is masked, so it cannot be edited here")
        try:
            return self._handlers.form(found).text(found.value)
        except NotRepaired as error:
            raise ConfigurationError(f"{letter}: {error}") from error

    def outcome(self, topic: str, letter: LetterId) -> Outcome | None:
        """As of `Desk`."""
        row = self._views.of(topic).row(letter)
        said = None if row is None else row.disposition
        if said is None or said.state not in SENT:
            return None
        if said.target is None:
            return Outcome.UNKNOWN
        with self._clients.reading() as log:
            outcomes = GroupOutcomes(
                self._cluster, log, topic, self._addressee(topic), since_ms=said.at_ms, timeout_s=self._timeout_s
            )
            return outcomes.look({letter: said.target})[letter]

    # What is done.

    def plan(self, actor: Actor, request: Request) -> Plan:
        """As of `Desk`."""
        self._check_force(actor, request)
        plan = self._plan(request)
        self._note(
            actor, "plan", request.topic, {"plan": plan.sha256, "action": request.action, "letters": len(plan.ids)}
        )
        with self._lock:
            self._plans[plan.id] = plan
            while len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        return plan

    def planned(self, plan_id: str) -> Plan:
        """As of `Desk`."""
        with self._lock:
            if plan_id in self._plans:
                return self._plans[plan_id]
        raise ConfigurationError(f"there is no plan {plan_id!r}, or not any more; make it again")

    def preview(self, plan: Plan, count: int) -> Sequence[Diff]:
        """As of `Desk`."""
        maker = self._maker(plan.request, "preview", actor="")
        ids = sorted(islice(plan.ids, count))
        with self._clients.reading() as log:
            reader = self._reader(plan.request.topic, log)
            found = [one for _, some in groupby(ids, attrgetter("partition")) for one in reader.read(list(some))]
        return self._drafts.previewed(maker, found)

    def run(self, actor: Actor, plan_id: str, rates: Rates) -> Operation:
        """As of `Desk`."""
        plan = self.planned(plan_id)
        if plan.request.action is Action.PROCESS:
            raise ConfigurationError("letters are handled at once by `streamworker dlq process` alone")
        self._check_run(actor, plan)
        again = self._plan(plan.request, ends=plan.ends)
        if again.sha256 != plan.sha256:
            raise Refused(f"what it would do has changed since it was planned: {difference(plan, again)}")
        operation = Operation(
            id=secrets.token_hex(_ID_BYTES),
            plan_sha256=plan.sha256,
            topic=plan.request.topic,
            action=plan.request.action,
            actor=actor.name,
            filter_text=" ".join(part.text for part in chosen_by(plan.request)),
            state=OperationState.RUNNING,
            matched=len(plan.ids) + len(plan.duplicates),
            started_ms=self._clock.wall_ms(),
        )
        return self._begin(actor, again, operation, rates)

    def resume(self, actor: Actor, op_id: str, rates: Rates) -> Operation:
        """As of `Desk`."""
        known = self._known_operations()
        logged = _named(op_id, known)
        if logged.operation.state in (OperationState.DONE, OperationState.ABORTED):
            raise ConfigurationError(f"operation {op_id} is {logged.operation.state}")
        if known.asked(op_id) is OperationState.ABORTED:  # whoever ran it may not be there any more to say so
            raise ConfigurationError(f"operation {op_id} was to be aborted; make a new plan")
        running = self._runner.of(op_id)
        if running is not None and running.state is OperationState.RUNNING:
            raise ConfigurationError(f"operation {op_id} is running here")
        request = logged.request
        if request.action is Action.REPAIR and request.function is None:
            raise ConfigurationError(
                f"operation {op_id}: the value that was edited is not kept; repair the letter anew"
            )
        if request.topic not in self._views:
            self.read(request.topic, lambda _share: None)
        plan = self._plan(request, ends=logged.bounds, resumed=op_id)
        if plan.sha256 != logged.operation.plan_sha256:
            raise Refused("its plan is not the same any more: letters were acted on by others; make a new plan")
        self._check_run(actor, plan)
        self._clients.send(asking(op_id, None, self._clock.wall_ms()))
        operation = replace(
            logged.operation, state=OperationState.RUNNING, done=0, skipped=0, failed=0, ended_ms=None, message=None
        )
        return self._begin(actor, plan, operation, rates, resumed=True)

    def pause(self, actor: Actor, op_id: str) -> Operation:
        """As of `Desk`."""
        return self._ask(actor, op_id, OperationState.PAUSED)

    def abort(self, actor: Actor, op_id: str) -> Operation:
        """As of `Desk`."""
        return self._ask(actor, op_id, OperationState.ABORTED)

    def operations(self) -> Sequence[Operation]:
        """As of `Desk`."""
        found = {one.operation.id: one.operation for one in self._known_operations().all}
        found.update(self._runner.all)
        return sorted(found.values(), key=lambda one: one.started_ms, reverse=True)

    def operation(self, op_id: str) -> Operation:
        """As of `Desk`."""
        return self._runner.of(op_id) or _named(op_id, self._known_operations()).operation

    def audit(self, *, limit: int, after: str | None = None, text: str = "") -> tuple[Sequence[Audited], str | None]:
        """As of `Desk`."""
        partitions = self._cluster.partitions(AUDIT_TOPIC, self._timeout_s)
        before = None if after is None else Place.parse(after)
        with self._clients.reading() as log:
            return AuditLog(log, partitions, self._timeout_s).newest(
                limit, before=before, wanted=lambda entry: text.casefold() in str(entry).casefold()
            )

    def noted(self, actor: Actor, what: str, detail: Mapping[str, object]) -> None:
        """As of `Desk`."""
        self._note(actor, what, None, detail)

    def denied(self, actor: Actor, what: str, detail: Mapping[str, object]) -> None:
        """As of `Desk`."""
        self._note(actor, "denied", None, {"what": what, **detail})

    def key(self, letter: Outline) -> Decoded:
        """The key of a letter of a list, as far as people may see it."""
        topics = [topic for topic in (letter.origin_topic, letter.topic) if topic is not None]
        return self._showing.show(letter.key, topics, part=Part.KEY)

    def matching(self, topic: str, filter_: Filter) -> int:
        """How many letters match, but for what the filter asks of payloads."""
        return self._views.of(topic).count(filter_.without_payload)

    def letters(self, topic: str, filter_: Filter) -> Iterator[tuple[DeadRecord, Row]]:
        """Letters that match with their values, in the order of their places."""
        with closing(self._clients.new_log()) as log:
            yield from letters(self._views.of(topic), self._reader(topic, log), filter_)

    def exporter(self, *, as_text: bool) -> Exporter:
        """What makes lines of an export of them."""
        return Exporter(replace(self._showing, max_chars=None), self._handlers.value_serde, as_text=as_text)

    def take(self, imported: Imported) -> None:
        """Know the values of a file under its name, as a repair."""
        self._repairs = {**self._repairs, imported.name: imported}

    def groups(self) -> Sequence[GroupSummary]:
        """As of `Desk`."""
        return summaries(self._groups, self._cluster, self._workers, self._timeout_s)

    # Plans and runs.

    def _check_force(self, actor: Actor, request: Request) -> None:
        if request.force and actor.role < Role.ADMIN:
            self.denied(actor, "force", {"topic": request.topic})
            raise Refused("only an admin may force what was replayed three times")

    def _check_run(self, actor: Actor, plan: Plan) -> None:
        """Who runs a plan, or goes on with one, may be another than who made it."""
        self._check_force(actor, plan.request)
        if len(plan.ids) > _MOST_WITHOUT_ADMIN and actor.role < Role.ADMIN:
            self.denied(actor, "run", {"topic": plan.request.topic, "letters": len(plan.ids)})
            raise Refused(f"only an admin may act on more than {_MOST_WITHOUT_ADMIN} letters at once")

    def _plan(self, request: Request, *, ends: Mapping[int, int] | None = None, resumed: str | None = None) -> Plan:
        view = self._views.of(request.topic)
        if view.built < 1:
            raise ConfigurationError(f"{request.topic} is read to {view.built:.0%} only; plan once all of it is")
        if request.function is not None:
            repair_called(request.function, self._repairs)
        ends = view.ends() if ends is None else ends
        parts = chosen_by(request)
        done_by = None if request.filter is None else resumed  # what was named is chosen by nothing but its name
        candidates: Iterable[Candidate]
        with ExitStack() as stack:
            candidates = chain.from_iterable(
                view.candidates(part.without_payload, ends, op_id=done_by) for part in parts
            )
            if any(part.scans for part in parts):  # there is only one then
                log = stack.enter_context(closing(self._clients.new_log()))
                candidates = self._scan(request.topic, log).those_with(parts[0], candidates)
            plan = make_plan(request, candidates, self._targets(), self._clock.wall_ms(), ends=ends, resumed=resumed)
        return replace(plan, warnings=list(self._warnings(plan)))

    def _warnings(self, plan: Plan) -> Iterator[str]:
        """What people should know before they run it; nothing that the same plan would be refused for."""
        if plan.request.action not in SENDING or not plan.ids:
            return
        for group in self._groups:
            state = self._cluster.group_state(group, self._timeout_s)
            if state is not None and not state.live:
                yield f"group {group!r} has no members: what is sent waits until it has"
        yield from other_groups(
            self._cluster, plan.by_target.keys(), self._groups, clock=self._clock, timeout_s=self._timeout_s
        ).warnings()
        if plan.request.check_superseded:
            view = self._views.of(plan.request.topic)
            asked = (Asked(row.letter.id, row.letter.origin, row.letter.key) for row in map(view.row, plan.ids) if row)
            yield from self._superseded(asked, Budget()).warnings()

    def _begin(
        self, actor: Actor, plan: Plan, operation: Operation, rates: Rates, *, resumed: bool = False
    ) -> Operation:
        request = plan.request
        errand = Errand(
            actor=actor,
            plan=plan,
            maker=self._maker(request, operation.id, actor=actor.name),
            rates=rates,
            view=self._views.of(request.topic),
            addressee=self._addressee(request.topic),
            resumed=resumed,
        )
        self._runner.begin(errand, operation)
        return operation

    def _known_operations(self) -> Operations:
        with self._clients.reading() as log:
            return OperationLog(self._cluster, log, self._timeout_s).read()

    def _ask(self, actor: Actor, op_id: str, asked: OperationState) -> Operation:
        logged = _named(op_id, self._known_operations())
        if logged.operation.state in (OperationState.DONE, OperationState.ABORTED, OperationState.FAILED):
            raise ConfigurationError(f"operation {op_id} is {logged.operation.state}")
        self._note(actor, f"ask {asked}", logged.operation.topic, {"operation": op_id})
        self._clients.send(asking(op_id, asked, self._clock.wall_ms()))
        if (
            asked is OperationState.ABORTED and logged.operation.state is OperationState.PAUSED
        ):  # nobody runs it who could say so
            aborted = replace(logged.operation, state=asked, ended_ms=self._clock.wall_ms())
            self._clients.send(letter_of(Logged.of(aborted, logged.request, logged.bounds), self._clock.wall_ms()))
        return self.operation(op_id)

    # What the parts need.

    def _maker(self, request: Request, op_id: str, *, actor: str) -> Maker:
        return Maker(
            request=request,
            op_id=op_id,
            actor=actor,
            topic_id=self._cluster.topic_ids([request.topic], self._timeout_s).get(request.topic),
            targets=self._targets(),
            key=self._replay_key,
            form=self._handlers.form,
            repairs=self._repairs,
        )

    def _targets(self) -> Targets:
        shapes = self._cluster.topics(self._timeout_s)
        return Targets(
            {name: shape.partitions for name, shape in shapes.items()},
            groups=self._groups,
            listed=[name.strip() for name in self._config.replay.targets.split(",") if name.strip()],
            can_address=self._replay_key is not None,
        )

    def _addressee(self, topic: str) -> Callable[[LetterId, Target], Addressee]:
        view, targets = self._views.of(topic), self._targets()

        def found(letter: LetterId, target: Target) -> Addressee:
            row = view.row(letter)
            if row is None:
                return Addressee(targets.owner(target.topic), None)
            origin = None if row.letter.origin is None else row.letter.origin.topic
            return Addressee(targets.owner(target.topic) or row.letter.group, origin)

        return found

    def _letter(self, topic: str, letter: LetterId) -> DeadRecord:
        with self._clients.reading() as log:
            for found in self._reader(topic, log).read([letter]):
                return found
        raise ConfigurationError(f"{topic} has no dead letter {letter}, or not any more")

    def _reader(self, topic: str, log: TopicLog) -> LetterReader:
        return LetterReader(log, topic, families.read, self._timeout_s)

    def _scan(self, topic: str, log: TopicLog) -> PayloadScan:
        return PayloadScan(self._views.of(topic), self._reader(topic, log), self._clock)

    def _retention_ms(self, topic: str) -> int | None:
        """As of a minute ago at most: an overview of many topics would ask for each of them."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            asked_s, kept_ms = self._retentions.get(topic, (-math.inf, -1))
        if now_s - asked_s > _RETENTION_S:
            settings = self._cluster.topic_config(topic, self._timeout_s)
            kept_ms = int((settings or {}).get("retention.ms", -1))
            with self._lock:
                self._retentions[topic] = now_s, kept_ms
        return None if kept_ms < 0 else kept_ms

    def _note(self, actor: Actor, what: str, topic: str | None, detail: Mapping[str, object]) -> None:
        self._clients.note(Note(at_ms=self._clock.wall_ms(), actor=actor, what=what, topic=topic, detail=detail))

    def _superseded(self, letters: Iterable[Asked], budget: Budget) -> Superseded:
        with closing(self._clients.new_log()) as log:
            return superseded(log, letters, clock=self._clock, timeout_s=self._timeout_s, budget=budget)


def _named(op_id: str, known: Operations) -> Logged:
    """Raises ConfigurationError if there is none of that name."""
    found = known.of(op_id)
    if found is None:
        ids = [one.operation.id for one in known.all]
        told = nearest(op_id, ids) if ids else "none was begun"
        raise ConfigurationError(f"there is no operation {op_id!r}; {told}")
    return found
