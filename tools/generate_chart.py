#!/usr/bin/env python3
"""Writes the chart's README.md and values.schema.json from its values.yaml: `python tools/generate_chart.py [--check]`.

Decided here: how a value and the comment above it become a row and a schema. The words, the defaults and what narrows a
type stand in values.yaml; the tables of the configuration are those of `streamworker.config`. With `--check` nothing is
written, and the exit code is 1 if a file is stale.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import sys
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, get_args, get_type_hints

import yaml
from made_files import write_or_compare

from streamworker import config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COMMAND = "python tools/generate_chart.py"
CHART = Path(__file__).parent.parent / "deploy" / "charts" / "streamworker"

# What the pods of the console, the lag observer and the topics Job share with those of workers.
POD_KEYS = (
    "resources", "podLabels", "podAnnotations", "podSecurityContext", "securityContext", "env", "envFrom", "volumes",
    "volumeMounts", "initContainers", "sidecars", "tmp", "nodeSelector", "affinity", "tolerations", "priorityClassName",
    "topologySpreadConstraints", "probes",
)  # fmt: skip

_TYPES: Mapping[type, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object",
}  # fmt: skip

Schema = dict[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A key of values.yaml: its dotted path, its default, what the comment above it says, and what that narrows."""

    path: tuple[str, ...]
    default: object
    text: str
    narrowed: Schema
    below: Sequence[Value]

    @property
    def passed(self) -> str | None:
        """The type of Kubernetes or of an operator that it is handed over as."""
        kind = self.narrowed.get("passed")
        return None if kind is None else str(kind)

    @property
    def is_section(self) -> bool:
        """Whether keys of ours stand below it."""
        return bool(self.below) and self.passed is None


def values(text: str) -> Sequence[Value]:
    """What values.yaml has, in its order. Raises ValueError for a key without a word about it."""
    lines = text.splitlines()
    found = tuple(_values((), yaml.compose(text), lines))
    silent = [".".join(one.path) for one in every(found) if not one.is_section and not one.text]
    if silent:
        raise ValueError(f"values.yaml: expected a comment, `# -- …`, above {', '.join(silent)}")
    return found


def _values(path: tuple[str, ...], node: yaml.Node, lines: Sequence[str]) -> Iterator[Value]:
    assert isinstance(node, yaml.MappingNode)
    for key, inner in node.value:
        here = (*path, key.value)
        text, narrowed = _comment(lines, key.start_mark.line, ".".join(here))
        inside = (
            isinstance(inner, yaml.MappingNode) and "passed" not in narrowed and "additionalProperties" not in narrowed
        )
        below = tuple(_values(here, inner, lines)) if inside else ()
        yield Value(here, yaml.safe_load(yaml.serialize(inner)), text, narrowed, below)


def _comment(lines: Sequence[str], line: int, path: str) -> tuple[str, Schema]:
    """The words and the schema of the comment that ends right above `line`."""
    above: list[str] = []
    while line > 0 and (found := re.match(r" *# ?(.*)", lines[line - 1])):
        above.insert(0, found[1])
        line -= 1
        if found[1].startswith("-- "):
            break
    words = [one for one in above if not one.startswith("@schema ")]
    schemas = [one.removeprefix("@schema ") for one in above if one.startswith("@schema ")]
    if not words or not words[0].startswith("-- "):
        return "", {}
    try:
        return " ".join(words).removeprefix("-- "), json.loads(schemas[0]) if schemas else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"values.yaml: {path}: @schema is not JSON: {error}") from error


def every(found: Sequence[Value]) -> Iterator[Value]:
    """All of them, and those below."""
    for one in found:
        yield one
        yield from every(one.below)


def schema(found: Sequence[Value]) -> str:
    """values.schema.json."""
    [worker] = [one for one in found if one.path == ("workerDefaults",)]
    properties = {one.path[-1]: _schema(one) for one in worker.below}
    whole: Schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": f"Made from values.yaml by `{COMMAND}`; changes belong there.",
        **_object({one.path[0]: _schema(one) for one in found}),
        "$defs": {
            "worker": _object(properties),
            "pod": _object({name: properties[name] for name in POD_KEYS}),
            "config": _configuration(),
        },
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _object(properties: Mapping[str, object]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _schema(value: Value) -> Schema:
    narrowed = {name: one for name, one in value.narrowed.items() if name != "passed"}
    if "$ref" in narrowed:
        return narrowed
    if value.is_section:
        return _object({one.path[-1]: _schema(one) for one in value.below})
    made: Schema = {"description": value.text, "type": _TYPES.get(type(value.default), "null")}
    if value.passed is not None:
        made["$comment"] = f"handed over as {value.passed}"
    if isinstance(value.default, dict):
        made["additionalProperties"] = value.passed is not None
    if isinstance(value.default, list) and "items" not in narrowed:
        raise ValueError(f"values.yaml: {'.'.join(value.path)}: expected the type of its items, `# @schema`")
    return {**made, **narrowed}


def _configuration() -> Schema:
    """The tables of streamworker.toml."""
    kinds = get_type_hints(config.Config)
    made: dict[str, object] = {}
    for table in config.tables():
        if table == "app":
            made[table] = {"type": "object"}
        elif table in config.FREE_TABLES:
            made[table] = {"type": "object", "additionalProperties": {"type": "string"}}
        else:
            made[table] = _object({name: _option(kind) for name, kind in get_type_hints(kinds[table]).items()})
    return _object(made)


def _option(kind: object) -> Schema:
    if isinstance(kind, UnionType):
        [kind] = [one for one in get_args(kind) if one is not type(None)]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if isinstance(kind, type):
        return {"type": _TYPES[kind]}
    # The client's own options: their names have dots, which may stand for tables.
    return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "object"]}}


def readme(found: Sequence[Value], chart: Mapping[str, object]) -> str:
    """README.md."""
    lines = [
        "# streamworker",
        "",
        f"<!-- Made from values.yaml by `{COMMAND}`; changes belong there. -->",
        "",
        f"{chart['description']}",
        "",
        f"Chart {chart['version']}, for streamworker {chart['appVersion']}, on Kubernetes {chart['kubeVersion']}.",
        "",
        "```sh",
        "helm install orders deploy/charts/streamworker \\",
        "    --set kafka.bootstrapServers=kafka:9092 --set image.repository=shop,image.tag=1.0.0 \\",
        "    --set 'workers.orders.handlers={app.handlers:StoreOrders}' --set workers.orders.group=orders",
        "helm test orders --logs",
        "```",
        "",
        (
            "It needs no operator. What needs one is off until it is asked for: `podMonitor` and `rules` the"
            " prometheus-operator, `autoscaling.mode: keda` KEDA 2.18 or later, `autoscaling.mode: hpa` a"
            " prometheus-adapter. How to size, roll out, scale and watch workers is said in `docs/kubernetes.md`; what"
            " changes from chart to chart in [UPGRADING.md](UPGRADING.md). `ci/` has values for each way to use it."
        ),
        "",
        "## Values",
        "",
        (
            "Unknown keys are refused with their name. *As X* is handed over as it is: what may stand there is"
            " Kubernetes', or the operator's, to say."
        ),
        "",
        "| Key | Type | Default | Meaning |",
        "| --- | --- | --- | --- |",
        *(_row(one) for one in every(found) if not one.is_section),
    ]
    return "\n".join(lines) + "\n"


def _row(value: Value) -> str:
    cells = (
        f"`{'.'.join(value.path)}`",
        _kind(value),
        f"`{json.dumps(value.default, ensure_ascii=False)}`",
        value.text,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _kind(value: Value) -> str:
    if value.passed is not None:
        return f"list of {value.passed}" if isinstance(value.default, list) else f"as {value.passed}"
    if "enum" in value.narrowed:
        return ", ".join(f"`{json.dumps(one)}`" for one in _listed(value.narrowed["enum"]))
    if "type" in value.narrowed:
        types = value.narrowed["type"]
        return " or ".join(map(str, _listed(types) if isinstance(types, list) else [types]))
    return _TYPES.get(type(value.default), "null")


def _listed(found: object) -> Sequence[object]:
    assert isinstance(found, list)
    return found


def files(folder: Path) -> Mapping[str, str]:
    """What belongs into the chart's folder, by name."""
    found = values((folder / "values.yaml").read_text("utf-8"))
    chart = yaml.safe_load((folder / "Chart.yaml").read_text("utf-8"))
    return {"README.md": readme(found, chart), "values.schema.json": schema(found)}


if __name__ == "__main__":
    sys.exit(
        write_or_compare("Write the chart's README.md and values.schema.json from its values.", COMMAND, CHART, files)
    )
