"""The chart as Helm renders it, each set of values once per process of tests."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from missing import obtained
from servers.chart_tools import program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Object = Mapping[str, "Object"]

CHART = Path(__file__).parents[1] / "deploy" / "charts" / "streamworker"
CASES = sorted((CHART / "ci").glob("*-values.yaml"))
CASE_NAMES = [case.name.removesuffix("-values.yaml") for case in CASES]
RELEASE, NAMESPACE = "demo", "flows"
KUBERNETES = "1.34.4"  # which helm cannot know when nobody has told it at its build

# The least that the chart takes.
WORKER = {"handlers": ["app.handlers:StoreOrders"], "group": "orders"}
LEAST = {"kafka": {"bootstrapServers": "kafka:9092"}, "workers": {"orders": WORKER}}


@dataclass(frozen=True, slots=True)
class Rendered:
    """The objects of one set of values, and the text that they were parsed from."""

    text: str
    objects: Sequence[Object]

    def of(self, *kinds: str) -> Sequence[Object]:
        """Those of these kinds, in order."""
        return [one for one in self.objects if one["kind"] in kinds]

    def one(self, kind: str, name: str) -> Object:
        """The one of that kind and name."""
        [found] = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    def templates(self) -> Iterator[tuple[str, Object]]:
        """Every pod that these objects make, as its metadata and spec, by kind and name of what makes it."""
        for one in self.of("Deployment", "StatefulSet", "Job"):
            yield f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]
        for one in self.of("Pod"):
            yield f"Pod {one['metadata']['name']}", one


def helm(*arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run it."""
    command = [str(obtained(lambda: program("helm"))), *map(str, arguments)]
    environment = {**os.environ, "GOGC": "off"}  # a third faster: it ends before there is anything to collect
    return subprocess.run(
        command, input=given, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def case(name: str) -> Rendered:
    """The chart with the values of `ci/<name>-values.yaml`."""
    return _rendered(CHART, CHART / "ci" / f"{name}-values.yaml", None)


def rendered(values: Mapping[str, object], chart: Path = CHART) -> Rendered:
    """The chart with these values."""
    return _rendered(chart, None, _yaml(values))


@cache
def _rendered(chart: Path, file: Path | None, given: str | None) -> Rendered:
    done = _template(chart, file or Path("-"), given)
    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]
    return Rendered(done.stdout, objects)


def refusal(values: Mapping[str, object], chart: Path = CHART) -> str:
    """What Helm says of values that it, or the chart, does not take."""
    done = _template(chart, Path("-"), _yaml(values))
    assert done.returncode, "it was rendered"
    return done.stderr


def _yaml(values: Mapping[str, object]) -> str:
    """As JSON, which is YAML but for surrogates and DEL."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False).replace("\x7f", "\\u007f")


def _template(chart: Path, file: Path, given: str | None) -> subprocess.CompletedProcess[str]:
    flags = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES, "--values", file)
    return helm("template", RELEASE, chart, *flags, given=given)


def merged(*tables: Mapping[str, object]) -> dict[str, object]:
    """Tables laid over one another, the last on top."""
    result: dict[str, object] = {}
    for table in tables:
        for key, value in table.items():
            below = result.get(key)
            both = isinstance(below, dict) and isinstance(value, dict)
            result[key] = merged(below, value) if both else value
    return result


def with_worker(worker: Mapping[str, object], **values: object) -> dict[str, object]:
    """The least values, with these keys of the one worker, and others beside it."""
    return merged(LEAST, {"workers": {"orders": worker}}, values)
