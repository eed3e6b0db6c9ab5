"""Rules that no linter knows. Each exception stands here, with its reason."""

from __future__ import annotations

import ast
import re
import subprocess
from configparser import ConfigParser
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import grimp
import pytest

from streamworker import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "streamworker"
THIS = Path(__file__).resolve()

# Where time is read or slept away from a `Clock`.
TIMED: Mapping[str, str] = {
    "clock.py": "the one place",
    "observability/http.py": "the deadline of a socket's reads, on the server's own threads",
    "testing/mock_kafka.py": "waits for a process of its own",
    "testing/_mock_process.py": "is a process of its own",
}
# What reads the environment or takes signals.
OUTSIDE: Mapping[str, str] = {
    "cli": "the one room",
    "child.py": "a child process leaves signals to its worker",
    "replay/previews.py": "it ends a child process with all that that has started",
    "replay/preview_child.py": "an alarm ends it where nobody is left who would",
    "processing/processes.py": "it is started with them blocked, and what ended it has a signal's name",
}
# What unpickles.
UNPICKLING: Mapping[str, str] = {
    "processing/handover.py": "between a worker and a child process that it has started itself",
    "processing/portable_errors.py": "likewise",
}
# Module-level containers that can change and are never changed, since their type has no frozen form here.
CONSTANT_CONTAINERS: Mapping[str, str] = {
    "record.py:_UNREADABLE_MARK": "a list because the client wants one; told apart by identity, never changed",
}
SHAPELESS = {"utils", "util", "common", "helpers", "helper", "core", "manager", "managers", "misc"}
MUTABLE = {"dict", "list", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter", "count", "cycle"}
MUTATORS = {
    "append", "extend", "insert", "remove", "pop", "popitem", "clear", "update", "setdefault", "add", "discard",
    "appendleft", "popleft",
}  # fmt: skip


@cache
def modules() -> Mapping[str, ast.Module]:
    """Path within the package to syntax tree."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def tracked_files() -> list[Path]:
    """What git keeps, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def lines_with(pattern: str, *, without: set[Path] | None = None) -> list[str]:
    """Lines of tracked text files that match."""
    found = []
    for path in tracked_files():
        if path == THIS or path in (without or ()):
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        lines = enumerate(text.splitlines(), 1)
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for number, line in lines if re.search(pattern, line)
        ]
    return found


def names_used(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Dotted names, and modules that are imported, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            case ast.Attribute() | ast.Name():
                yield node.lineno, ast.unparse(node)


def uses(pattern: str) -> set[str]:
    """Modules that use a name which matches as a whole."""
    return {
        module for module, tree in modules().items() if any(re.fullmatch(pattern, name) for _, name in names_used(tree))
    }


def test_only_the_command_line_reads_the_environment_and_takes_signals() -> None:
    outside = uses(r"os\.(environ|environb|getenv)(\..*)?|signal(\..*)?")

    assert {module for module in outside if not {module, module.split("/")[0]} & OUTSIDE.keys()} == set()


def test_time_is_read_from_a_clock() -> None:
    timed = uses(
        r"time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns|sleep|localtime|gmtime)"
        r"|(datetime\.|dt\.)?(datetime|date)\.(now|utcnow|today)"
    )

    assert timed - TIMED.keys() == set()


def test_nobody_waits_in_a_queue() -> None:
    """In CPython 3.11 and 3.12 a signal that comes while the main thread does can make it wait for ever."""
    assert uses(r"queue\.(Simple)?Queue") == set()


def test_nothing_is_executed_that_came_as_data() -> None:
    executing = uses(
        r"(c?pickle|marshal|shelve|dill)(\..*)?|eval|exec|builtins\.(eval|exec)|yaml\.(unsafe_|full_)?load"
    )

    assert executing - UNPICKLING.keys() == set()


def test_no_module_keeps_state() -> None:
    states = [
        f"{module}:{name}" for module, tree in modules().items() for name in changed_containers(tree) | rebound(tree)
    ]

    assert states == []


def test_what_looks_like_state_is_annotated_as_a_constant_or_private_and_in_capitals() -> None:
    loose = [
        f"{module}:{name}"
        for module, tree in modules().items()
        for name, value in module_level(tree)
        if is_container(value) and not re.fullmatch(r"_?[A-Z][A-Z0-9_]*|__all__", name)
    ]

    assert [one for one in loose if one not in CONSTANT_CONTAINERS] == []


def test_every_declared_exception_is_still_one() -> None:
    containers = {
        f"{module}:{name}"
        for module, tree in modules().items()
        for name, value in module_level(tree)
        if is_container(value)
    }

    assert CONSTANT_CONTAINERS.keys() - containers == set()


def module_level(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


def is_container(value: ast.expr) -> bool:
    match value:
        case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in MUTABLE
    return False


def changed_containers(tree: ast.Module) -> set[str]:
    """Module-level containers that something in the module changes."""
    containers = {name for name, value in module_level(tree) if is_container(value)}
    changed = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if method in MUTATORS:
                changed.add(name)
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                changed.add(name)
            case ast.AugAssign(target=ast.Name(id=name)):
                changed.add(name)
    return containers & changed


def rebound(tree: ast.Module) -> set[str]:
    """Names that a function declares global."""
    return {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}


def test_no_file_is_named_after_nothing_in_particular() -> None:
    shapeless = [
        path.relative_to(ROOT).as_posix()
        for path in tracked_files()
        if SHAPELESS & {part.strip("_").lower() for part in path.relative_to(ROOT).with_suffix("").parts}
    ]

    assert shapeless == []


def test_no_file_knows_the_machine_that_it_was_written_on() -> None:
    assert lines_with(r"/(home|root|Users|work)/[A-Za-z0-9_.-]+|/tmp/venv") == []


def test_no_file_names_a_package_index() -> None:
    assert (
        lines_with(r"--(extra-)?index-url +https?|(index-url|index_url|find-links) *= *\"?https?|/simple/?\"?$") == []
    )


def test_the_product_has_no_switch_for_planted_faults() -> None:
    found = [
        line for line in lines_with(r"(?i)failpoint|planted[_ ]bug|inject[_ ]fault") if line.startswith("streamworker/")
    ]

    assert found == []


def broad_handlers() -> Iterator[tuple[str, str]]:
    """Where an exception of any kind is caught, and the line's comment."""
    for module, tree in modules().items():
        lines = (PACKAGE / module).read_text("utf-8").splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and is_broad(node) and not passes_on(node):
                line = lines[node.lineno - 1]
                yield f"{module}:{node.lineno}", line.partition("  # ")[2]


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether it only cleans up on the way."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_who_catches_everything_says_why() -> None:
    reasons = {where: re.sub(r"^noqa: [A-Z0-9, ]+", "", comment).strip(" -") for where, comment in broad_handlers()}
    silent = [where for where, reason in reasons.items() if len(reason) < len("as above")]

    assert silent == []


def test_modules_say_what_they_decide() -> None:
    assert [module for module, tree in modules().items() if not ast.get_docstring(tree)] == []


def test_the_drawing_of_the_errors_has_them_all() -> None:
    known = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, BaseException)}

    assert set(re.findall(r"^[ │├└─]+ (\w+) {2,}|^    (StreamworkerError)$", errors.__doc__ or "", re.MULTILINE)) == {
        ("", name) if name == "StreamworkerError" else (name, "") for name in known
    }


def test_no_modules_know_each_other_not_even_by_their_types() -> None:
    graph = grimp.build_graph("streamworker", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}

    TopologicalSorter(imports).prepare()  # raises CycleError, which names the modules


def test_what_calls_itself_pure_is_kept_so_and_named_on_the_design_page() -> None:
    contracts = ConfigParser()
    contracts.read(ROOT / ".importlinter", "utf-8")
    kept = contracts["importlinter:contract:pure"]["source_modules"].split()
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    [paragraph] = re.findall(r"^Pure, .*?\n\n", page, re.DOTALL | re.MULTILINE)
    pure = [
        f"streamworker.{module.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}"
        for module, tree in modules().items()
        if re.search(r"\bPure\b(?! but)", ast.get_docstring(tree) or "")
    ]

    assert [one for one in pure if not any(f"{one}.".startswith(f"{whole}.") for whole in kept)] == []
    assert [one for one in kept if one.rpartition(".")[2].replace("_", " ") not in paragraph] == []
