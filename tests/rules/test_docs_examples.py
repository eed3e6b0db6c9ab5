"""The Python examples of the documentation run.

A page is one session: its ```python blocks run in order in one module, and then its test functions, with their
fixtures. A block under the name of a file is what that file has: others may import it by that name.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)


NAMED_BLOCK = re.compile(r"^`(?P<name>\w+)\.py`:\n\n" + BLOCK.pattern[1:], re.DOTALL | re.MULTILINE)


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
    for block in NAMED_BLOCK.finditer(page.read_text(encoding="utf-8")):
        monkeypatch.setitem(sys.modules, block["name"], session)

    for block in _examples(page):
        _run(page, block, session)

    for name, test in list(vars(session).items()):
        if name.startswith("test_"):
            test(**{fixture: request.getfixturevalue(fixture) for fixture in inspect.signature(test).parameters})


def test_the_files_of_the_first_steps_pass_their_test_as_printed(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    files = {f"{block['name']}.py": block["code"] for block in NAMED_BLOCK.finditer(page)}
    for name, code in files.items():
        (tmp_path / name).write_text(code, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_greet.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert list(files) == ["greet.py", "test_greet.py"]
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
