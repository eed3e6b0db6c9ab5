"""The values: each is said, used and known to the schema, and what cannot work is refused with what mends it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import generate_chart
import pytest
import yaml
from rendered_chart import CHART, LEAST, merged, refusal, rendered, with_worker

from streamworker import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
TEMPLATES = "\n".join(path.read_text("utf-8") for path in sorted((CHART / "templates").rglob("*.*")))
VALUES = list(generate_chart.every(generate_chart.values((CHART / "values.yaml").read_text("utf-8"))))
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
# Handed over as a whole, so no template names what is below.
WHOLE = ("probes",)
SCALED = {"topics": ["orders"], "partitions": 12}


def test_the_readme_and_the_schema_are_what_the_values_say() -> None:
    made = generate_chart.files(CHART)

    stale = [name for name, text in made.items() if (CHART / name).read_text("utf-8") != text]

    assert (list(made), stale) == (["README.md", "values.schema.json"], []), f"renewed by {generate_chart.COMMAND}"


def test_a_value_without_a_word_about_it_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected a comment, `# -- …`, above b\.c"):
        generate_chart.values("# -- Said.\na: 1\nb:\n  c: 2\n")


def test_a_stale_file_is_named_with_the_command_that_renews_it(tmp_path: Path) -> None:
    for name in ("values.yaml", "Chart.yaml", "README.md", "values.schema.json"):
        (tmp_path / name).write_text((CHART / name).read_text("utf-8"), "utf-8")
    with (tmp_path / "values.yaml").open("a") as file:
        file.write('# -- New.\nmore: ""\n')
    command = [sys.executable, "tools/generate_chart.py", "--check", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "README.md is stale" in done.stderr
    assert "values.schema.json is stale; renewed by: python tools/generate_chart.py" in done.stderr


def test_every_value_is_used_by_a_template() -> None:
    unused = [
        ".".join(one.path)
        for one in VALUES
        if not one.is_section
        and one.path != ("global",)
        and not set(WHOLE) & set(one.path)
        and not re.search(rf'[."]{one.path[-1]}\b', TEMPLATES)
    ]

    assert unused == []


def test_everything_that_the_pod_template_reads_is_a_setting_of_every_pod() -> None:
    read = set(re.findall(r"\$settings\.(\w+)", TEMPLATES))

    assert read - {"kind"} == set(generate_chart.POD_KEYS)


def test_no_value_is_read_that_there_is_not() -> None:
    known = {one.path[:end] for one in VALUES for end in range(1, len(one.path) + 1)}
    read = {tuple(path.split(".")) for path in re.findall(r"\.Values\.([A-Za-z.]+[A-Za-z])", TEMPLATES)}

    assert read - known == set()


def objects(schema: Mapping[str, object], path: str = "") -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each schema of an object, and those within."""
    if schema.get("type") == "object":
        yield path, schema
    for name in ("properties", "$defs"):
        for key, inner in schema.get(name, {}).items():
            yield from objects(inner, f"{path}.{key}")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from objects(schema["additionalProperties"], f"{path}.*")


def test_no_object_takes_unknown_keys_but_those_that_are_handed_over() -> None:
    open_ones = [
        path
        for path, schema in objects(SCHEMA)
        if schema.get("additionalProperties", True) is True and "$comment" not in schema
    ]

    assert sorted(open_ones) == [".config.app", ".global"]


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"kafak": {}}, "kafak"),
        ({"kafka": {"bootstrapServer": "kafka:9092"}}, "bootstrapServer"),
        ({"workerDefaults": {"replica": 2}}, "replica"),
        ({"workers": {"orders": {"handler": "a:B"}}}, "handler"),
        ({"workers": {"orders": {"autoscaling": {"keda": {"lagThreshold": 1}}}}}, "lagThreshold"),
        ({"console": {"pod": {"ressources": {}}}}, "ressources"),
        ({"rules": {"overrides": {"StreamWorkerLagHigh": {"fro": "5m"}}}}, "fro"),
        ({"workers": {"Orders": {}}}, "Orders"),
    ],
)
def test_a_key_that_is_misspelled_is_refused_by_its_name(values: Mapping[str, object], key: str) -> None:
    message = refusal(merged(LEAST, values))

    assert f"'{key}'" in message


def test_what_a_parent_chart_gives_to_all_is_taken() -> None:
    assert rendered(with_worker({}, **{"global": {"anything": 1}})).objects


# What is wrong, and words of what the chart says about it: the key, and the mend.
REFUSED: Mapping[str, tuple[Mapping[str, object], str, str]] = {
    "no brokers": ({"workers": LEAST["workers"]}, "kafka.bootstrapServers", "--set kafka.bootstrapServers=kafka:9092"),
    "nothing to run": ({"kafka": LEAST["kafka"]}, "workers", 'handlers: ["app.handlers:StoreOrders"]'),
    "no handlers": (with_worker({"handlers": []}), "workers.orders.handlers", "module:Class"),
    "no group": (with_worker({"group": ""}), "workers.orders.group", "workers.orders.group: orders"),
    "a long name": (with_worker({}, fullnameOverride="x" * 50), "workers.orders", "set fullnameOverride"),
    "a taken name": (
        merged(LEAST, {"workers": {"console": LEAST["workers"]["orders"]}}),
        "workers.console",
        "call the worker something else",
    ),
    "the name of a canary": (
        merged(LEAST, {"workers": {"orders-canary": LEAST["workers"]["orders"]}}),
        "workers.orders-canary",
        "call the worker something else",
    ),
    "SASL without a secret": (
        with_worker({}, kafka={"sasl": {"mechanism": "PLAIN"}}),
        "kafka.sasl.mechanism",
        "name it in kafka.sasl.existingSecret",
    ),
    "a secret without SASL": (
        with_worker({}, kafka={"sasl": {"existingSecret": "kafka"}}),
        "kafka.sasl.existingSecret",
        "set kafka.sasl.mechanism",
    ),
    "tokens from nowhere": (
        with_worker({}, kafka={"sasl": {"mechanism": "OAUTHBEARER", "existingSecret": "kafka"}}),
        "kafka.sasl.mechanism",
        "set kafka.sasl.tokenEndpointUrl",
    ),
    "a secret without TLS": (
        with_worker({}, kafka={"tls": {"existingSecret": "kafka"}}),
        "kafka.tls.existingSecret",
        "set kafka.tls.enabled to true",
    ),
    "half a certificate": (
        with_worker({}, kafka={"tls": {"enabled": True, "existingSecret": "kafka", "certKey": "tls.crt"}}),
        "kafka.tls.certKey and kafka.tls.keyKey",
        "expected both or none",
    ),
    "brokers in the configuration": (
        with_worker({}, config={"kafka": {"bootstrap_servers": "kafka:1"}}),
        "config.kafka.bootstrap_servers",
        "set kafka.bootstrapServers",
    ),
    "a group in the configuration": (
        with_worker({"config": {"kafka": {"group": "orders"}}}),
        "config.kafka.group",
        "set workers.<name>.group",
    ),
    "no port for probes": (
        with_worker({}, config={"http": {"enabled": False}}),
        "workers.orders.config.http.enabled",
        "take it out",
    ),
    "any port for probes": (with_worker({}, config={"http": {"port": 0}}), "config.http.port", "give a number"),
    "a port of its own": (
        with_worker({"config": {"http": {"port": 9000}}}),
        "workers.orders.config.http.port",
        "set config.http.port",
    ),
    "a canary of static members": (
        with_worker({"kind": "StatefulSet", "canary": {"enabled": True, "image": {"tag": "2"}}}),
        "workers.orders.canary.enabled",
        "updateStrategy.rollingUpdate.partition",
    ),
    "a canary of nothing new": (
        with_worker({"canary": {"enabled": True}}),
        "workers.orders.canary.enabled",
        "set workers.orders.canary.image.tag",
    ),
    "scaled by no topic": (
        with_worker({"partitions": 3, "autoscaling": {"mode": "keda"}}),
        "workers.orders.topics",
        "workers.orders.topics: [orders]",
    ),
    "scaled without an end": (
        with_worker({"topics": ["orders"], "autoscaling": {"mode": "keda"}}),
        "workers.orders.partitions",
        "kafka-topics --describe",
    ),
    "no partition left": (
        with_worker({**SCALED, "processes": 13, "autoscaling": {"mode": "keda"}}),
        "workers.orders.autoscaling",
        "lower workers.orders.processes",
    ),
    "more pods than partitions": (
        with_worker({**SCALED, "autoscaling": {"mode": "hpa", "maxReplicas": 13}}),
        "workers.orders.autoscaling.maxReplicas: expected at most 12",
        "leave it out",
    ),
    "a minimum above the maximum": (
        with_worker({**SCALED, "autoscaling": {"mode": "hpa", "minReplicas": 13}}),
        "workers.orders.autoscaling.minReplicas",
        "lower it",
    ),
    "an HPA to zero": (
        with_worker({**SCALED, "autoscaling": {"mode": "hpa", "minReplicas": 0}}),
        "workers.orders.autoscaling.minReplicas",
        "the mode to keda",
    ),
    "KEDA's triggers without KEDA": (
        with_worker({**SCALED, "autoscaling": {"mode": "hpa", "busy": {"enabled": True}}}),
        "workers.orders.autoscaling.mode",
        "set it to keda",
    ),
    "a group that is no label": (
        with_worker({**SCALED, "group": "orders/eu", "autoscaling": {"mode": "hpa"}}),
        "workers.orders.autoscaling.mode",
        'got "orders/eu"',
    ),
    "nobody to ask": (
        with_worker({**SCALED, "autoscaling": {"mode": "keda", "sinkBreakerHold": {"enabled": True}}}),
        "workers.orders.autoscaling.prometheus.serverAddress",
        "set its URL",
    ),
    "a hold of totals": (
        with_worker(
            {
                **SCALED,
                "autoscaling": {
                    "mode": "keda",
                    "metricType": "Value",
                    "prometheus": {"serverAddress": "http://prometheus"},
                    "sinkBreakerHold": {"enabled": True},
                },
            }
        ),
        "workers.orders.autoscaling.metricType",
        "set it to AverageValue",
    ),
    "a hold that knows not all": (
        with_worker(
            {
                **SCALED,
                "autoscaling": {
                    "mode": "keda",
                    "prometheus": {"serverAddress": "http://prometheus"},
                    "sinkBreakerHold": {"enabled": True},
                    "keda": {"extraTriggers": [{"type": "cpu"}]},
                },
            }
        ),
        "workers.orders.autoscaling.keda.extraTriggers",
        "take them or the hold out",
    ),
    "tokens that KEDA cannot have": (
        with_worker(
            {**SCALED, "autoscaling": {"mode": "keda"}},
            kafka={
                "sasl": {"mechanism": "OAUTHBEARER", "existingSecret": "kafka", "tokenEndpointUrl": "https://tokens"}
            },
        ),
        "workers.orders.autoscaling.keda.authenticationRef",
        "make one and name it",
    ),
    "a console of no name": (
        with_worker({}, console={"enabled": True, "tls": {"existingSecret": "tls"}}),
        "console.publicUrl",
        "https://letters.example.org",
    ),
    "a console that others read along": (
        with_worker({}, console={"enabled": True, "publicUrl": "https://letters.example.org"}),
        "console: others could read along",
        "console.behindProxy",
    ),
    "a proxy from anywhere": (
        with_worker(
            {},
            console={
                "enabled": True,
                "publicUrl": "https://letters.example.org",
                "tls": {"existingSecret": "tls"},
                "proxySecret": {"existingSecret": "proxy"},
            },
        ),
        "console.proxySecret.existingSecret",
        "set console.behindProxy",
    ),
    "half a provider": (
        with_worker(
            {},
            console={
                "enabled": True,
                "publicUrl": "https://letters.example.org",
                "tls": {"existingSecret": "tls"},
                "oidc": {"issuer": "https://login.example.org"},
            },
        ),
        "console.oidc",
        "expected issuer, clientId and existingSecret",
    ),
    "a policy without brokers": (
        with_worker({}, networkPolicy={"enabled": True}),
        "networkPolicy.kafka",
        "ports: [9092]",
    ),
    "an alert that there is not": (
        with_worker({}, rules={"enabled": True, "overrides": {"StreamWorkerLagHihg": {"for": "5m"}}}),
        "rules.overrides.StreamWorkerLagHihg",
        "no such alert",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused_with_what_mends_it(what: str) -> None:
    values, key, mend = REFUSED[what]

    message = refusal(values)

    assert key in message
    assert mend in message


def test_every_complaint_is_shown_by_a_test() -> None:
    """Those about secrets and the time to end in have tests of their own."""
    complaints = re.findall(r"append \$wrong", (CHART / "templates" / "validations.yaml").read_text("utf-8"))

    assert len(complaints) == len(REFUSED) + len({"an option", "a URL", "less time", "a static member that is scaled"})


def test_all_that_is_wrong_is_said_at_once() -> None:
    message = refusal(with_worker({"handlers": [], "group": ""}))

    assert "workers.orders.handlers" in message
    assert "workers.orders.group" in message


def test_the_versions_of_chart_and_program_go_together() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))

    assert chart["appVersion"] == __version__
    assert chart["kubeVersion"] == ">=1.28.0-0"
    assert f"## {chart['version']}" in (CHART / "UPGRADING.md").read_text("utf-8")
