"""The workflows for GitHub: what each must have, and that it is one. None was run."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from missing import obtained
from servers.chart_tools import program

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WORKFLOWS = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), ROOT / "deploy/templates/github-workflow.yml"]
# What a job may ask for beyond reading, and why.
WRITES = {"id-token": "signs, or publishes without a token", "attestations": "keeps what was signed"}
# The one job that may write to the repository.
RELEASES = ("release.yml", "announce")
# A name with a dot and a path, as a registry in an image's name is; addresses of actions have none.
HOST = re.compile(r"\b(?!\w+\.(?:ya?ml|toml|md|json|txt|tgz|py)\b)[\w-]+\.(?:io|com|org|net|dev)\b")


class Step(msgspec.Struct):
    uses: str = ""
    run: str = ""
    with_: dict[str, object] = msgspec.field(default_factory=dict, name="with")


class Job(msgspec.Struct, rename="kebab"):
    steps: list[Step] = []
    uses: str = ""
    timeout_minutes: int = 0
    permissions: dict[str, str] = {}


class Workflow(msgspec.Struct):
    jobs: dict[str, Job]
    permissions: dict[str, str]
    concurrency: dict[str, object]


def named() -> list[object]:
    return [pytest.param(path, id=path.name) for path in WORKFLOWS]


def read(path: Path) -> Workflow:
    return msgspec.convert(
        {name: value for name, value in msgspec.yaml.decode(path.read_bytes()).items() if isinstance(name, str)},
        Workflow,
    )


def used_actions() -> Iterator[tuple[str, str, str]]:
    """Where, which, and what stands behind the @."""
    for path in WORKFLOWS:
        for name, reference in re.findall(r"uses: ([\w./-]+)@(.+)", path.read_text("utf-8")):
            yield path.name, name, reference


@pytest.mark.parametrize("path", named())
def test_a_workflow_is_one(path: Path) -> None:
    actionlint = obtained(lambda: program("actionlint"))

    done = subprocess.run([actionlint, "-no-color", path], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_actions_are_pinned_by_hash_with_their_version_beside_it_and_all_workflows_have_the_same() -> None:
    pins = defaultdict(set)
    for _, name, reference in used_actions():
        pins[name].add(reference)

    assert len(pins) > 5
    assert [
        f"{name}@{one}"
        for name, ones in pins.items()
        for one in ones
        if not re.fullmatch(r"[0-9a-f]{40} # v[\d.]+", one)
    ] == []
    assert [name for name, ones in pins.items() if len(ones) > 1] == []


@pytest.mark.parametrize("path", named())
def test_a_workflow_may_only_read_and_says_for_each_job_what_more_it_needs(path: Path) -> None:
    workflow = read(path)

    assert workflow.permissions == {"contents": "read"}
    for name, job in workflow.jobs.items():
        writes = {right for right, how in job.permissions.items() if how == "write"} - WRITES.keys()
        assert writes <= ({"contents"} if (path.name, name) == RELEASES else set()), name


@pytest.mark.parametrize("path", named())
def test_no_job_runs_for_ever_and_no_two_of_a_branch_at_once(path: Path) -> None:
    workflow = read(path)

    assert "group" in workflow.concurrency
    assert [name for name, job in workflow.jobs.items() if job.steps and not 0 < job.timeout_minutes <= 60] == []


@pytest.mark.parametrize("path", named())
def test_no_step_can_use_the_rights_of_a_checkout(path: Path) -> None:
    checkouts = [
        step for job in read(path).jobs.values() for step in job.steps if step.uses.startswith("actions/checkout@")
    ]

    assert checkouts
    assert all(step.with_.get("persist-credentials") is False for step in checkouts)


def test_what_workflows_make_there_is_a_target_for() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    made = {
        target
        for path in WORKFLOWS
        for job in read(path).jobs.values()
        for step in job.steps
        for target in re.findall(r"^(?:sudo .* )?make ([a-z-]+)", step.run, re.MULTILINE)
    }

    assert {"lint", "test", "audit", "image", "dist", "sbom", "docs"} <= made
    assert made - targets == set()


@pytest.mark.parametrize("path", named())
def test_no_registry_is_named(path: Path) -> None:
    assert HOST.findall(path.read_text("utf-8")) == []


def test_a_user_of_the_template_is_told_what_to_set_up() -> None:
    template = WORKFLOWS[-1].read_text("utf-8")
    head = template.partition("\nname:")[0]

    assert [one for one in re.findall(r"(?:vars|secrets)\.([A-Z_]+)", template) if one not in head] == []
