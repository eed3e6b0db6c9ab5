"""What the commands say and how they end, as far as no cluster is needed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from streamworker import __version__
from streamworker.cli.config_show import descriptions
from streamworker.cli.console_output import printable
from streamworker.cli.exit_codes import MEANINGS
from streamworker.cli.main import main
from streamworker.cli.settings import load
from streamworker.exit_code import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def streamworker(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands look at the current directory."""
    monkeypatch.chdir(tmp_path)


def test_the_version_is_the_packages() -> None:
    assert streamworker("--version").output == f"streamworker {__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "check",
        "offsets show",
        "offsets set",
        "offsets reset",
        "topics create",
        "audit ls",
        "audit verify",
        "autoscale simulate",
        "cache stats",
        "cache show",
        "cache invalidate",
        "cache flush",
        "config show",
        "dlq purge",
        "healthcheck",
        "lag",
        "new",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = streamworker(*command.split(), "--help")

    assert result.exit_code == 0
    assert re.search(rf"Examples:\n(.*\n)*? *\S*streamworker {command}", result.output)


def test_every_exit_code_has_its_sentence_in_the_help_of_run() -> None:
    output = streamworker("run", "--help").output

    assert set(MEANINGS) == set(ExitCode)
    for code, meaning in MEANINGS.items():
        assert re.search(rf"^ +{code.value}  {re.escape(meaning)}$", output, re.MULTILINE)


def test_a_configuration_error_is_a_message_without_traceback_and_exit_code_2() -> None:
    result = streamworker("config", "show", "--set", "kafka.gruop=x")

    assert result.exit_code == 2
    assert result.stderr == "Error: kafka.gruop: no such option; did you mean 'kafka.group'? (command line)\n"
    assert not result.stdout


def test_every_command_is_where_the_list_of_commands_says() -> None:
    context = main.make_context("streamworker", ["new"])

    names = [command.name for command in map(partial(main.get_command, context), main.list_commands(context))]

    assert names == main.list_commands(context)


def test_wrong_usage_is_exit_code_2() -> None:
    assert streamworker("run").exit_code == 2
    assert streamworker("no-such-command").exit_code == 2


def test_a_cluster_that_does_not_answer_is_exit_code_1_with_the_reason() -> None:
    result = streamworker("offsets", "show", "orders", "--bootstrap-servers", "127.0.0.1:1", "--timeout", "0.5")

    assert result.exit_code == 1
    assert "Connection refused" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "say which groups, or --all"),
        ("g --watch --serve", "--watch and --serve: expected one of them"),
        ("g --port 80", "are for --serve"),
        ("g --dead-letters g.dlq --once", "are for --serve"),
    ],
)
def test_lag_refuses_what_does_not_go_together(arguments: str, said: str) -> None:
    result = streamworker("lag", *arguments.split())

    assert result.exit_code == 2
    assert said in result.stderr


def test_lag_of_a_cluster_that_does_not_answer_is_exit_code_1() -> None:
    result = streamworker("lag", "g", "--once", "--bootstrap-servers", "127.0.0.1:1", "--timeout", "0.5")

    assert result.exit_code == 1


def test_caches_without_redis_or_a_group_say_what_is_missing() -> None:
    redis = ("--set", "cache.redis=redis://127.0.0.1:1/0")
    without_redis, without_group = streamworker("cache", "stats"), streamworker("cache", "stats", *redis)
    without_answer = streamworker("cache", "stats", *redis, "--group", "shop")

    assert (without_redis.exit_code, without_group.exit_code, without_answer.exit_code) == (2, 2, 1)
    assert "cache.redis is missing" in without_redis.stderr
    assert "give --group or --shared" in without_group.stderr
    assert "cache.redis: ConnectionError: " in without_answer.stderr


def test_running_without_a_group_says_how_to_name_one() -> None:
    result = streamworker("run", "app:Handler")

    assert result.exit_code == 2
    assert "--group" in result.stderr


@pytest.mark.parametrize("targets", [[], ["--to-earliest", "--to-latest"], ["--shift-by", "1", "--to-latest"]])
def test_a_reset_needs_exactly_one_target(targets: list[str]) -> None:
    result = streamworker("offsets", "reset", "orders", *targets)

    assert result.exit_code == 2
    assert "give one of" in result.stderr


def test_a_time_that_is_none_is_refused() -> None:
    result = streamworker("offsets", "reset", "orders", "--to-datetime", "yesterday")

    assert result.exit_code == 2
    assert "'yesterday'" in result.stderr


def test_the_file_in_the_current_directory_is_read_by_itself(tmp_path: Path) -> None:
    (tmp_path / "streamworker.toml").write_text('[kafka]\ngroup = "here"')
    (tmp_path / "other.toml").write_text('[kafka]\ngroup = "there"')

    by_itself = json.loads(streamworker("config", "show", "--json").output)
    told = json.loads(streamworker("config", "show", "--json", "--config", "other.toml").output)

    assert by_itself["kafka.group"]["value"] == "here"
    assert by_itself["kafka.group"]["from"] == "streamworker.toml"
    assert told["kafka.group"]["value"] == "there"


def test_the_configuration_is_shown_with_its_units() -> None:
    shown = streamworker("config", "show").output

    assert re.search(r"commit\.timeout_s +2\.0 +default +an answer later than that is not waited for", shown)
    assert re.search(r"http\.host +0\.0\.0\.0 +default +probes and scrapers", shown)
    assert len(descriptions()) > 30


def test_output_to_a_file_has_no_colours_and_no_cut_lines() -> None:
    long = "x" * 300

    result = streamworker("config", "show", "--set", f"app.greeting={long}")

    assert "\x1b" not in result.output
    assert long in result.output


def test_what_a_terminal_would_act_on_is_not_printed() -> None:
    attack = "\x1b]52;c;cm0gLXJm\x07\x9b31m\u202egnp.exe\r"

    shown = streamworker("config", "show", "--set", f"app.greeting={attack}").output
    as_json = streamworker("config", "show", "--json", "--set", f"app.greeting={attack}").output
    complaint = streamworker("config", "show", "--set", f"kafka.{attack}=1").stderr

    for output in (shown, as_json, complaint, printable(attack)):
        assert not set("\x1b\x07\x9b\u202e\r") & set(output)
    assert json.loads(as_json)["app.greeting"]["value"] == attack


def test_brackets_are_text_and_not_markup() -> None:
    assert "[red]in[0][/red]" in streamworker("config", "show", "--set", "app.greeting=[red]in[0][/red]").output


def test_a_new_project_is_python_and_a_valid_configuration(tmp_path: Path) -> None:
    result = streamworker("new", "web-shop")

    project = tmp_path / "web-shop"
    assert result.exit_code == 0
    for file in project.rglob("*.py"):
        ast.parse(file.read_text())
    config = load(files=[project / "streamworker.toml"], environ={}, overrides=[]).config
    assert config.kafka.group == "web-shop"
    assert 'name = "web-shop"' in (project / "pyproject.toml").read_text()


def test_a_new_project_does_not_overwrite_anything(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()

    result = streamworker("new", "shop")

    assert result.exit_code == 2
    assert not list((tmp_path / "shop").iterdir())


@pytest.mark.parametrize("name", ["../x", "Shop", "1shop", "a/b", ""])
def test_a_new_project_needs_a_plain_name(name: str) -> None:
    assert streamworker("new", name).exit_code == 2


def test_a_check_of_a_wrong_configuration_is_a_finding() -> None:
    result = streamworker("check", "--json", "--set", "http.port=x")

    findings = json.loads(result.stdout)["findings"]
    assert result.exit_code == 2
    assert findings[0]["level"] == "wrong"
    assert "http.port" in findings[0]["message"]


READING = """
from streamworker import Breaker, Handler, Read

class Located(Handler[bytes]):
    topics = ("in",)
    dependencies = (Breaker("geo"),)
    reads = (Read("place", ("skip",), dependency="geo"),)

    def handle(self, record): ...
"""


def test_a_check_says_which_read_no_handler_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reading_handlers.py").write_text(READING)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "reading_handlers", raising=False)

    result = streamworker("check", "reading_handlers:Located", "--json", "--set", "degradation.plaze=skip")

    findings = json.loads(result.stdout)["findings"]
    assert result.exit_code == 2
    assert [one["message"] for one in findings if one["level"] == "wrong"] == [
        "degradation.plaze: no handler has such a read; did you mean 'place'?"
    ]


CIRCLING = """
from streamworker import DeadLetter, Handler

class Circling(Handler[bytes]):
    topics = ("in", "in.dlq")
    dead_letter = DeadLetter("in.dlq")

    def handle(self, record): ...
"""


def test_a_check_finds_dead_letters_that_would_go_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "circling_handlers.py").write_text(CIRCLING)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "circling_handlers", raising=False)

    result = streamworker("check", "circling_handlers:Circling", "--json")

    wrong = [one["message"] for one in json.loads(result.stdout)["findings"] if one["level"] == "wrong"]
    assert result.exit_code == 2
    assert wrong[0].startswith("Circling.dead_letter: 'in.dlq' is also a topic of Circling")


RAISING = """
from streamworker import Handler

def settings():
    raise RuntimeError("no settings")

settings()
"""


@pytest.mark.parametrize("command", ["run", "check", "topics create"])
def test_an_error_of_the_application_at_import_is_wrong_usage_and_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "raising_handlers.py").write_text(RAISING)
    monkeypatch.setattr(sys, "path", [*sys.path])

    result = streamworker(*command.split(), "raising_handlers:X", "--group", "g")

    message = "raising_handlers cannot be imported: RuntimeError: no settings (raising_handlers.py, line 5)"
    assert result.exit_code == 2
    assert message in result.output
    if command != "check":
        assert result.stderr.startswith(f"Error: {message}\nTraceback (most recent call last):\n")
        assert result.stderr.count("File ") == 2


def test_a_variable_that_is_not_read_is_said_where_its_option_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMWORKER_KAFKA_GROUP", "g")

    run = streamworker("run", "app:Handler")
    check = streamworker("check", "--json", "--timeout", "0.1", "--bootstrap-servers", "127.0.0.1:1")
    shown = streamworker("config", "show", "--json")

    caution = "STREAMWORKER_KAFKA_GROUP is not read; did you mean STREAMWORKER__KAFKA__GROUP?"
    findings = json.loads(check.stdout)["findings"]
    assert run.exit_code == 2
    assert run.stderr == (
        f"Error: kafka.group is missing: name the consumer group by --group or in the configuration. {caution}\n"
    )
    assert [one["message"] for one in findings if one["level"] == "warning"] == [caution]
    assert shown.stderr == f"Warning: {caution}\n"
    assert json.loads(shown.stdout)["kafka.group"]["value"] == ""


def test_a_worker_imports_nothing_that_only_dead_letters_need() -> None:
    code = "import sys, streamworker.cli.main, streamworker.cli.run; print(*sorted(sys.modules))"

    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "streamworker.assembly" in imported
    assert not {"streamworker.replay.kafka_desk", "streamworker.replay.view", "streamworker.console.settings"} & {
        *imported
    }
