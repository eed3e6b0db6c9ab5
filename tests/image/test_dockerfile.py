"""The Dockerfile and the lock of the image, as far as they can be judged without building it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")
EXTRAS = {"console", "redis", "postgres", "http", "registry", "uvloop", "oidc"}
OF_A_DESK = {"autoscale"}  # for a command that nobody runs in a pod


def instructions(word: str) -> list[str]:
    """What follows that word, with continued lines joined."""
    return re.findall(rf"^{word} (.*)$", DOCKERFILE.replace("\\\n", ""), re.MULTILINE)


def test_both_stages_have_the_one_base_which_may_be_given_by_its_digest() -> None:
    before, _, _ = DOCKERFILE.partition("\nFROM ")
    default = re.findall(r"^ARG (.*)$", before, re.MULTILINE)

    assert len(default) == 1
    assert re.fullmatch(r"BASE=python:3\.\d+\.\d+-slim-\w+", default[0])
    assert [line.split(" ")[0] for line in instructions("FROM")] == ["${BASE}", "${BASE}"]


def test_signals_reach_the_worker_because_no_shell_stands_before_it() -> None:
    assert [json.loads(line) for line in instructions("ENTRYPOINT")] == [["streamworker"]]
    assert [json.loads(line) for line in instructions("CMD")] == [["--help"]]
    (check,) = instructions("HEALTHCHECK")
    assert json.loads(check.partition("CMD ")[2]) == ["streamworker", "healthcheck"]


def test_nothing_runs_as_root_and_the_user_has_a_number_that_a_cluster_can_check() -> None:
    assert instructions("USER") == ["10001:10001"]


def test_nothing_is_fetched_while_it_is_built() -> None:
    installs = re.findall(r"pip .*? install (.*?)(?= && |$)", " ".join(instructions("RUN")))

    assert installs
    assert all("--no-index" in one for one in installs)
    assert "--require-hashes" in installs[0]
    assert not re.search(r"apt-get|curl|wget|ADD ", DOCKERFILE)


def test_the_builder_is_sent_wheels_and_their_lock_only() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()

    assert [line for line in lines if not line.startswith("#")] == ["*", "!build/wheelhouse", "!requirements/image.txt"]


def pins(lock: str) -> dict[str, list[str]]:
    """The lines of each requirement, with its hashes, and without for whom it is and who asked for it."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in (ROOT / "requirements" / lock).read_text("utf-8").splitlines():
        if match := re.match(r"([a-z0-9-]+)==", line):
            name = match[1]
        if line.strip() and not line.strip().startswith("#"):
            found.setdefault(name, []).append(re.sub(r" ; .*[^\\ ]", "", line))
    return found


def test_the_image_has_what_the_tests_ran_with_and_its_hashes() -> None:
    image, tested = pins("image.txt"), pins("dev.txt")

    assert {name: lines for name, lines in image.items() if tested.get(name) != lines} == {}
    assert all(any("--hash=sha256:" in line for line in lines) for lines in image.values())


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_image_has_every_extra(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {re.match(r"[a-z0-9-]+", one)[0] for one in project["optional-dependencies"][extra]}  # type: ignore[index]

    assert wanted <= pins("image.txt").keys()


def test_no_extra_was_forgotten() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert project["optional-dependencies"].keys() == EXTRAS | OF_A_DESK
