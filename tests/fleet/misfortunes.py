"""Runs in which each planted bug must be found: little load, and the one fault that brings the bug out."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from fleet.checker import Anomaly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fleet.trial import Trial

# What may find each bug; any of them does.
FOUND_BY: Mapping[str, frozenset[Anomaly]] = {
    "commit_polled": frozenset({Anomaly.UNSAFE_COMMIT}),
    "off_by_one_commit": frozenset({Anomaly.UNSAFE_COMMIT}),
    "no_key_order": frozenset({Anomaly.FIRST_ORDER, Anomaly.KEY_OVERLAP, Anomaly.EPOCH_ORDER}),
    "drop_on_callback_error": frozenset({Anomaly.LOST}),
    "commit_before_dlq_ack": frozenset({Anomaly.UNSAFE_COMMIT}),
    "reuse_offset_after_revoke": frozenset({Anomaly.LOST}),
}
TOTAL = 3000
_REST_S = 20.0


def options(bug: str) -> Mapping[str, object]:
    """How the worker with this bug is to be set.

    All is sent at once. A worker that takes little of it at a time never finds nothing to drop in a call into the
    client; one that takes all has much that it has fetched and not handled.
    """
    at_once, work_s = (10_000, 0.02) if bug == "reuse_offset_after_revoke" else (100, 0.01)
    return {"flow.max_inflight": at_once, "commit.interval_s": 0.02, "app.work_s": work_s}


def finds(bug: str, trial: Trial, *, answer_after_ms: Callable[[int], None] = lambda _delay_ms: None) -> bool:
    """Whether the verdict on a worker with `bug` names one of its anomalies.

    `trial` has `TOTAL` records with some dead letters, and `options`; `answer_after_ms` delays the brokers' answers.
    """
    trial.fleet.start(planted=bug)
    trial.wait_for_progress(0.2)
    if bug == "commit_before_dlq_ack":
        answer_after_ms(300)
        trial.wait_for_progress(0.4)
    if bug == "reuse_offset_after_revoke":
        short = trial.fleet.start()
        trial.wait_for_owners(2)
        trial.fleet.kill(short)
    trial.workload.finish()
    answer_after_ms(0)
    with suppress(AssertionError):  # some bugs keep it from coming to rest
        trial.come_to_rest(_REST_S)
    verdict = trial.verdict_now()
    print(bug, {anomaly.name: len(found) for anomaly, found in verdict.anomalies.items()})
    return any(verdict.anomalies.get(anomaly) for anomaly in FOUND_BY[bug])
