"""A desk without a cluster: dead letters of a shop in a list, and all that can be done with them, in memory.

What it does is simple and exact; what the real one does besides (transactions, fences, retention) is not its business.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from difflib import unified_diff
from threading import Lock
from typing import TYPE_CHECKING

from streamworker.dlq.envelope import Attempt
from streamworker.errors import ConfigurationError
from streamworker.record import Headers, Origin
from streamworker.replay.dead_record import DeadRecord, LetterId, Outline
from streamworker.replay.desk import (
    Action,
    Audited,
    Decoded,
    Detail,
    Diff,
    FingerprintGroup,
    GroupPartition,
    GroupSummary,
    Listed,
    Operation,
    OperationState,
    Outcome,
    Page,
    Plan,
    Refused,
    Role,
    Row,
    Step,
    TopicSummary,
)
from streamworker.replay.filters import Filter, matches, parse, payload_matches
from streamworker.replay.states import Disposition, State, Target, digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.replay.desk import Actor, Rates, Request

NOW_MS = 1_795_874_400_000  # 2026-11-28 14:00 UTC
_MINUTE_MS = 60_000
_DAY_MS = 86_400_000
_SENT = {Action.REPLAY: State.REPLAYED, Action.REPAIR: State.REPAIRED}


class StillClock:
    """A clock that a test moves."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    def wall_ms(self) -> int:
        return self.now_ms


def dead(
    partition: int,
    offset: int,
    *,
    topic: str = "orders.dlq",
    value: bytes | None = b'{"order": 1}',
    key: bytes | None = b"1",
    age_min: float = 30,
    exception: str | None = "shop.errors.UnknownCurrency",
    message: str | None = "currency: expected EUR, USD or GBP, got 'XXX'",
    **others: object,
) -> DeadRecord:
    """A dead letter with what most have."""
    written_ms = NOW_MS - int(age_min * _MINUTE_MS)
    fingerprint = hashlib.sha256(f"{exception}".encode()).hexdigest()[:16]
    given: dict[str, object] = {
        "topic": topic,
        "id": LetterId(partition, offset),
        "written_ms": written_ms,
        "key": key,
        "value": value,
        "headers": Headers([("trace", b"9f2c"), ("tenant", b"acme"), ("sw-reason", b"poison")]),
        "own_headers": Headers([("trace", b"9f2c"), ("tenant", b"acme")]),
        "family": "streamworker",
        "origin": Origin("orders", partition, 40_000 + offset * 7),
        "origin_topic": "orders",
        "origin_timestamp_ms": written_ms - 9_000,
        "delivered": Origin("orders", partition, 40_000 + offset * 7),
        "group": "orders-eu",
        "handler": "StoreOrders",
        "reason": "poison",
        "exception": exception,
        "message": message,
        "fingerprint": fingerprint,
        "attempts": 3,
        "attempt_log": tuple(Attempt(written_ms - 8_000 + 3_000 * n, exception or "Error") for n in range(3)),
        "sw_id": f"orders-eu/orders/{partition}/{40_000 + offset * 7}",
        **others,
    }
    return DeadRecord(**given)  # type: ignore[arg-type]


@dataclass
class MemoryDesk:
    """A `Desk` of `letters`. Each look at an operation moves it on by `step` letters; 0 leaves it where it is.

    `masked` topics show values as stars. An outcome is waiting when it is asked for the first time, then `ends_as`.
    """

    letters: list[DeadRecord] = field(default_factory=list)
    clock: StillClock = field(default_factory=StillClock)
    step: int = 1_000_000
    masked: frozenset[str] = frozenset()
    ends_as: Outcome = Outcome.HANDLED
    functions: tuple[str, ...] = ("v1-to-v2-status",)
    group_summaries: list[GroupSummary] = field(default_factory=list)
    entries: list[Audited] = field(default_factory=list)
    changes: int = 0  # calls that are no mere look

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._said: dict[tuple[str, LetterId], list[Disposition]] = {}
        self._plans: dict[str, Plan] = {}
        self._operations: dict[str, Operation] = {}
        self._left: dict[str, list[LetterId]] = {}
        self._asked: Counter[tuple[str, LetterId]] = Counter()

    # What is known.

    def filter_of(self, text: str) -> Filter:
        return parse(text, self.clock.wall_ms())

    def repairs(self) -> Sequence[str]:
        return self.functions

    def topics(self) -> Sequence[TopicSummary]:
        names = dict.fromkeys(letter.topic for letter in self.letters)
        return sorted((self._summary(name) for name in names), key=lambda one: -one.pending)

    def _summary(self, topic: str) -> TopicSummary:
        listed = self._listed(topic, Filter())
        states = Counter(one.state for one in listed)
        pending = [one.letter.written_ms or 0 for one in listed if one.state is State.PENDING]
        return TopicSummary(
            topic=topic,
            records=len(listed),
            pending=len(pending),
            states=states,
            oldest_pending_ms=min(pending, default=None),
            newest_ms=max((one.letter.written_ms or 0 for one in listed), default=None),
            per_hour=sum((one.letter.written_ms or 0) > self.clock.now_ms - 60 * _MINUTE_MS for one in listed),
            expiring=sum(at_ms < self.clock.now_ms - 13 * _DAY_MS for at_ms in pending),
            retention_ms=14 * _DAY_MS,
            top=self.groups_of_errors(topic, self.filter_of("state:pending"))[:5],
            built=1.0,
        )

    def page(self, topic: str, filter_: Filter, *, limit: int, after: str | None = None) -> Page:
        listed = self._listed(topic, filter_)
        if after is not None and not (after.isascii() and after.isdigit()):
            raise ConfigurationError(f"expected a place of the page before, got {after!r}")
        first = int(after or 0)
        last = first + limit
        return Page(
            [_row(one) for one in listed[first:last]], str(last) if last < len(listed) else None, len(listed), 1.0
        )

    def groups_of_errors(self, topic: str, filter_: Filter) -> Sequence[FingerprintGroup]:
        found: dict[str | None, list[Listed]] = {}
        for one in self._listed(topic, filter_):
            found.setdefault(one.letter.fingerprint, []).append(one)
        groups = [
            FingerprintGroup(
                fingerprint,
                ones[0].letter.exception,
                ones[0].letter.message,
                ones[0].letter.reason,
                ones[0].letter.handler,
                len(ones),
                sum(one.state is State.PENDING for one in ones),
                min(one.letter.written_ms or 0 for one in ones),
                max(one.letter.written_ms or 0 for one in ones),
            )
            for fingerprint, ones in found.items()
        ]
        return sorted(groups, key=lambda group: -group.pending)

    def detail(self, topic: str, letter: LetterId) -> Detail:
        found = self._letter(topic, letter)
        beside = sorted(one.id for one in self.letters if one.topic == topic and one.id.partition == letter.partition)
        at = beside.index(letter)
        value = _decoded(found.value)
        if topic in self.masked and found.value is not None:
            value = Decoded(value.kind, '{"card": "***"}', value.size_bytes, masked=True)
        return Detail(
            listed=self._with_state(found),
            key=_decoded(found.key),
            value=value,
            history=tuple(self._said.get((topic, letter), ())),
            outcome=self.outcome(topic, letter),
            lineage=(LetterId(0, 3), letter) if found.parent else (),
            newer_of_key=Target("orders", 0, 41_377) if found.id.offset % 9 == 4 else None,
            previous=beside[at - 1] if at else None,
            following=beside[at + 1] if at + 1 < len(beside) else None,
            repairable=value.kind in {"json", "text"},
            targets=("orders.replay.orders-eu", "orders"),
            headers=tuple((name, _decoded(one)) for name, one in found.headers or ()),
        )

    def text_of(self, topic: str, letter: LetterId) -> str:
        value = _decoded(self._letter(topic, letter).value)
        if value.kind not in {"json", "text"}:
            raise ConfigurationError(f"{letter}: its value cannot be edited as text")
        return value.text

    def outcome(self, topic: str, letter: LetterId) -> Outcome | None:
        said = self._said.get((topic, letter), ())
        if not any(one.state in {State.REPLAYED, State.REPAIRED} for one in said):
            return None
        self._asked[topic, letter] += 1
        return Outcome.WAITING if self._asked[topic, letter] == 1 else self.ends_as

    # What is done.

    def plan(self, actor: Actor, request: Request) -> Plan:
        self._need(actor, Role.EDITOR if request.action is Action.REPAIR else Role.OPERATOR, request.action)
        if request.force:
            self._need(actor, Role.ADMIN, "force")
        if request.function is not None and request.function not in self.functions:
            raise ConfigurationError(f"there is no repair {request.function!r}")
        plan = self._plan(request)
        self._note(actor, "plan", request.topic, {"action": str(request.action), "letters": len(plan.ids)})
        with self._lock:
            self._plans[plan.id] = plan
        return plan

    def _plan(self, request: Request) -> Plan:
        chosen = (
            [self._with_state(self._letter(request.topic, one)) for one in request.ids]
            if request.ids
            else self._listed(request.topic, request.filter or Filter())
        )
        wanted = State.DISCARDED if request.action is Action.RESTORE else State.PENDING
        ids, refused = [], {}
        for one in chosen:
            if one.state is wanted or (request.again and one.state is State.REPLAYED):
                ids.append(one.letter.id)
            else:
                refused[one.letter.id] = f"it is {one.state}, not {wanted}"
        letters = {one.letter.id: one.letter for one in chosen}
        what = repr((request.action, request.edited, request.target, sorted(ids)))
        sha256 = hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()
        sends = request.action in _SENT
        return Plan(
            id=sha256[:12],
            sha256=sha256,
            request=request,
            ids=sorted(ids),
            duplicates={},
            refused=refused,
            refusals=Counter(refused.values()),
            by_reason=Counter(letters[one].exception or "not told" for one in ids),
            by_handler=Counter(letters[one].handler or "not told" for one in ids),
            by_target={request.target or "orders.replay.orders-eu": len(ids)} if ids and sends else {},
            bytes=sum(len(letters[one].value or b"") for one in ids),
            ends={0: 1000},
            warnings=("The groups billing and search have committed offsets on orders.",)
            if sends and request.target == "orders"
            else (),
            made_ms=self.clock.now_ms,
        )

    def planned(self, plan_id: str) -> Plan:
        if plan_id not in self._plans:
            raise ConfigurationError(f"there is no plan {plan_id!r}, or not any more; make it again")
        return self._plans[plan_id]

    def preview(self, plan: Plan, count: int) -> Sequence[Diff]:
        return [self._diff(plan, one) for one in plan.ids[:count]]

    def _diff(self, plan: Plan, letter: LetterId) -> Diff:
        before = _decoded(self._letter(plan.request.topic, letter).value).text
        after = before.replace("v1", "v2") if plan.request.edited is None else plan.request.edited
        lines = list(unified_diff(before.splitlines(), after.splitlines(), "as it is", "as it will be", lineterm=""))
        error = "currency: expected EUR, USD or GBP, got 'XXX'" if "XXX" in after else None
        steps = (
            Step("decode", error is None, error or "Order(id, currency, lines)"),
            Step("preview", None, "StoreOrders has no preview"),
        )
        return Diff(letter, lines, error, steps)

    def run(self, actor: Actor, plan_id: str, rates: Rates) -> Operation:
        plan = self.planned(plan_id)
        self._need(actor, Role.OPERATOR, "run")
        if self._plan(plan.request).sha256 != plan.sha256:
            raise Refused("the letters have changed since the plan was made: one is no longer pending")
        request = plan.request
        operation = Operation(
            id=f"op-{len(self._operations) + 1:04d}",
            plan_sha256=plan.sha256,
            topic=request.topic,
            action=request.action,
            actor=actor.name,
            filter_text=f"id:{','.join(map(str, request.ids))}" if request.ids else (request.filter or Filter()).text,
            state=OperationState.RUNNING,
            matched=len(plan.ids),
            done=0,
            skipped=0,
            failed=0,
            returned=0,
            started_ms=self.clock.now_ms,
            ended_ms=None,
            message=None,
            per_second=rates.records_per_s or 0.0,
        )
        self._note(actor, str(request.action), request.topic, {"plan": plan.id, "note": request.note}, operation.id)
        with self._lock:
            self._operations[operation.id] = operation
            self._left[operation.id] = list(plan.ids)
        self._plans[operation.id] = plan
        return operation

    def work(self, op_id: str, count: int) -> Operation:
        """Do so many letters of an operation."""
        with self._lock:
            one, left = self._operations[op_id], self._left[op_id]
            if one.state is not OperationState.RUNNING:
                return one
            now, self._left[op_id] = left[:count], left[count:]
            for letter in now:
                self._say(self._plans[op_id].request, one, letter)
            one = replace(one, done=one.done + len(now))
            if not self._left[op_id]:
                one = replace(one, state=OperationState.DONE, ended_ms=self.clock.now_ms + 1_200)
            self._operations[op_id] = one
            return one

    def _say(self, request: Request, operation: Operation, letter: LetterId) -> None:
        state = {**_SENT, Action.DISCARD: State.DISCARDED}.get(request.action, State.PENDING)
        sent = request.action in _SENT
        said = Disposition(
            state=state,
            op_id=operation.id,
            actor=operation.actor,
            at_ms=self.clock.now_ms,
            reason_code=request.reason_code,
            note=request.note,
            target=Target(request.target or "orders.replay.orders-eu", letter.partition, 17) if sent else None,
            assigned_to=request.assignee,
            snoozed_until_ms=request.until_ms,
        )
        self._said.setdefault((request.topic, letter), []).append(said)

    def operations(self) -> Sequence[Operation]:
        return list(reversed(self._operations.values()))

    def operation(self, op_id: str) -> Operation:
        if op_id not in self._operations:
            raise ConfigurationError(f"there is no operation {op_id!r}")
        return self.work(op_id, self.step)

    def pause(self, actor: Actor, op_id: str) -> Operation:
        return self._turn(actor, "pause", op_id, OperationState.PAUSED)

    def resume(self, actor: Actor, op_id: str, rates: Rates) -> Operation:
        return self._turn(actor, "resume", op_id, OperationState.RUNNING)

    def abort(self, actor: Actor, op_id: str) -> Operation:
        return self._turn(actor, "abort", op_id, OperationState.ABORTED)

    def _turn(self, actor: Actor, what: str, op_id: str, state: OperationState) -> Operation:
        self._need(actor, Role.OPERATOR, what)
        if op_id not in self._operations:
            raise ConfigurationError(f"there is no operation {op_id!r}")
        self._note(actor, what, self._operations[op_id].topic, {}, op_id)
        self._operations[op_id] = replace(self._operations[op_id], state=state)
        return self._operations[op_id]

    def audit(self, *, limit: int, after: str | None = None, text: str = "") -> tuple[Sequence[Audited], str | None]:
        if after is not None and not (after.isascii() and after.isdigit()):
            raise ConfigurationError(f"expected a place of the page before, got {after!r}")
        found = [one for one in reversed(self.entries) if text.lower() in repr(one).lower()]
        first = int(after or 0)
        return found[first : first + limit], str(first + limit) if first + limit < len(found) else None

    def noted(self, actor: Actor, what: str, detail: Mapping[str, object]) -> None:
        self._note(actor, what, None, detail, changes=0)

    def denied(self, actor: Actor, what: str, detail: Mapping[str, object]) -> None:
        self._note(actor, "denied", None, {"what": what, **detail}, changes=0)

    def groups(self) -> Sequence[GroupSummary]:
        return self.group_summaries

    # Behind it.

    def _need(self, actor: Actor, role: Role, what: str) -> None:
        if actor.role < role:
            self.denied(actor, what, {})
            raise Refused(f"{what} needs the role {role.name.lower()}")

    def _note(
        self,
        actor: Actor,
        what: str,
        topic: str | None,
        detail: Mapping[str, object],
        op_id: str | None = None,
        *,
        changes: int = 1,
    ) -> None:
        with self._lock:
            self.changes += changes
            self.entries.append(
                Audited(
                    at_ms=self.clock.now_ms,
                    actor=actor.name,
                    verified=actor.verified,
                    via=actor.via,
                    what=what,
                    topic=topic,
                    op_id=op_id,
                    detail=detail,
                    writer="console-1",
                    sequence=len(self.entries),
                )
            )

    def _letter(self, topic: str, letter: LetterId) -> DeadRecord:
        for one in self.letters:
            if one.topic == topic and one.id == letter:
                return one
        raise ConfigurationError(f"there is no letter {letter} in {topic}")

    def _with_state(self, letter: DeadRecord) -> Listed:
        said = self._said.get((letter.topic, letter.id))
        return Listed(letter, said[-1] if said else None, said[-1].state if said else State.PENDING)

    def _listed(self, topic: str, filter_: Filter) -> list[Listed]:
        listed = [self._with_state(one) for one in self.letters if one.topic == topic]
        chosen = [
            one
            for one in listed
            if matches(filter_.without_payload, one.letter, one.disposition)
            and payload_matches(filter_, one.letter.value)
        ]
        return sorted(chosen, key=lambda one: -(one.letter.written_ms or 0))


def _row(one: Listed) -> Row:
    letter = one.letter
    names = {each.name for each in fields(Outline)} - {"size_bytes", "payload_sha256"}
    known = {name: getattr(letter, name) for name in names}
    size_bytes = None if letter.value is None else len(letter.value)
    return Row(Outline(size_bytes=size_bytes, payload_sha256=digest(letter.value), **known), one.disposition, one.state)


def _decoded(data: bytes | None) -> Decoded:
    if data is None:
        return Decoded("null", "", 0)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Decoded("hex", data.hex(), len(data))
    try:
        return Decoded("json", json.dumps(json.loads(text), indent=2, ensure_ascii=False), len(data))
    except (ValueError, RecursionError):
        return Decoded("text", text, len(data))


def shop() -> MemoryDesk:
    """A desk that looks like a Saturday afternoon."""
    return MemoryDesk([*_orders(), *_others()], masked=frozenset({"payments.dlq"}), group_summaries=_groups())


def _orders() -> list[DeadRecord]:
    currency = "currency: expected EUR, USD or GBP, got 'XXX'"
    quantity = 'orders[1]@40231: field "qty": expected int, got "a"'
    unique = "duplicate key value violates constraint orders_pkey"
    return [
        *_many(0, 23, "shop.errors.UnknownCurrency", currency, "XXX", 4),
        *_many(1, 11, "streamworker.errors.DecodeError", quantity, "EUR", 9),
        *_many(2, 6, "psycopg.errors.UniqueViolation", unique, "EUR", 90),
        dead(
            2,
            60,
            value=b"\xff\xfe\x00\x01not json",
            exception=None,
            message=None,
            fingerprint=None,
            handler=None,
            age_min=3000,
        ),
        dead(
            1,
            61,
            value=None,
            exception="shop.errors.NoSuchCustomer",
            message="customer 8841 is not known",
            age_min=700,
            parent="orders.dlq/0/3",
            replay_count=1,
        ),
    ]


def _others() -> list[DeadRecord]:
    payments = [
        dead(
            0,
            n,
            topic="payments.dlq",
            handler="Charge",
            group="payments",
            exception="httpx2.ReadTimeout",
            message="POST https://bank.example/charge: no answer in 5 s",
            reason="exhausted",
            age_min=20_000 - n * 900,
            value=json.dumps({"payment": 7000 + n, "card": "4111 1111 1111 1111", "amount": 129.9}).encode(),
        )
        for n in range(9)
    ]
    flight = dead(
        0,
        0,
        topic="flights.dlq",
        handler="TrackFlights",
        group="flights",
        family="spring",
        exception="org.example.LateArrival",
        message="arrival before departure",
        age_min=4000,
    )
    return [*payments, flight]


def _groups() -> list[GroupSummary]:
    orders = [
        GroupPartition("orders", n, 41_200 + n, 41_200 + 13 * n, 12 * n, f"orders-eu-{n % 2}", ("breaker",) * (n == 3))
        for n in range(4)
    ]
    unknown = "No worker was found: pauses and breakers are not known. Name workers with console.workers."
    return [
        GroupSummary("orders-eu", "Stable", 2, orders, {"postgres": "closed", "bank": "open"}, None),
        GroupSummary("payments", "Empty", 0, [GroupPartition("payments", 0, None, 912, 912, None, ())], {}, unknown),
    ]


def _many(partition: int, count: int, exception: str, message: str, currency: str, every_min: int) -> list[DeadRecord]:
    return [
        dead(
            partition,
            n,
            exception=exception,
            message=message,
            key=str(8800 + n).encode(),
            age_min=2 + n * every_min,
            value=json.dumps(
                {
                    "order": 8800 + n,
                    "status": "v1/placed",
                    "customer": {"id": 120 + n, "name": "Zoë Kuŝnir", "vip": n % 3 == 0},
                    "currency": currency,
                    "lines": [{"sku": "A-17", "qty": 2, "price": 18.5}, {"sku": "C-03", "qty": 1, "price": 7.25}],
                    "note": None,
                },
                ensure_ascii=False,
            ).encode(),
        )
        for n in range(count)
    ]
