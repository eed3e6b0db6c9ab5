"""The Python examples of the documentation run.

A page is one session: its ```python blocks run in order in one module, and then its test functions, with their
fixtures.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)


def _examples(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


def _run(page: Path, block: re.Match[str], session: ModuleType) -> None:
    """Run a block; the lines of its traceback are those of the page."""
    lines_above = block.string.count("\n", 0, block.start("code"))
    code = compile("\n" * lines_above + block["code"], str(page), "exec", dont_inherit=True)
    exec(code, vars(session))


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if _examples(page)],
)
def test_the_examples_of_a_page_run(
    page: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ModuleType("documentation")
    monkeypatch.setitem(sys.modules, session.__name__, session)  # where classes look up their annotations
    monkeypatch.chdir(ROOT)

    for block in _examples(page):
        _run(page, block, session)

    for name, test in list(vars(session).items()):
        if name.startswith("test_"):
            test(**{fixture: request.getfixturevalue(fixture) for fixture in inspect.signature(test).parameters})
