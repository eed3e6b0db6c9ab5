#!/usr/bin/env python3
"""Makes the schemas beside this file, by which kubeconform checks what the chart renders.

`python tests/chart/schemas/make.py`, with Go on the PATH: it downloads the sources named below, takes the kinds that
the chart uses and whatever these refer to, forbids unknown fields, and leaves the descriptions out.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
KUBERNETES = "k8s.io/kubernetes@v1.34.4"
KINDS = (
    "apps/v1/Deployment", "apps/v1/StatefulSet", "autoscaling/v2/HorizontalPodAutoscaler", "batch/v1/Job",
    "networking.k8s.io/v1/Ingress", "networking.k8s.io/v1/NetworkPolicy", "policy/v1/PodDisruptionBudget",
    "/v1/ConfigMap", "/v1/Pod", "/v1/Service", "/v1/ServiceAccount",
)  # fmt: skip
CUSTOM = {
    "github.com/kedacore/keda/v2@v2.21.0": (
        "config/crd/bases/keda.sh_scaledobjects.yaml", "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "github.com/argoproj/argo-rollouts@v1.8.3": ("manifests/crds/rollout-crd.yaml",),
}  # fmt: skip
REFERENCE = "#/definitions/"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"

# What is deeper in a Rollout is a pod, of which the chart's examples have none.
_DEEPEST = {"Rollout": 6}


class Loader(yaml.CSafeLoader):
    """One that takes `=` for a text; some CRDs have it in their enums."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value)


def main() -> None:
    """Write them all."""
    for old in FOLDER.glob("*.json"):
        old.unlink()
    definitions = json.loads((source(KUBERNETES) / "api/openapi-spec/swagger.json").read_text())["definitions"]
    definitions[QUANTITY] = {"anyOf": [{"type": "string"}, {"type": "number"}]}
    used: dict[str, object] = {}
    for group_kind in KINDS:
        group, version, kind = group_kind.rsplit("/", 2)
        wanted = {"group": group, "version": version, "kind": kind}
        [name] = [name for name, one in definitions.items() if wanted in one.get("x-kubernetes-group-version-kind", ())]
        gather(name, definitions, used)
        write(group, version, kind, {"$ref": f"_definitions.json{REFERENCE}{name}"})
    dump("_definitions.json", {"definitions": used})
    for module, files in CUSTOM.items():
        for file in files:
            custom = yaml.load((source(module) / file).read_text(), Loader)["spec"]
            for version in custom["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                schema["properties"]["metadata"] = {"type": "object"}
                kind = custom["names"]["kind"]
                write(custom["group"], version["name"], kind, strict(schema, _DEEPEST.get(kind, 100)))


def source(module: str) -> Path:
    """The folder of a module's source."""
    told = subprocess.run(["go", "mod", "download", "-json", module], capture_output=True, text=True, check=True).stdout
    return Path(json.loads(told)["Dir"])


def gather(name: str, definitions: dict[str, object], used: dict[str, object]) -> None:
    """The definition of `name`, and those that it refers to."""
    if name in used:
        return
    used[name] = strict(definitions[name], 100)
    for other in references(definitions[name]):
        gather(other, definitions, used)


def references(schema: object) -> Iterator[str]:
    """Names of the definitions that are referred to."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(REFERENCE)
        for inner in schema.values():
            yield from references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from references(inner)


def strict(schema: object, deepest: int) -> object:
    """`schema` without words, and with no fields but those that it names. Below `deepest` levels anything may stand."""
    if not isinstance(schema, dict):
        return schema
    if deepest == 0:
        return {}
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["string", "integer", "null"]}
    kept = ("$ref", "type", "enum", "required", "anyOf", "oneOf", "pattern", "minimum", "maximum")
    made = {name: schema[name] for name in kept if name in schema}
    if isinstance(schema.get("properties"), dict):
        made["properties"] = {name: strict(one, deepest - 1) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if name in schema:
            made[name] = strict(schema[name], deepest - 1)
    return made


def write(group: str, version: str, kind: str, schema: object) -> None:
    """Where kubeconform looks for it: `{{.ResourceKind}}{{.KindSuffix}}.json`."""
    first = group.partition(".")[0]
    dump(f"{kind.lower()}-{first}-{version}.json" if first else f"{kind.lower()}-{version}.json", schema)


def dump(name: str, schema: object) -> None:
    """One line: nobody reads them."""
    text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
    (FOLDER / name).write_text(re.sub(r"\bio\.k8s\.", "", text) + "\n")


if __name__ == "__main__":
    main()
