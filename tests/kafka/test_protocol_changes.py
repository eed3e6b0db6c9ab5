"""A group whose members go over to another rebalance protocol, while records flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.trial import Trial
from fleet.workers import terminate

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from servers.kafka import SharedKafka

PARTITIONS = 4
MEMBERS = 2


def test_a_group_that_goes_over_to_the_other_protocol_and_back_repeats_nothing(
    kafka: SharedKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-25. To the new one all at once, since a group of this client is not taken over; back one by one."""
    codes = []
    with trial_on(kafka, tmp_path, 2400) as trial:
        members = [start(trial, "classic") for _ in range(MEMBERS)]
        trial.wait_for_owners(MEMBERS)
        trial.send()
        trial.wait_for_progress(0.2)
        codes += [terminate(member) for member in members]
        members = [start(trial, "consumer") for _ in range(MEMBERS)]
        trial.wait_for_owners(MEMBERS)
        for share in (0.5, 0.7):
            trial.wait_for_progress(share)
            members.append(start(trial, "classic"))
            trial.wait_for_owners(MEMBERS + 1)
            codes.append(terminate(members.pop(0)))
        verdict = trial.verdict()

    assert codes == [0] * 4
    assert verdict.broken() == []
    figures("F-25", "classic, consumer, classic", stops=len(codes), **verdict.figures())


def test_a_member_of_the_new_protocol_that_a_group_of_the_old_one_refuses_says_so_and_ends(
    kafka: SharedKafka, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """F-25. The brokers do not convert a group of the sticky assignor; its members go on."""
    with trial_on(kafka, tmp_path, 900) as trial:
        for _ in range(MEMBERS):
            start(trial, "classic")
        trial.wait_for_owners(MEMBERS)
        trial.send()
        trial.wait_for_progress(0.1)
        refused = start(trial, "consumer")
        trial.fleet.wait(lambda: refused.poll() is not None, "the end of it", timeout_s=10)
        verdict = trial.verdict()

        assert len(trial.fleet.living()) == MEMBERS
        assert "The group id does not exist" in trial.fleet.logs()
    assert refused.returncode == 1
    assert verdict.broken() == []
    assert verdict.repeats == 0
    figures("F-25", "consumer refused by classic", **verdict.figures())


def trial_on(kafka: SharedKafka, folder: Path, total: int) -> Trial:
    return Trial(
        kafka.bootstrap_servers,
        kafka.topic("orders", partitions=PARTITIONS),
        kafka.group("orders"),
        folder,
        partitions=PARTITIONS,
        total=total,
        rate=300,
        options={"app.work_s": 0.002},
        sends_at_once=False,
    )


def start(trial: Trial, protocol: str) -> subprocess.Popen[bytes]:
    return trial.fleet.start(**{"kafka.group_protocol": protocol})
