"""Whatever a file says, `config show --json` says again, with where it came from."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from streamworker.cli.main import main

TEXT = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=12)
NAMES = st.text("abcdefghijklmnop", min_size=1, max_size=6)
# Values that fit whatever their neighbours are.
OPTIONS: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "kafka": {
        "group": st.text("abc-_.", max_size=8),
        "group_protocol": st.sampled_from(["classic", "consumer"]),
        "session_timeout_s": st.floats(10, 300),
        "max_poll_interval_s": st.floats(300, 3000),
        "queued_min_messages": st.integers(1, 10_000_000),
        "librdkafka": st.dictionaries(
            st.sampled_from(["client.rack", "client.id", "broker.address.ttl"]),
            TEXT | st.integers(0, 9) | st.booleans(),
        ),
    },
    "commit": {"interval_s": st.floats(0.01, 60), "max_uncommitted": st.integers(1, 10**9)},
    "flow": {"resume_at": st.floats(0.01, 1), "max_slice": st.integers(1, 10**6)},
    "lifecycle": {"drain_timeout_s": st.integers(16, 600), "handler_timeout_s": st.floats(0, 1e6)},
    "http": {"enabled": st.booleans(), "host": TEXT, "port": st.integers(0, 65_535)},
    "log": {"level": st.sampled_from(["DEBUG", "ERROR"])},
    "degradation": {
        name: st.sampled_from(["cached", "default", "skip", "fail_fast"]) for name in ("place", "price_of")
    },
    "app": {"greeting": TEXT, "sizes": st.lists(st.integers(0, 9)), "depth": st.dictionaries(NAMES, TEXT, min_size=1)},
}
TABLES = st.fixed_dictionaries(
    {}, optional={table: st.fixed_dictionaries({}, optional=options) for table, options in OPTIONS.items()}
)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def written(tables: dict[str, dict[str, object]]) -> str:
    lines = []
    for table, options in tables.items():
        lines.append(f"[{table}]")
        lines.extend(f"{name} = {toml(value)}" for name, value in options.items())
    return "\n".join(lines)


def flat(tables: dict[str, dict[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for table, options in tables.items():
        for name, value in options.items():
            inner = value if isinstance(value, dict) else {None: value}
            found |= {".".join(filter(None, (table, name, key))): one for key, one in inner.items()}
    return found


@settings(max_examples=100, deadline=None)
@given(TABLES)
def test_what_a_file_says_is_shown_with_its_place_and_the_rest_is_default(tables: dict[str, dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "any.toml")
        file.write_text(written(tables), encoding="utf-8")

        result = CliRunner().invoke(main, ["config", "show", "--json", "--config", str(file)])

    assert result.exit_code == 0, result.output
    shown = json.loads(result.output)
    expected = flat(tables)
    assert {name: shown[name]["value"] for name in expected} == expected
    assert {name for name, entry in shown.items() if entry["from"] == str(file)} == set(expected)
    assert {entry["from"] for name, entry in shown.items() if name not in expected} <= {"default"}
