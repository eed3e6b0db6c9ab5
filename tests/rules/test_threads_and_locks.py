"""The design page names every thread, and everything that threads share or wait by."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "streamworker"
PAGE = re.search(r"^## Threads\n.*?^## ", (ROOT / "docs" / "design.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
PRIMITIVES = {"Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"}
# Where each takes the name of what it starts.
STARTERS = {"threading.Thread": "name", "ThreadPoolExecutor": "thread_name_prefix", "DaemonThreads": "name"}


def page() -> str:
    assert PAGE is not None
    return PAGE[0]


def nodes_within(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        inside = node.name if isinstance(node, ast.ClassDef) else owner
        yield inside, node
        yield from nodes_within(node, inside)


@cache
def nodes() -> Sequence[tuple[str, str, ast.AST]]:
    """All of the package, each with its module and the class that it is in."""
    return [
        (path.relative_to(PACKAGE).as_posix(), owner, node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for owner, node in nodes_within(ast.parse(path.read_text("utf-8")))
    ]


def is_primitive(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="threading"), attr=kind)):
            return kind in PRIMITIVES
    return False


def primitives() -> Iterator[tuple[str, str]]:
    """Module and `Class.attribute` of each; what is assigned to no attribute has no name that could be on the page."""
    for module, owner, node in nodes():
        match node:
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if is_primitive(value):
                yield module, f"{owner}.{name}"


def thread_names() -> Iterator[str]:
    """As patterns: what differs from thread to thread is in capitals on the page."""
    for module, _, node in nodes():
        if module == "daemon_threads.py":
            continue  # whoever uses it says how they are called
        if isinstance(node, ast.Call) and (keyword := STARTERS.get(ast.unparse(node.func))):
            name = next((one.value for one in node.keywords if one.arg == keyword), None)
            assert name is not None, f"{module}:{node.lineno}: a thread without a name"
            parts = name.values if isinstance(name, ast.JoinedStr) else [name]
            yield "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[A-Z]+" for part in parts)


def named_threads() -> list[str]:
    firsts = re.findall(r"^\| (.*?) \|", page().partition("### ")[0], re.MULTILINE)
    return [name for first in firsts for name in re.findall(r"`(\w+-[\w-]+)`", first)]


def test_every_thread_has_a_name_and_the_page_has_it() -> None:
    names = named_threads()

    assert [one for one in thread_names() if not any(re.fullmatch(one, name) for name in names)] == []


def test_every_thread_of_the_page_is_started_somewhere() -> None:
    patterns = list(thread_names())

    assert [name for name in named_threads() if not any(re.fullmatch(one, name) for one in patterns)] == []


def test_the_page_has_every_lock_and_event_and_no_other() -> None:
    listed = re.findall(r"^\| `([\w/]+\.py)` \| `(\w+\.\w+)` \|", page(), re.MULTILINE)

    assert sorted(listed) == sorted(primitives())


def test_what_threads_share_is_an_attribute_of_its_owner() -> None:
    made = [module for module, _, node in nodes() if is_primitive(node)]
    under_other_names = [
        module for module, _, node in nodes() if isinstance(node, ast.ImportFrom) and node.module == "threading"
    ]

    assert made == [module for module, _ in primitives()]
    assert under_other_names == []
