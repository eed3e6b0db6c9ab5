"""A release that is changed, taken back and tested, as the API server and its controllers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cluster.releases import Release, names, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.kubernetes import Kubernetes

SLOWER = {"commit": {"interval_s": 2.0}}


@pytest.fixture
def release(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Release]:
    with kubernetes.namespace("upgrades") as namespace:
        installed = Release(kubernetes, namespace, tmp_path)
        installed.install(values_of())
        yield installed


def selectors(release: Release) -> dict[str, object]:
    return {one["metadata"]["name"]: one["spec"]["selector"] for one in release.workloads()}


def templates(release: Release) -> dict[str, object]:
    return {one["metadata"]["name"]: one["spec"]["template"] for one in release.workloads()}


def test_an_upgrade_that_changes_nothing_leaves_the_pods_alone(release: Release) -> None:
    before = names(release.pods())

    release.upgrade(values_of())

    assert len(before) == 2
    assert names(release.pods()) == before


def test_another_configuration_replaces_all_pods_and_no_selector(release: Release) -> None:
    pods, found_by = names(release.pods()), selectors(release)

    release.upgrade(values_of(config=SLOWER))

    assert len(names(release.pods()) - pods) == 2
    assert names(release.pods()) & pods == set()
    assert selectors(release) == found_by


def test_another_image_replaces_all_pods(release: Release) -> None:
    pods = names(release.pods())

    release.upgrade(values_of(image={"tag": "2.0.0"}))

    assert names(release.pods()) & pods == set()
    assert {each["image"].rpartition(":")[2] for pod in release.pods() for each in pod["spec"]["containers"]} == {
        "2.0.0"
    }


def test_a_rollback_brings_the_first_pods_template_and_configuration_again(release: Release) -> None:
    template, kept = templates(release), [one["data"] for one in release.objects("configmaps")]
    release.upgrade(values_of(config=SLOWER))
    changed = [one["data"] for one in release.objects("configmaps")]

    release.roll_back(1)

    assert templates(release) == template
    assert [one["data"] for one in release.objects("configmaps")] == kept != changed


def test_a_worker_that_is_no_longer_named_is_gone_and_its_neighbour_stays(release: Release) -> None:
    [orders] = values_of()["workers"].values()  # type: ignore[attr-defined]
    release.upgrade(values_of(workers={"orders": orders, "refunds": {**orders, "group": "refunds"}}))
    both = names(release.pods())

    release.upgrade(values_of())

    left = names(release.pods())
    assert len(both) == 4
    assert len(left) == 2
    assert left < both


def test_the_tests_of_a_release_are_let_in_and_end(release: Release) -> None:
    printed = release.test()

    assert printed.count("Phase:          Succeeded") >= 1
